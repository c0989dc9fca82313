package sector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// MemberConfig is what a cooperating institution needs.
type MemberConfig struct {
	Config
	Manager names.InstitutionID // the sector's managing body
	Sources map[names.DatasetID]exchange.Source
	// NotBefore refuses permissions issued before it: a restored disk may have lost the
	// marks of those that were answered.
	NotBefore time.Time
	// Inbox takes what is delivered. Nil: nothing is.
	Inbox Inbox
}

// Member is a cooperating institution's part.
type Member struct {
	*core
	manager   names.InstitutionID
	sources   map[names.DatasetID]exchange.Source
	notBefore time.Time
	inbox     Inbox
	content   exchange.Contents
	checker   clearing.Checker
	lots      chunk.Checker
	locks     locks
}

// NewMember makes a cooperating institution's part; it starts nothing.
func NewMember(cfg MemberConfig) *Member {
	return &Member{core: newCore(cfg.Config), manager: cfg.Manager, sources: cfg.Sources, notBefore: cfg.NotBefore, inbox: cfg.Inbox}
}

// refusal is why a permission is refused: a word for the managing body, and the detail
// for the sector's journal at this node.
type refusal struct {
	reason registrypb.Reason
	detail string
}

func refuse(reason registrypb.Reason, format string, args ...any) *refusal {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *refusal {
	return refuse(registrypb.Reason_CLEARANCE_INVALID, format, args...)
}

// ServeForward answers what the managing body forwards. Nobody else is answered, nor
// journaled: a peer that is none learns nothing, and can fill nothing.
//
// The error is ErrNotOfSector or an *exchange.Refusal, whose entry is durable unless its
// reason is JOURNAL_UNAVAILABLE.
func (m *Member) ServeForward(ctx context.Context, from names.NodeID, f *nodepb.Forward) (*nodepb.ForwardResponse, error) {
	if from.Institution != m.manager {
		return nil, ErrNotOfSector
	}
	x := &answering{Member: m, from: from, raw: f, hash: sum(f.GetPermission())}
	no := x.check()
	if no == nil {
		release, err := m.locks.acquire(ctx, string(x.permission.GetRequestHash()))
		if err != nil {
			return nil, err
		}
		defer release()
		var resp *nodepb.ForwardResponse
		if resp, no = m.answer(ctx, x.permission, x.hash, envelope.SectorAnswer, x); no == nil {
			return resp, nil
		}
	}
	return nil, m.refused(ctx, from, x.entry(nodepb.Event_SECTOR_REFUSED), no)
}

// refused journals that a forward was refused, and gives what the managing body is told.
func (m *Member) refused(ctx context.Context, from names.NodeID, e *nodepb.Entry, no *refusal) error {
	e.Status, e.Reason, e.Detail = nodepb.Status_NO_RESULT, no.reason, no.detail
	m.Log.Info("refused within the sector", "peer", from.String(), "ticket", e.GetTicket(), "reason", no.reason.String(), "detail", no.detail)
	if err := m.journal(ctx, e); err != nil {
		return &exchange.Refusal{Reason: registrypb.Reason_JOURNAL_UNAVAILABLE}
	}
	return &exchange.Refusal{Reason: no.reason}
}

// looked has the own view of the registry judge, if it is confirmed and can be read.
func (m *Member) looked(judge func(record.View) (*refusal, error)) *refusal {
	if _, err := m.Registry.Standing(); err != nil {
		return refuse(registrypb.Reason_REGISTRY_STALE, "own view of the registry is not confirmed")
	}
	var no *refusal
	err := m.Registry.View(func(v record.View) (err error) {
		no, err = judge(v)
		return err
	})
	if err != nil {
		return refuse(registrypb.Reason_REGISTRY_STALE, "own view of the registry cannot be read")
	}
	return no
}

// answering is one permission being answered. Its goroutine owns it.
type answering struct {
	*Member
	from       names.NodeID
	raw        *nodepb.Forward
	hash       []byte                   // of the permission's envelope
	permission *nodepb.SectorPermission // once its signature and form were checked
	checked    *clearing.Checked        // once the clearance was
	parts      []part
	schema     string
}

// part is a SectorPart whose form was checked.
type part struct {
	exchange.Query
}

func (x *answering) what() []byte {
	return sum(append(hashParts(x.permission.GetParts()), strings.Join(x.permission.GetFields(), "\x00")...))
}

func (x *answering) supplied([]byte) (*nodepb.Entry, error) {
	return x.entry(nodepb.Event_SECTOR_SUPPLIED), nil
}

func (x *answering) fetch(ctx context.Context) (*nodepb.KeptSectorContent, *refusal) {
	source, ok := x.sources[x.checked.Dataset]
	if !ok {
		return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "no source is configured for this dataset")
	}
	var all []exchange.Record
	for _, p := range x.parts {
		records, err := source.Fetch(ctx, p.Query)
		if err != nil {
			text := strings.ReplaceAll(err.Error(), p.Subject.Number(), "***")
			x.Log.Warn("source failed", "dataset", p.Dataset, "ticket", x.permission.GetTicket(), "err", text)
			if errors.Is(err, exchange.ErrSourceUnavailable) || ctx.Err() != nil {
				return nil, refuse(registrypb.Reason_SUPPLIER_UNAVAILABLE, "source unavailable")
			}
			return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "source failed")
		}
		for _, r := range records { // what lasts over two parts comes twice
			if len(x.parts) == 1 || !slices.ContainsFunc(all, func(o exchange.Record) bool { return bytes.Equal(o, r) }) {
				all = append(all, r)
			}
		}
	}
	content, status, err := x.content.Make(x.checked.Dataset, x.schema, all, x.checked.Fields)
	if err != nil {
		return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "source gave what must not leave: %v", err)
	}
	return &nodepb.KeptSectorContent{Status: status, Content: content}, nil
}

// entry begins an entry of the sector's journal at this node.
func (x *answering) entry(event nodepb.Event) *nodepb.Entry {
	e := &nodepb.Entry{
		TimeUnixMs: x.Now().UnixMilli(), Role: nodepb.Role_COOPERATING, Event: event,
		Supplier: nodeRef(x.Self), Member: string(x.Self.Institution), PermissionHash: x.hash,
		Requester: nodeRef(x.from), // until the clearance says who
	}
	if p := x.permission; p != nil {
		e.Ticket, e.Dataset, e.Fields = p.GetTicket(), p.GetDataset(), p.GetFields()
		e.RequestHash, e.ClearanceHash = p.GetRequestHash(), p.GetClearanceHash()
		e.Evidence = [][]byte{x.raw.GetPermission()}
		for i, q := range p.GetParts() {
			if i == 0 {
				e.Subject, e.Period = q.GetSubject(), q.GetPeriod()
			} else if q.GetSubject().GetNumber() != e.Subject.GetNumber() {
				e.AlsoSubjects = append(e.AlsoSubjects, q.GetSubject())
			}
		}
	}
	if c := x.checked; c != nil {
		q := c.Request
		e.Requester, e.Clearer, e.User, e.Application, e.Channel = nodeRef(c.Requester), nodeRef(c.Clearer), q.GetUser(), q.GetApplication(), q.GetChannel()
		e.Purpose, e.Mode, e.Period, e.AuthLevel, e.ClearanceId = q.GetPurpose(), q.GetMode(), q.GetPeriod(), q.GetAuthLevel(), c.ID
		e.Authorization, e.Deliberation = c.Authorization.GetId(), c.Authorization.GetDeliberation()
		asked := protoSubject(c.Subject)
		if e.Subject.GetNumber() != asked.GetNumber() {
			e.AlsoSubjects = append(e.AlsoSubjects, e.Subject)
			e.Subject = asked
			e.AlsoSubjects = slices.DeleteFunc(e.AlsoSubjects, func(s *registrypb.Subject) bool { return s.GetNumber() == asked.GetNumber() })
		}
		e.Evidence = append(e.Evidence, x.raw.GetClearance())
	}
	return e
}

// stands looks once more at what may fall away, in this node's own view.
func (x *answering) stands() *refusal {
	return x.Member.stands(x.permission.GetAnswerByUnixMs(), func(v record.View) *clearing.Refusal { return x.checked.Recheck(v, x.Now(), x.Mesh) })
}

func (m *Member) stands(answerByUnixMs int64, recheck func(record.View) *clearing.Refusal) *refusal {
	answerBy := time.UnixMilli(answerByUnixMs)
	if m.Now().After(answerBy.Add(m.Bounds.Skew)) {
		return refuse(registrypb.Reason_CLEARANCE_EXPIRED, "the managing body waited until %s", answerBy.UTC().Format(time.RFC3339Nano))
	}
	if _, err := m.Registry.Standing(); err != nil {
		return refuse(registrypb.Reason_REGISTRY_STALE, "own view of the registry is not confirmed")
	}
	var no *refusal
	err := m.Registry.View(func(v record.View) error {
		_, ok, err := cooperates(v, m.manager, m.Self.Institution)
		if err != nil {
			return err
		}
		if !ok {
			no = invalid("%s is not the managing body of this institution's sector, or one of both is suspended", m.manager)
			return nil
		}
		if bad := recheck(v); bad != nil {
			no = refuse(bad.Reason, "the clearance: %s", bad.Detail)
		}
		return nil
	})
	if err != nil {
		return refuse(registrypb.Reason_REGISTRY_STALE, "own view of the registry cannot be read")
	}
	return no
}

// locks holds one lock for each key in use. The zero value is ready.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// acquire waits for a key until ctx is done. release must be called once when there is
// no error.
func (l *locks) acquire(ctx context.Context, key string) (release func(), err error) {
	for {
		l.mu.Lock()
		wait, busy := l.held[key]
		if !busy {
			if l.held == nil {
				l.held = make(map[string]chan struct{})
			}
			mine := make(chan struct{})
			l.held[key] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
