package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// asking is one publication on its way through the clearing peers.
type asking struct {
	raw  []byte // envelope
	only []string

	candidates []names.NodeID // still to be asked, in the order that the publication draws
	failed     int            // candidates that did not answer, in a row

	done       bool
	incomplete bool // there is nobody left who could decide the rest
	permits    []*permit
	outcome    registrypb.Outcome
	reason     registrypb.Reason
	decision   []byte // signed, when nobody is told
	clearer    names.NodeID
	index      uint64
	family     []*registrypb.Subject
}

// permit is one clearance that was verified.
type permit struct {
	*clearing.Told
	envelope []byte
	kept     *nodepb.KeptPublication // as it was read to be cleared, if it is still at hand
}

var errClearing = errors.New("no clearing peer decided")

// clear puts publications to clearing peers, each to the one that its own hash ranks
// first, then, for what that one steps aside from, to the next. It returns when all are
// decided, or with errClearing when nobody answered about some: those are not done.
func (p *Publisher) clear(ctx context.Context, all []*asking) error {
	if err := p.rank(all); err != nil {
		return err
	}
	for {
		groups := map[names.NodeID][]*asking{}
		waiting, hopeless := 0, 0
		for _, a := range all {
			if a.done {
				continue
			}
			if len(a.candidates) == 0 {
				a.done, a.incomplete = true, true
				if a.outcome != registrypb.Outcome_PERMIT {
					a.outcome, a.reason = registrypb.Outcome_DENY, registrypb.Reason_NO_ELIGIBLE_CLEARER
				}
				continue
			}
			if a.failed >= len(a.candidates) {
				hopeless++
				continue
			}
			waiting++
			groups[a.candidates[0]] = append(groups[a.candidates[0]], a)
		}
		switch {
		case waiting == 0 && hopeless > 0:
			return errClearing
		case waiting == 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		var asked sync.WaitGroup
		for to, group := range groups {
			asked.Go(func() { p.ask(ctx, to, group) })
		}
		asked.Wait()
	}
}

// rank draws for each publication in which order members are asked. Those of the own
// institution or sector are parties, and so, where one recipient alone is asked about,
// are those of its: they would only step aside.
func (p *Publisher) rank(all []*asking) error {
	return p.cfg.Registry.View(func(v record.View) error {
		members, err := v.Members()
		if err != nil {
			return err
		}
		own, err := v.Institution(p.cfg.Self.Institution)
		if err != nil {
			return err
		}
		var others []names.NodeID
		sectors := map[names.InstitutionID]string{}
		for _, m := range members {
			inst, err := v.Institution(m.Institution)
			if err != nil {
				return err
			}
			stands, err := v.NodeStands(m)
			if err != nil {
				return err
			}
			sectors[m.Institution] = inst.GetSector()
			if stands && !related(m.Institution, inst.GetSector(), p.cfg.Self.Institution, own.GetSector()) {
				others = append(others, m)
			}
		}
		apart := map[names.InstitutionID][]names.NodeID{} // from one recipient
		for _, a := range all {
			candidates := others
			if len(a.only) == 1 {
				to, _, _ := strings.Cut(a.only[0], "/")
				id, known := names.InstitutionID(to), false
				if candidates, known = apart[id]; !known {
					inst, err := v.Institution(id)
					if err != nil {
						return err
					}
					for _, m := range others {
						if !related(m.Institution, sectors[m.Institution], id, inst.GetSector()) {
							candidates = append(candidates, m)
						}
					}
					apart[id] = candidates
				}
			}
			a.candidates = p.cfg.Peers.Order(clearing.Rank(candidates, sum(a.raw)))
		}
		return nil
	})
}

// related reports whether two institutions are one, or of one sector.
func related(a names.InstitutionID, sectorOfA string, b names.InstitutionID, sectorOfB string) bool {
	return a == b || sectorOfA != "" && sectorOfA == sectorOfB
}

// ask puts a group to one clearing peer and takes in what it decides.
func (p *Publisher) ask(ctx context.Context, to names.NodeID, group []*asking) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ClearTimeout)
	defer cancel()
	req := new(registrypb.ClearNotificationsRequest)
	for _, a := range group {
		c := &registrypb.NotificationCase{Publication: a.raw, Only: a.only}
		for _, k := range a.permits {
			c.Cleared = append(c.Cleared, k.Address())
		}
		req.Cases = append(req.Cases, c)
	}
	resp, err := p.cfg.Peers.ClearNotifications(ctx, to, req)
	if err == nil && len(resp.GetOutcomes()) != len(group) {
		err = fmt.Errorf("%d outcomes for %d publications", len(resp.GetOutcomes()), len(group))
	}
	if err != nil {
		p.cfg.Log.Info("clearing peer did not decide", "peer", to.String(), "publications", len(group), "err", err)
		for _, a := range group {
			a.fail()
		}
		return
	}
	err = p.cfg.Registry.View(func(v record.View) error {
		desk := p.checker.Desk(v, p.cfg.Now(), p.cfg.Bounds, p.cfg.Mesh).Own(p.cfg.Self)
		for i, a := range group {
			if err := p.take(v, desk, to, a, resp.Outcomes[i]); err != nil {
				p.cfg.Log.Warn("decision does not verify", "peer", to.String(), "ticket", names.TicketOf(a.raw), "err", err)
				a.fail()
			}
		}
		return nil
	})
	if err != nil {
		for _, a := range group {
			a.fail()
		}
	}
}

// fail turns to the next candidate; this one may answer later.
func (a *asking) fail() {
	a.failed++
	if n := len(a.candidates); n > 0 {
		a.candidates = append(a.candidates[1:n:n], a.candidates[0])
	}
}

// take takes one peer's decision in. What is wrong discredits all of it.
func (p *Publisher) take(v record.View, desk *clearing.Desk, from names.NodeID, a *asking, o *registrypb.NotificationOutcome) error {
	if o.Later {
		return nil // asked again in the next round
	}
	var permits []*permit
	for _, raw := range o.Clearances {
		t, no := desk.Check(p.cfg.Self, "", a.raw, raw)
		if no != nil {
			return no
		}
		if t.Clearer != from || len(a.only) > 0 && !contains(a.only, t.Address()) || cleared(a.permits, t) || cleared(permits, t) {
			return errors.New("a clearance by another, for another, or twice")
		}
		permits = append(permits, &permit{Told: t, envelope: raw})
	}
	if len(permits) == 0 {
		d, err := p.openDecision(v, desk, from, a.raw, o.Decision)
		if err != nil {
			return err
		}
		if d.Outcome != o.Outcome || d.Reason != o.Reason || d.Recused != o.Recused {
			return errors.New("the decision signed is not the one given")
		}
		a.decision, a.clearer, a.index = o.Decision, from, d.RegistryIndex
	}
	a.failed = 0
	if len(o.Family) > 0 {
		a.family = o.Family
	}
	a.permits = append(a.permits, permits...)
	switch {
	case o.Reason == registrypb.Reason_STALE_REQUEST, o.Outcome == registrypb.Outcome_OUTCOME_UNSPECIFIED, o.Recused:
		// Its clock differs, or it is a party: another may decide, or decide the rest.
		a.candidates = a.candidates[1:]
		if o.Outcome == registrypb.Outcome_PERMIT {
			a.outcome = o.Outcome
		}
	case o.Outcome != registrypb.Outcome_PERMIT && len(a.permits) > 0: // rights fell away meanwhile
		a.done, a.incomplete = true, true
	default:
		a.done, a.outcome, a.reason = true, o.Outcome, o.Reason
	}
	return nil
}

func cleared(permits []*permit, t *clearing.Told) bool {
	for _, p := range permits {
		if p.Address() == t.Address() || bytes.Equal(p.Clearance.Id, t.Clearance.Id) {
			return true
		}
	}
	return false
}

// maxDecision is the largest decision that is read, in bytes.
const maxDecision = 16 << 10

// openDecision insists that a member signed a decision on this very publication.
func (p *Publisher) openDecision(v record.View, desk *clearing.Desk, from names.NodeID, publication, raw []byte) (*registrypb.Decision, error) {
	if len(raw) > maxDecision {
		return nil, errors.New("decision too large")
	}
	opened, err := envelope.Open(envelope.NotificationDecision, raw)
	if err != nil {
		return nil, err
	}
	d := new(registrypb.Decision)
	if err := proto.Unmarshal(opened.Payload, d); err != nil {
		return nil, errors.New("decision is not protobuf")
	}
	if member, err := v.IsMember(from); err != nil || !member {
		return nil, errors.Join(err, errors.New("decision by no member"))
	}
	slack := (p.cfg.Bounds.Skew + p.cfg.ClearTimeout).Milliseconds()
	age := p.cfg.Now().UnixMilli() - d.TimeUnixMs
	switch {
	case d.Mesh != string(p.cfg.Mesh), d.Ticket != string(names.TicketOf(publication)), !bytes.Equal(d.RequestHash, sum(publication)),
		record.NodeID(d.Clearer) != from, record.NodeID(d.Requester) != p.cfg.Self:
		return nil, errors.New("decision on something else")
	case d.Reason != registrypb.Reason_STALE_REQUEST && (age > slack || age < -slack):
		return nil, errors.New("decision of another time")
	case d.Outcome == registrypb.Outcome_DENY && d.Reason == registrypb.Reason_REASON_UNSPECIFIED:
		return nil, errors.New("refusal without a reason")
	}
	ok, err := desk.Signed(opened, from.Institution)
	if err == nil && !ok {
		err = errors.New("decision not signed by who gave it")
	}
	return d, err
}

// fresh reports whether a clearance can still be used, with time to get there.
func (k *permit) fresh(now time.Time) bool {
	return k != nil && now.Add(presentMargin).Before(time.UnixMilli(k.Clearance.PresentByUnixMs))
}

// presentMargin is how much of a clearance's life must be left when it is used.
const presentMargin = 500 * time.Millisecond
