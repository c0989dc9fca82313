package exchange

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Limits on an answer.
const (
	maxAnswer    = 24 << 10 // bytes of the envelope; the content has its own limit
	blindingSize = 32
)

// presentRounds is how often each node of a supplier is tried; while they only wait
// for their registry view to be confirmed, they are tried until present-by.
const presentRounds = 2

// present presents one permit to its supplier, until a node of it replies. Presenting
// again to the same node is safe: it gives the same answer.
func (x *consultation) present(ctx context.Context, p *permit) *reply {
	r := &reply{permit: p, status: nodepb.Status_NO_RESULT, reason: registrypb.Reason_SUPPLIER_UNAVAILABLE}
	nodes, err := x.nodesOf(names.InstitutionID(p.clearance.GetSupplier()))
	if err != nil || len(nodes) == 0 {
		r.detail = "no node of the supplier is known"
		return r
	}
	end := time.Now().Add(time.UnixMilli(p.clearance.GetReleaseByUnixMs()).Sub(x.cfg.Now()) + x.cfg.Bounds.Skew)
	presentBy := time.UnixMilli(p.clearance.GetPresentByUnixMs())
	silent := false // a node was asked and nobody knows what it did
	for round := 1; ; round++ {
		settled, stale := x.presentRound(ctx, end, nodes, r, &silent)
		if settled || ctx.Err() != nil || !time.Now().Before(end) {
			return r
		}
		wait := 25 * time.Millisecond
		if stale { // its grant may come with the next renewal
			wait = 10 * wait
		}
		again := round < presentRounds || stale && x.cfg.Now().Add(wait).Before(presentBy)
		if !again || pause(ctx, min(wait, time.Until(end))) != nil || !time.Now().Before(end) {
			return r
		}
	}
}

// attempt is what came of presenting to one node.
type attempt struct {
	to   names.NodeID
	resp *nodepb.PresentResponse
	err  error
}

// presentRound presents to one node, and to the next beside it as soon as those asked
// have failed or been silent for HedgeAfter, until end. It reports whether r is settled, and
// whether the last that refused only waits for its view to be confirmed.
func (x *consultation) presentRound(ctx context.Context, end time.Time, nodes []names.NodeID, r *reply, silent *bool) (settled, stale bool) {
	if len(nodes) == 1 { // nothing can come beside it
		resp, err := x.presentTo(ctx, end, nodes[0], r.permit)
		return x.took(attempt{nodes[0], resp, err}, r, silent, false)
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel() // the first reply is the one that counts
	done := make(chan attempt, len(nodes))
	hedge := time.NewTimer(x.cfg.HedgeAfter)
	defer hedge.Stop()
	asked, waiting := 0, 0
	next := func() {
		if asked == len(nodes) {
			return
		}
		to := nodes[asked]
		asked++
		waiting++
		hedge.Reset(x.cfg.HedgeAfter)
		all.Go(func() {
			resp, err := x.presentTo(ctx, end, to, r.permit)
			done <- attempt{to, resp, err}
		})
	}
	next()
	for waiting > 0 {
		select {
		case <-hedge.C:
			next()
			continue
		case a := <-done:
			waiting--
			settled, waits := x.took(a, r, silent, waiting > 0)
			if settled {
				return true, false
			}
			stale = stale || waits
			if waiting == 0 && ctx.Err() == nil && time.Now().Before(end) {
				next()
			}
		}
	}
	return false, stale
}

// took takes what came of one attempt into r; others says that one is still under way
// elsewhere. It reports whether r is settled, and whether this supplier only waits for its
// view to be confirmed.
func (x *consultation) took(a attempt, r *reply, silent *bool, others bool) (settled, stale bool) {
	reason, refused := refuses(a.err)
	switch {
	case a.err == nil:
		x.judge(r, a.to, a.resp)
		return true, false
	case refused && (*silent || others) && reason == registrypb.Reason_CLEARANCE_EXPIRED:
		// What expired is the wait for one that stayed silent.
	case refused:
		r.by, r.reason = a.to, reason
		stale = reason == registrypb.Reason_REGISTRY_STALE
		return !stale, stale
	default:
		*silent = true
		x.cfg.Log.Info("supplier did not answer", "peer", a.to.String(), "ticket", x.ticket, "err", a.err)
	}
	return false, false
}

func (x *consultation) presentTo(ctx context.Context, end time.Time, to names.NodeID, p *permit) (*nodepb.PresentResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, min(x.cfg.PresentTimeout, time.Until(end)))
	defer cancel()
	resp, err := x.cfg.Peers.Present(ctx, to, &nodepb.Presentation{Request: x.kept.Request, Clearance: p.envelope, SecondClearance: p.second.bytes()})
	if no := resp.GetRefusal(); err == nil && no != 0 { // as a managing body says it
		return nil, &Refusal{no}
	}
	return resp, err
}

// nodesOf gives an institution's nodes, those that seem alive first.
func (x *consultation) nodesOf(i names.InstitutionID) (nodes []names.NodeID, err error) {
	err = x.cfg.Registry.View(func(v record.View) error {
		list, err := v.Remembering().NodesOf(i)
		for _, n := range list {
			if !n.GetRemoved() {
				nodes = append(nodes, record.NodeID(n.GetRef()))
			}
		}
		return err
	})
	return x.cfg.Peers.Order(nodes), err
}

// judge takes an answer into r if it stands.
func (x *consultation) judge(r *reply, from names.NodeID, resp *nodepb.PresentResponse) {
	r.by = from
	a, err := x.verifyAnswer(r.permit, from, resp)
	if err != nil {
		x.cfg.Log.Warn("answer does not verify", "peer", from.String(), "ticket", x.ticket, "err", err)
		r.reason, r.detail = registrypb.Reason_SUPPLIER_ERROR, "answer does not verify: "+err.Error()
		return
	}
	r.status, r.reason = a.GetStatus(), registrypb.Reason_REASON_UNSPECIFIED
	r.content, r.commitment, r.envelope = resp.GetContent(), a.GetCommitment(), resp.GetAnswer()
}

// verifyAnswer insists that an answer was signed by the supplier for this very
// clearance, and holds permitted fields only.
func (x *consultation) verifyAnswer(p *permit, from names.NodeID, resp *nodepb.PresentResponse) (*nodepb.Answer, error) {
	a, opened, err := decodeAnswer(resp.GetAnswer())
	if err != nil {
		return nil, err
	}
	if err := x.cfg.Registry.View(func(v record.View) error { return x.signedBy(v.Remembering(), opened, from.Institution) }); err != nil {
		return nil, err
	}
	for _, f := range [...]check{
		{"mesh", a.GetMesh() == string(x.cfg.Mesh)},
		{"ticket", a.GetTicket() == string(x.ticket)},
		{"supplier", record.NodeID(a.GetSupplier()) == from},
		{"request", bytes.Equal(a.GetRequestHash(), x.hash)},
		{"clearance", bytes.Equal(a.GetClearanceHash(), p.hash) && bytes.Equal(a.GetSecondClearanceHash(), p.second.sum())},
		{"content", len(resp.GetBlinding()) == blindingSize && bytes.Equal(a.GetCommitment(), commitment(resp.GetBlinding(), resp.GetContent()))},
	} {
		if !f.same {
			return nil, fmt.Errorf("it is for another %s", f.what)
		}
	}
	n, err := checkContent(resp.GetContent(), named[names.FieldName](p.clearance.GetFields()))
	if err != nil {
		return nil, err
	}
	if want := statusOf(n); a.GetStatus() != want {
		return nil, fmt.Errorf("status %s with %d records", a.GetStatus(), n)
	}
	return a, nil
}

// decodeAnswer reads an answer's form. It verifies no signature.
func decodeAnswer(raw []byte) (*nodepb.Answer, *envelope.Opened, error) {
	if len(raw) > maxAnswer {
		return nil, nil, fmt.Errorf("%d bytes, at most %d", len(raw), maxAnswer)
	}
	opened, err := envelope.Open(envelope.Answer, raw)
	if err != nil {
		return nil, nil, err
	}
	a := new(nodepb.Answer)
	if err := proto.Unmarshal(opened.Payload, a); err != nil {
		return nil, nil, errors.New("not protobuf")
	}
	if len(a.GetCommitment()) != sha256.Size {
		return nil, nil, fmt.Errorf("commitment of %d bytes, want %d", len(a.GetCommitment()), sha256.Size)
	}
	return a, opened, nil
}

func statusOf(records int) nodepb.Status {
	if records == 0 {
		return nodepb.Status_NO_DATA_FOUND
	}
	return nodepb.Status_DATA_FOUND
}
