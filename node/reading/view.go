package reading

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/identity"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// SubjectView is what the journals of the network hold on one subject.
type SubjectView struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
	// Complete: every node that should know was asked, answered, and left nothing out.
	Complete bool `json:"complete"`
	// Files are the institutions that hold a file on the subject.
	Files []Institution `json:"files"`
	// Mandates are those that the subject gave, as registry members say, the newest first.
	Mandates []GivenMandate `json:"mandates"`
	// Uses are what was done, the newest first.
	Uses []Use `json:"uses"`
	// Journals are the nodes that told; NotReached those that did not; Shortened those
	// that know of older uses too, which a later period leaves out.
	Journals   []string    `json:"journals"`
	NotReached []Unreached `json:"not_reached,omitempty"`
	Shortened  []string    `json:"shortened,omitempty"`
}

// Institution names one for people.
type Institution struct {
	ID   names.InstitutionID `json:"id"`
	Name string              `json:"name,omitempty"`
}

// Kind is what sort of use it was.
type Kind string

// The kinds of use.
const (
	Consultation Kind = "consultation" // somebody asked for data; refused or not
	Declaration  Kind = "declaration"  // somebody said that it has a file
	Withdrawal   Kind = "withdrawal"   // somebody said that it no longer has one
	MandateGiven Kind = "mandate"      // the subject gave a mandate
	MandateEnded Kind = "revocation"   // a mandate was taken back
	Notified     Kind = "notification" // somebody told others of a change, or declared it to the authentic source
	LogReading   Kind = "reading"      // somebody read what journals hold on the subject
)

// The outcomes of a use.
const (
	Permitted     = "permitted"
	Denied        = "denied"
	NotApplicable = "not applicable" // no authorization speaks of it
	Undecided     = "undecided"      // no clearing peer's decision was told
)

// Use is one thing that was done with data of, or with entries on, the subject. The
// user, application and level are what the institution asserted.
type Use struct {
	Kind          Kind                  `json:"kind"`
	Time          time.Time             `json:"time"`
	Ticket        names.Ticket          `json:"ticket,omitempty"`
	Institution   Institution           `json:"institution"` // that asked
	User          string                `json:"user,omitempty"`
	Application   string                `json:"application,omitempty"`
	Channel       string                `json:"channel,omitempty"`
	AuthLevel     uint32                `json:"auth_level,omitempty"`
	Purpose       names.Purpose         `json:"purpose,omitempty"`
	LegalBasis    string                `json:"legal_basis,omitempty"`
	Authorization names.AuthorizationID `json:"authorization,omitempty"`
	Deliberation  names.Deliberation    `json:"deliberation,omitempty"`
	Mode          names.Mode            `json:"mode,omitempty"`
	Dataset       names.DatasetID       `json:"dataset,omitempty"`
	Title         string                `json:"title,omitempty"` // of the dataset
	Fields        []string              `json:"fields,omitempty"`
	Withheld      []string              `json:"withheld,omitempty"`
	Period        *names.Period         `json:"period,omitempty"` // that was asked about
	Outcome       string                `json:"outcome"`
	Reason        string                `json:"reason,omitempty"`
	Suppliers     []UseSupplier         `json:"suppliers,omitempty"`
	// ToldBy are the nodes whose journals hold it. Disputed: they do not agree on who
	// asked what for which purpose; see a trace of the ticket.
	ToldBy   []string `json:"told_by"`
	Disputed bool     `json:"disputed,omitempty"`
}

// UseSupplier is what one supplier gave or refused.
type UseSupplier struct {
	Institution Institution `json:"institution"`
	Status      string      `json:"status,omitempty"` // DATA_FOUND ...; EXPIRED_UNUSED: it was never asked
	Reason      string      `json:"reason,omitempty"`
}

// told is a record and whose journal holds it.
type told struct {
	node names.NodeID
	*nodepb.SubjectRecord
}

// gather asks every node that can know.
func (s *Service) gather(ctx context.Context, t *identity.Token, req *nodepb.SubjectRequest) (*SubjectView, error) {
	viewing, err := decodeViewing(req.Viewing)
	if err != nil {
		return nil, err
	}
	own, err := s.own(ctx, t.Subject, viewing, sum(req.Token))
	if err != nil {
		return nil, err
	}
	view := &SubjectView{From: at(viewing.FromUnixMs), Until: at(viewing.UntilUnixMs), Uses: []Use{}, Files: []Institution{}, Mandates: []GivenMandate{}}
	var all []told
	var next []*registrypb.NodeRef
	holders := map[string]bool{}
	take := func(n names.NodeID, resp *nodepb.SubjectResponse) {
		for _, r := range resp.Records[:min(len(resp.Records), maxRecords)] {
			all = append(all, told{n, r})
		}
		for _, h := range resp.Holders {
			holders[h] = true
			next = append(next, &registrypb.NodeRef{Institution: h})
		}
		next = append(next, named(resp.Records)...)
		view.given(resp.Mandates)
		if resp.More {
			view.Shortened = append(view.Shortened, n.String())
		}
	}
	take(s.cfg.Self, own)
	next = append(next, &registrypb.NodeRef{Institution: string(s.cfg.Self.Institution)})

	f := s.fan()
	ask := func(ctx context.Context, n names.NodeID) (func(), error) {
		resp, err := s.cfg.Peers.Subject(ctx, n, req)
		return func() { take(n, resp) }, err
	}
	members, err := s.members()
	if err != nil {
		return nil, err
	}
	f.each(ctx, members, ask)
	// What the second round names was cleared by members that told it in the first,
	// but for what a member that is not there cleared: hence a third.
	for range 2 {
		nodes, err := s.nodes(next)
		if err != nil {
			return nil, err
		}
		f.each(ctx, nodes, ask)
	}
	view.Journals, view.NotReached = f.done()
	slices.Sort(view.Shortened)
	view.Complete = len(view.NotReached)+len(view.Shortened) == 0
	return view, s.cfg.Registry.View(func(v record.View) error {
		return cmp.Or(view.named(v, names.DateOf(s.cfg.Now().UTC())), view.fill(v, all, holders))
	})
}

// fill joins the records into uses, and adds what is public.
func (sv *SubjectView) fill(v record.View, all []told, holders map[string]bool) error {
	groups := map[string][]told{}
	for _, r := range all {
		groups[groupOf(r)] = append(groups[groupOf(r)], r)
	}
	for _, g := range groups {
		u, err := use(v, g)
		if err != nil {
			return err
		}
		sv.Uses = append(sv.Uses, u)
	}
	slices.SortFunc(sv.Uses, func(a, b Use) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Ticket, b.Ticket), cmp.Compare(a.Kind, b.Kind), slices.Compare(a.ToldBy, b.ToldBy))
	})
	for h := range holders {
		i, err := v.Institution(names.InstitutionID(h))
		if err != nil {
			return err
		}
		if i != nil { // else no member said so truly
			sv.Files = append(sv.Files, Institution{ID: names.InstitutionID(h), Name: i.Name})
		}
	}
	slices.SortFunc(sv.Files, func(a, b Institution) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}
