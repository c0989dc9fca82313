package sector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Desk is what the institution's own people do with its part of a sector: the managing
// body's keep the directory, officers of both read the sector's journal, and a subject
// sees what concerns it. Whatever is read or changed is journaled first, in the sector's
// journal. One of Manager and Member is nil.
type Desk struct {
	Manager *Manager
	Member  *Member
	Outer   Outer // of the managing body's node; nil: traces do not look outside
}

// By is who sits at the desk, as the API authenticated it.
type By struct {
	Application string
	User        names.UserID
	AuthLevel   uint32
	Channel     string
}

func (d *Desk) core() *core {
	if d.Manager != nil {
		return d.Manager.core
	}
	return d.Member.core
}

func (d *Desk) entry(by By, role nodepb.Role, event nodepb.Event, id subject.ID) *nodepb.Entry {
	c := d.core()
	e := &nodepb.Entry{TimeUnixMs: c.Now().UnixMilli(), Role: role, Event: event, Requester: nodeRef(c.Self),
		Application: by.Application, User: string(by.User), AuthLevel: by.AuthLevel, Channel: by.Channel}
	if !id.IsZero() {
		e.Subject = protoSubject(id)
	}
	return e
}

// managing gives the managing body's part, or ErrNotOfSector.
func (d *Desk) managing() (*Manager, error) {
	if d.Manager == nil {
		return nil, ErrNotOfSector
	}
	return d.Manager, nil
}

// Members gives the cooperating institutions that there ever were.
func (d *Desk) Members() ([]directory.Member, error) {
	m, err := d.managing()
	if err != nil {
		return nil, err
	}
	return m.directory.Members()
}

// SetMember admits a cooperating institution, or changes its days. The mesh must list it
// as of this sector.
func (d *Desk) SetMember(ctx context.Context, by By, who directory.Member) error {
	m, err := d.managing()
	if err != nil {
		return err
	}
	if err := errors.Join(who.Institution.Validate(), who.Period.Validate()); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := m.listed(who.Institution); err != nil {
		return err
	}
	e := d.entry(by, nodepb.Role_MANAGING_BODY, nodepb.Event_AFFILIATED, subject.ID{})
	e.Member, e.Period, e.Detail = string(who.Institution), protoPeriod(who.Period), "member of the sector"
	if err := m.journal(ctx, e); err != nil {
		return err
	}
	return m.directory.SetMember(who)
}

// Change changes who has files on whom. Every row is journaled before, and a change
// that the directory refuses is not made at all. The error wraps directory.ErrRefused or
// ErrJournal.
func (d *Desk) Change(ctx context.Context, by By, changes []directory.Change) error {
	m, err := d.managing()
	if err != nil {
		return err
	}
	if err := m.directory.Check(changes); err != nil {
		return err
	}
	var entries []*nodepb.Entry
	for _, c := range changes {
		event := nodepb.Event_AFFILIATED
		if c.Remove {
			event = nodepb.Event_UNAFFILIATED
		}
		e := d.entry(by, nodepb.Role_MANAGING_BODY, event, c.Subject)
		e.Member, e.Period, e.Detail = string(c.Member), protoPeriod(c.Period), "reference, quality "+string(c.Quality)
		entries = append(entries, e)
	}
	for lot := range slices.Chunk(entries, 256) { // they share syncs
		if err := m.journal(ctx, lot...); err != nil {
			return err
		}
	}
	return m.directory.Change(changes)
}

// Replace says that a number was replaced by another.
func (d *Desk) Replace(ctx context.Context, by By, old, successor subject.ID) error {
	m, err := d.managing()
	if err != nil {
		return err
	}
	e := d.entry(by, nodepb.Role_MANAGING_BODY, nodepb.Event_AFFILIATED, old)
	e.AlsoSubjects, e.Detail = []*registrypb.Subject{protoSubject(successor)}, "this number was replaced by another"
	if err := m.journal(ctx, e); err != nil {
		return err
	}
	return m.directory.Replace(old, successor)
}

// References gives who in the sector has files on a subject, and what the registry of
// the mesh is to say of it: the sector's days, without a trace of who.
func (d *Desk) References(ctx context.Context, by By, id subject.ID) (refs, outline []directory.Reference, err error) {
	m, err := d.managing()
	if err != nil {
		return nil, nil, err
	}
	e := d.entry(by, nodepb.Role_READER, nodepb.Event_READ, id)
	e.Detail = "the sector directory"
	if err := m.journal(ctx, e); err != nil {
		return nil, nil, err
	}
	refs, err = m.directory.References(id)
	return refs, directory.Outline(refs), err
}

// Trace joins and verifies what the sector knows of a ticket, as far as it is this
// institution's to know.
func (d *Desk) Trace(ctx context.Context, by By, t names.Ticket) (*Story, error) {
	e := d.entry(by, nodepb.Role_READER, nodepb.Event_READ, subject.ID{})
	e.Detail = "trace within the sector: " + string(t)
	if err := d.core().journal(ctx, e); err != nil {
		return nil, err
	}
	if d.Manager != nil {
		return d.Manager.Trace(ctx, t, d.Outer)
	}
	return d.Member.Trace(ctx, t)
}

// Search is what an officer looks for in the sector's journal; at least one is set.
type Search struct {
	Pseudonym   string // under which a user stood outside
	User        names.UserID
	Subject     subject.ID
	From, Until time.Time
	Limit       int // 0: 1000
}

// Found is an entry with its place.
type Found struct {
	Sequence uint64
	Entry    *nodepb.Entry
}

// Search finds entries of the sector's journal at this node, newest first.
func (d *Desk) Search(ctx context.Context, by By, q Search) ([]Found, error) {
	if q.Pseudonym == "" && q.User == "" && q.Subject.IsZero() && q.From.IsZero() {
		return nil, fmt.Errorf("%w: say at least one of pseudonym, user, subject or from", ErrMalformed)
	}
	if q.Limit == 0 {
		q.Limit = journal.DefaultLimit
	}
	e := d.entry(by, nodepb.Role_READER, nodepb.Event_READ, q.Subject)
	e.Purpose, e.Detail = "security-oversight", "the sector's journal"
	if err := d.core().journal(ctx, e); err != nil {
		return nil, err
	}
	found, err := d.core().Journal.Find(ctx, journal.Query{
		Ticket: names.Ticket(q.Pseudonym), User: q.User, Subject: q.Subject, From: q.From, Until: q.Until, Limit: q.Limit, NewestFirst: true,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	var out []Found
	for _, s := range found {
		out = append(out, Found{s.Sequence, s.Entry})
	}
	return out, nil
}

// View is what a subject sees of itself within the sector: with whom it is and was, and
// who of the sector did what about it. It is for the subject alone: the caller has
// checked its identity token, which was made out to this node.
type View struct {
	References []directory.Reference
	Entries    []*nodepb.Entry // newest first, without what is the institution's own
}

// maxViewed is how many entries a view shows for each of the subject's numbers.
const maxViewed = 2000

// SubjectView gives a subject its view. The mesh tells it of the sector only.
func (d *Desk) SubjectView(ctx context.Context, by By, id subject.ID, from, until time.Time) (*View, error) {
	m, err := d.managing()
	if err != nil {
		return nil, err
	}
	e := d.entry(by, nodepb.Role_READER, nodepb.Event_READ, id)
	e.Purpose, e.Detail = "subject-view", "within the sector"
	if err := m.journal(ctx, e); err != nil {
		return nil, err
	}
	v := new(View)
	if v.References, err = m.directory.References(id); err != nil {
		return nil, err
	}
	family, err := m.directory.Family(id)
	if err != nil {
		return nil, err
	}
	seen := map[uint64]bool{}
	for _, number := range family {
		found, err := m.Journal.Find(ctx, journal.Query{Subject: number, From: from, Until: until, NewestFirst: true, Limit: maxViewed})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrJournal, err)
		}
		for _, s := range found {
			if !seen[s.Sequence] && s.Entry.GetEvent() != nodepb.Event_READ {
				seen[s.Sequence] = true
				v.Entries = append(v.Entries, shownTo(s.Entry, number))
			}
		}
	}
	slices.SortStableFunc(v.Entries, func(a, b *nodepb.Entry) int { return int(b.GetTimeUnixMs() - a.GetTimeUnixMs()) })
	return v, nil
}

// shownTo is an entry without what is the institution's own, and, of a lot, without what is
// about others.
func shownTo(e *nodepb.Entry, id subject.ID) *nodepb.Entry {
	shown := proto.CloneOf(e)
	shown.Evidence, shown.SealSalt, shown.Detail = nil, nil, ""
	if g := journal.InLot(e, id); g != nil {
		shown.Subject, shown.Outcome, shown.Status, shown.Reason = protoSubject(id), g.Outcome, g.Status, g.Reason
		shown.Authorization, shown.Deliberation, shown.Fields, shown.Withheld = g.Authorization, g.Deliberation, g.Fields, g.Withheld
	}
	shown.Lot = nil
	return shown
}

// listed insists that the mesh lists an institution as of this sector.
func (m *Manager) listed(i names.InstitutionID) error {
	ok, err := m.cooperates(i)
	if err == nil && !ok {
		err = fmt.Errorf("%w: the mesh does not list %s as an institution of this sector in good standing", ErrMalformed, i)
	}
	return err
}
