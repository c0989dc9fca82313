package sector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// ManagerConfig is what a managing body needs.
type ManagerConfig struct {
	Config
	Directory *directory.Directory
	Datasets  []names.DatasetID // that are found within the sector
	Times     veil.Times        // zero: veil.DefaultTimes
	// Consult asks outside, as the sector. Nil: the sector does not ask.
	Consult Consultations
	// Secret makes the pseudonyms of users: 32 bytes that do not change.
	Secret []byte
}

// Consultations carries out questions; exchange.Consultant is one.
type Consultations interface {
	Consult(ctx context.Context, q exchange.Question) (*exchange.Result, error)
	Acknowledge(ctx context.Context, application string, t names.ClientTicket) error
}

// Manager is the managing body's part.
type Manager struct {
	*core
	directory *directory.Directory
	datasets  []names.DatasetID
	times     veil.Times
	consult   Consultations
	secret    []byte
}

var _ exchange.Sector = (*Manager)(nil)

// NewManager makes a managing body's part; it starts nothing.
func NewManager(cfg ManagerConfig) (*Manager, error) {
	if cfg.Times == (veil.Times{}) {
		cfg.Times = veil.DefaultTimes()
	}
	if err := cfg.Times.Validate(); err != nil {
		return nil, err
	}
	if len(cfg.Secret) < sha256.Size {
		return nil, errors.New("sector: the secret of pseudonyms has fewer than 32 bytes")
	}
	return &Manager{core: newCore(cfg.Config), directory: cfg.Directory, datasets: cfg.Datasets, times: cfg.Times,
		consult: cfg.Consult, secret: cfg.Secret}, nil
}

// Directory is the sector directory, to be read. Changes go through Change, SetMember
// and Replace, which journal them.
func (m *Manager) Directory() *directory.Directory { return m.directory }

// Resolves reports whether a dataset is found within the sector.
func (m *Manager) Resolves(d names.DatasetID) bool { return slices.Contains(m.datasets, d) }

// Settle and Hold wait for the bounds of a time class.
func (m *Manager) Settle(ctx context.Context, arrived time.Time, failed bool) {
	m.times.Settle(ctx, arrived, failed)
}

// Hold is described at Settle.
func (m *Manager) Hold(ctx context.Context, arrived time.Time, failed bool) {
	m.times.Hold(ctx, arrived, failed)
}

// Presented is what answers presentations; exchange.Supplier.Present is one.
type Presented func(context.Context, names.NodeID, *nodepb.Presentation) (*nodepb.PresentResponse, error)

// Veil makes every reply as large as its size class, and a refusal a reply like any
// other.
func (m *Manager) Veil(next Presented) Presented {
	return func(ctx context.Context, from names.NodeID, p *nodepb.Presentation) (*nodepb.PresentResponse, error) {
		resp, err := next(ctx, from, p)
		var no *exchange.Refusal
		switch {
		case errors.As(err, &no):
			resp = &nodepb.PresentResponse{Refusal: no.Reason}
		case err != nil:
			return nil, err
		default: // what is kept stays without
			resp = &nodepb.PresentResponse{Answer: resp.GetAnswer(), Content: resp.GetContent(), Blinding: resp.GetBlinding()}
		}
		resp.Padding, err = veil.Padding(resp)
		return resp, err
	}
}

// resolution is one presentation being resolved. Its goroutine owns it.
type resolution struct {
	*Manager
	exchange.SectorCase
	ids      []subject.ID // the subject's numbers, the one asked by first
	answerBy time.Time    // wall clock: when an inner answer is of use
}

// reply is what came of one route.
type reply struct {
	route      directory.Route
	permission []byte // envelope; nil: none was signed
	by         names.NodeID
	records    []exchange.Record
	answer     []byte // envelope; nil: none that stands
	status     nodepb.Status
	commitment []byte
	reason     registrypb.Reason // why there is none
	detail     string
}

// left is how long inner answers are of use: what arrived then must leave with its time
// class, and before releaseBy.
func (m *Manager) left(arrived, releaseBy time.Time) time.Duration {
	return min(time.Until(arrived.Add(m.times.Late-m.times.Room())), releaseBy.Sub(m.Now())-m.times.Room())
}

// Resolve finds who in the sector has files, asks all of them, and merges what they
// answer. If one of them has no answer, the sector has none: half an answer would tell
// that there are two.
func (m *Manager) Resolve(ctx context.Context, c exchange.SectorCase) (exchange.SectorFound, error) {
	left := m.left(c.Arrived, c.Checked.ReleaseBy)
	x := &resolution{Manager: m, SectorCase: c, ids: append([]subject.ID{c.Checked.Subject}, c.Checked.FiledUnder...), answerBy: m.Now().Add(left)}
	inner, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	if err := m.follow(inner, x.ids[:1], c.Checked.Clearer); err != nil {
		return exchange.SectorFound{}, fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
	}
	routes, err := m.directory.Route(x.ids, c.Checked.Qualities, c.Checked.Period)
	if err != nil {
		m.Log.Error("the sector directory cannot be read", "ticket", c.Checked.Ticket, "err", err)
	}
	replies := make([]*reply, len(routes))
	var all sync.WaitGroup
	for i, r := range routes {
		all.Go(func() { replies[i] = x.forward(inner, r) })
	}
	all.Wait()
	records, ok := merge(replies)
	seal, err := x.conclude(ctx, replies, ok, len(records))
	switch {
	case err != nil:
		return exchange.SectorFound{}, fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
	case !ok:
		return exchange.SectorFound{Seal: seal}, ErrNoAnswer
	}
	return exchange.SectorFound{Records: records, Seal: seal}, nil
}

// merge makes one answer of several, in order of time, and gives a record that several
// have once. It reports false if there is none.
func merge(replies []*reply) (records []exchange.Record, ok bool) {
	size := 0
	for _, r := range replies {
		if r.answer == nil {
			return nil, false
		}
		others := records
		for _, one := range r.records {
			if !slices.ContainsFunc(others, func(o exchange.Record) bool { return bytes.Equal(o, one) }) {
				records = append(records, one)
				size += len(one) + 1
			}
		}
	}
	return records, len(replies) > 0 && size <= exchange.MaxContent && len(records) <= exchange.MaxRecords
}

// conclude journals within the sector what came of it, and gives the seal.
func (x *resolution) conclude(ctx context.Context, replies []*reply, ok bool, records int) (seal []byte, err error) {
	var entries []*nodepb.Entry
	salt := fresh(32) // it joins them
	for _, r := range replies {
		e := x.entry(nodepb.Event_SECTOR_ANSWERED)
		e.Member, e.Supplier = string(r.route.Member), &registrypb.NodeRef{Institution: string(r.route.Member), Node: string(r.by.Node)}
		e.Status, e.Reason, e.Detail, e.AnswerCommitment, e.SealSalt = r.status, r.reason, r.detail, r.commitment, salt
		if r.permission != nil {
			e.PermissionHash, e.Evidence = sum(r.permission), [][]byte{r.permission}
		}
		if r.answer != nil {
			e.Evidence = append(e.Evidence, r.answer)
		}
		entries = append(entries, e)
	}
	e := x.entry(nodepb.Event_RESOLVED)
	e.PermissionHash, e.SealSalt = RestsOn(entries), salt
	e.Outcome, e.Status = registrypb.Outcome_PERMIT, nodepb.Status_DATA_FOUND
	switch {
	case !ok && len(replies) == 0:
		e.Outcome, e.Status, e.Reason = registrypb.Outcome_DENY, nodepb.Status_NO_RESULT, registrypb.Reason_SECTOR_FAILED
		e.Detail = "the sector directory has no institution for this subject, quality and period"
	case !ok:
		e.Outcome, e.Status, e.Reason = registrypb.Outcome_DENY, nodepb.Status_NO_RESULT, registrypb.Reason_SECTOR_FAILED
		e.Detail = fmt.Sprintf("of %d institutions not all answered, or with too much", len(replies))
	case records == 0:
		e.Status = nodepb.Status_NO_DATA_FOUND
	}
	if err := x.journal(ctx, append(entries, e)...); err != nil {
		return nil, err
	}
	return Seal(e), nil
}

// Seal is what a managing body's entry outside says of the sector's own. It tells
// nothing to who does not have that entry, which holds 32 random bytes.
func Seal(e *nodepb.Entry) []byte {
	raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	return sum(append([]byte("crossroads sector seal v1\x00"), raw...))
}

// RestsOn is what an outcome says of the entries that it was made of, in any order.
func RestsOn(entries []*nodepb.Entry) []byte {
	var all [][]byte
	for _, e := range entries {
		all = append(all, Seal(e))
	}
	return joined(all)
}

func joined(seals [][]byte) []byte {
	slices.SortFunc(seals, bytes.Compare)
	return sum(bytes.Join(seals, nil))
}

// entry begins an entry of the sector's journal about the exchange.
func (x *resolution) entry(event nodepb.Event) *nodepb.Entry {
	q := x.Checked.Request
	e := &nodepb.Entry{
		TimeUnixMs: x.Now().UnixMilli(), Role: nodepb.Role_MANAGING_BODY, Event: event,
		Ticket: string(x.Checked.Ticket), ClientTicket: q.GetClientTicket(), Requester: nodeRef(x.From), Clearer: nodeRef(x.Checked.Clearer),
		User: q.GetUser(), Application: q.GetApplication(), Channel: q.GetChannel(), AuthLevel: q.GetAuthLevel(),
		Purpose: q.GetPurpose(), Mode: q.GetMode(), Dataset: q.GetDataset(), Fields: texts(x.Checked.Fields), Withheld: texts(x.Checked.Withheld),
		Subject: protoSubject(x.Checked.Subject), Period: q.GetPeriod(), Authorization: x.Checked.Authorization.GetId(),
		Deliberation: x.Checked.Authorization.GetDeliberation(),
		RequestHash:  x.Checked.RequestHash, ClearanceId: x.Checked.ID, ClearanceHash: x.Checked.Hash,
	}
	for _, id := range x.ids[1:] {
		e.AlsoSubjects = append(e.AlsoSubjects, protoSubject(id))
	}
	return e
}
