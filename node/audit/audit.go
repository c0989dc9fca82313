// Package audit has clearing peers held to what they decided. A decision is
// deterministic at its registry index, so any member can make it again: what a peer
// cleared and must not have cleared is told by any other, with what the peer signed as
// the evidence.
//
// A clearing peer would show nobody what it should not have signed. So it is those to
// whom it was given that hand it over: every now and then one of the clearances that a
// node answered lately, or of the refusals that it was given, goes to a member that had
// no part in it, chosen by chance. A trace has its rulings examined in the same way.
package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// maxFindings is how many findings are kept; the oldest go first. All are in the log, and
// what they rest on stands in the suppliers' journals.
const maxFindings = 256

// maxSample is how many entries since the last sample are drawn from.
const maxSample = 256

// askFor is how long one member has for one decision.
const askFor = 2 * time.Second

// Journal is the node's own journal.
type Journal interface {
	Append(ctx context.Context, e *nodepb.Entry) (uint64, error)
	Find(ctx context.Context, q journal.Query) ([]journal.Stored, error)
}

// Redecider decides again; on a member, clearing.Redecider is one.
type Redecider interface {
	Redecide(ctx context.Context, from names.NodeID, req *registrypb.RedecideRequest) (*registrypb.RedecideResponse, error)
}

// Config is all that an Auditor needs.
type Config struct {
	Self names.NodeID
	// Own decides here; nil on a node that is no member.
	Own Redecider
	// Ask has another member decide.
	Ask func(ctx context.Context, to names.NodeID, req *registrypb.RedecideRequest) (*registrypb.RedecideResponse, error)
	// Registry is this node's view.
	Registry interface {
		View(fn func(record.View) error) error
	}
	Journal Journal
	// Every is how often one ruling is handed to a member. 0: never.
	Every time.Duration
	Now   func() time.Time
	Log   *slog.Logger
}

// Finding is a ruling that its clearing peer must not have given, with the evidence.
type Finding struct {
	Found         time.Time      `json:"found"`
	Clearer       string         `json:"clearer"`
	Ticket        names.Ticket   `json:"ticket"`
	RegistryIndex uint64         `json:"registry_index"`
	Says          string         `json:"says"`
	Against       []names.NodeID `json:"-"`
	Request       []byte         `json:"request"` // envelope, as its requester signed it
	Ruling        []byte         `json:"ruling"`  // envelope of the clearance or the decision, as the clearing peer signed it
}

// Counts are how many rulings were examined here or had examined, and how many
// of them their clearing peer must not have given.
type Counts struct{ Examined, Wrong uint64 }

// Auditor examines clearances. It is safe for concurrent use.
type Auditor struct {
	cfg Config

	mu     sync.Mutex
	found  []Finding // the oldest first
	counts Counts
}

// New makes an Auditor.
func New(cfg Config) *Auditor { return &Auditor{cfg: cfg} }

// Findings gives what was found, the oldest first.
func (a *Auditor) Findings() []Finding {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.found)
}

// Counts gives the counts.
func (a *Auditor) Counts() Counts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts
}

// Serve decides again for another node. The reading is journaled before it is answered,
// also when it is refused.
func (a *Auditor) Serve(ctx context.Context, from names.NodeID, req *registrypb.RedecideRequest) (*registrypb.RedecideResponse, error) {
	if a.cfg.Own == nil {
		return nil, clearing.ErrNotMember
	}
	resp, err := a.cfg.Own.Redecide(ctx, from, req)
	detail := "decided again for " + from.String()
	if err != nil {
		detail += ": refused"
	}
	if _, jerr := a.cfg.Journal.Append(ctx, &nodepb.Entry{
		TimeUnixMs: a.cfg.Now().UnixMilli(), Role: nodepb.Role_READER, Event: nodepb.Event_READ,
		Requester: &registrypb.NodeRef{Institution: string(from.Institution), Node: string(from.Node)}, Detail: detail,
	}); jerr != nil {
		return nil, errors.Join(clearing.ErrJournal, jerr)
	}
	if err != nil {
		return nil, err
	}
	was, err := clearing.OpenRuling(req)
	if err != nil {
		return nil, err
	}
	a.note(was, req, was.Differs(resp), []names.NodeID{a.cfg.Self})
	return resp, nil
}

// Verdict is what members say of one ruling.
type Verdict struct {
	Clearer names.NodeID
	Index   uint64
	Permits bool // it was a clearance
	// Same are the members that decided the same again, Against those that did not,
	// and Says is why.
	Same, Against []names.NodeID
	Says          string
	// Unknown says why nobody decided.
	Unknown string
}

// Wrong reports whether most of those who decided again say that the peer must not
// have ruled so.
func (v Verdict) Wrong() bool { return len(v.Against) > len(v.Same) }

// Examine has a member that had no part in it decide again what was ruled on a request,
// by a clearance or a decision: this node, if it may, or one chosen by chance. If that one
// says that it must not have been, all others are asked too, so that no single member can
// slander another.
func (a *Auditor) Examine(ctx context.Context, request, ruling []byte) Verdict {
	req := &registrypb.RedecideRequest{Request: request}
	if decision(ruling) {
		req.Decision = ruling
	} else {
		req.Clearance = ruling
	}
	was, err := clearing.OpenRuling(req)
	if err != nil {
		return Verdict{Unknown: "it is neither a clearance nor a decision"}
	}
	v := Verdict{Clearer: was.Clearer, Index: was.RegistryIndex, Permits: was.Permits(), Unknown: "no other member could be asked"}
	for _, m := range a.members(v.Clearer) {
		if len(v.Same) > 0 && len(v.Against) == 0 {
			break
		}
		resp, err := a.ask(ctx, m, req)
		if err != nil {
			v.Unknown = fmt.Sprintf("%s could not decide it again", m)
			a.cfg.Log.Info("a ruling could not be decided again", "by", m.String(), "clearer", v.Clearer.String(), "err", err)
			continue
		}
		if says := was.Differs(resp); says != "" {
			v.Against, v.Says = append(v.Against, m), says
		} else {
			v.Same = append(v.Same, m)
		}
	}
	if len(v.Same)+len(v.Against) > 0 {
		v.Unknown = ""
		says := ""
		if v.Wrong() {
			says = v.Says
		}
		a.note(was, req, says, v.Against)
	}
	return v
}

func (a *Auditor) ask(ctx context.Context, m names.NodeID, req *registrypb.RedecideRequest) (*registrypb.RedecideResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if m == a.cfg.Self {
		return a.cfg.Own.Redecide(ctx, m, req)
	}
	return a.cfg.Ask(ctx, m, req)
}

// members gives those that may decide again: not the clearer's own institution; this
// node first, the others in random order.
func (a *Auditor) members(clearer names.NodeID) (list []names.NodeID) {
	err := a.cfg.Registry.View(func(v record.View) error {
		all, err := v.Members()
		for _, m := range all {
			if m.Institution != clearer.Institution && (m != a.cfg.Self || a.cfg.Own != nil) {
				list = append(list, m)
			}
		}
		return err
	})
	if err != nil {
		a.cfg.Log.Warn("members cannot be listed", "err", err)
		return nil
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(x, y names.NodeID) int {
		switch {
		case x == y || x != a.cfg.Self && y != a.cfg.Self:
			return 0
		case x == a.cfg.Self:
			return -1
		}
		return 1
	})
	return list
}

// note counts an examination and keeps what it found; says is empty when it was right.
func (a *Auditor) note(was *clearing.Ruling, req *registrypb.RedecideRequest, says string, against []names.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts.Examined++
	if says == "" {
		return
	}
	ruling := slices.Concat(req.Clearance, req.Decision) // one of them is empty
	if slices.ContainsFunc(a.found, func(f Finding) bool { return slices.Equal(f.Ruling, ruling) }) {
		return
	}
	a.counts.Wrong++
	f := Finding{
		Found: a.cfg.Now().UTC(), Clearer: was.Clearer.String(), Ticket: was.Ticket, RegistryIndex: was.RegistryIndex,
		Says: says, Against: against, Request: req.Request, Ruling: ruling,
	}
	a.cfg.Log.Error("a clearing peer decided what it must not", "clearer", f.Clearer, "ticket", string(f.Ticket), "index", f.RegistryIndex, "why", says)
	if a.found = append(a.found, f); len(a.found) > maxFindings {
		a.found = slices.Delete(a.found, 0, 1)
	}
}

// Run samples what this node answered, until ctx is done.
func (a *Auditor) Run(ctx context.Context) error {
	if a.cfg.Every <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(a.cfg.Every)
	defer tick.Stop()
	last := a.cfg.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := a.cfg.Now()
		if err := a.sample(ctx, last, now); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("no ruling could be sampled", "err", err)
		}
		last = now
	}
}

// sample examines one of the clearances that were answered, and of the refusals that were
// received, in a span of time.
func (a *Auditor) sample(ctx context.Context, from, until time.Time) error {
	found, err := a.cfg.Journal.Find(ctx, journal.Query{From: from, Until: until, NewestFirst: true, Limit: maxSample})
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(s journal.Stored) bool {
		return s.Entry.GetLot() != nil || !answered(s.Entry) && !refused(s.Entry) // a lot's are examined when it is traced
	})
	if len(found) == 0 {
		return nil
	}
	e := found[rand.IntN(len(found))].Entry
	if answered(e) {
		a.Examine(ctx, e.Evidence[0], e.Evidence[1])
		return nil
	}
	request, err := a.request(ctx, e)
	if request != nil {
		a.Examine(ctx, request, e.Evidence[0])
	}
	return err
}

// answered tells the entry of a supplier, or of one who was told of a change, that rests
// on request or publication and clearance.
func answered(e *nodepb.Entry) bool {
	switch e.GetEvent() {
	case nodepb.Event_SUPPLIED, nodepb.Event_NOTICE_RECEIVED:
		return len(e.GetEvidence()) >= 2
	}
	return false
}

// refused tells the entry of a consultant or publisher that rests on a decision.
func refused(e *nodepb.Entry) bool {
	switch e.GetEvent() {
	case nodepb.Event_ANSWERED, nodepb.Event_ADDRESSED, nodepb.Event_NOTICE_LAPSED:
		return len(e.GetEvidence()) == 1 && e.GetReason() != registrypb.Reason_PUBLICATION_INVALID && decision(e.GetEvidence()[0])
	}
	return false
}

// decision tells a decision that cleared nothing.
func decision(raw []byte) bool {
	for _, t := range []envelope.Type{envelope.Decision, envelope.NotificationDecision} {
		if _, err := envelope.Open(t, raw); err == nil {
			return true
		}
	}
	return false
}

// request finds the request or publication that a refusal answers, nil if the journal does
// not hold it.
func (a *Auditor) request(ctx context.Context, refusal *nodepb.Entry) ([]byte, error) {
	found, err := a.cfg.Journal.Find(ctx, journal.Query{Ticket: names.Ticket(refusal.GetTicket()), Limit: maxSample})
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		e := s.Entry
		began := e.GetEvent() == nodepb.Event_REQUESTED || e.GetEvent() == nodepb.Event_PUBLISHED
		if began && bytes.Equal(e.GetRequestHash(), refusal.GetRequestHash()) && len(e.GetEvidence()) > 0 {
			return e.GetEvidence()[0], nil
		}
	}
	return nil, nil
}
