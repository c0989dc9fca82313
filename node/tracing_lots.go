package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const (
	lotPageBytes = 3 << 20
	// lotTrace bounds how long the segments of a lot are fetched.
	lotTrace = 50 * time.Second
	// lotSample is how many rulings of a lot are decided again, and lotSubjects on how many
	// of the subjects of each.
	lotSample   = 8
	lotSubjects = 4
)

func ofLot(found []journal.Stored) bool {
	for _, e := range found {
		if e.Entry.GetLot() != nil {
			return true
		}
	}
	return false
}

// lotPage gives what an institution may see of a lot's entries from a sequence on, as much
// as fits one message.
func (n *Node) lotPage(ctx context.Context, ticket names.Ticket, who names.InstitutionID, from uint64) (page []journal.Stored, more bool, err error) {
	found, err := n.journal.Find(ctx, journal.Query{Ticket: ticket, Limit: trace.MaxLotEntries})
	if err != nil {
		return nil, false, err
	}
	size := 0
	for _, e := range found { // in the order of time, which is nearly that of sequence
		if e.Sequence < from || !concerns(e.Entry, who) && e.Entry.GetEvent() != nodepb.Event_LOT_SUBMITTED {
			continue
		}
		page = append(page, e)
	}
	sortBySequence(page)
	for i, e := range page {
		if size += len(e.Raw) + 4096; size > lotPageBytes { // with a proof
			return page[:max(i, 1)], true, nil
		}
	}
	return page, false, nil
}

func sortBySequence(list []journal.Stored) {
	for i := 1; i < len(list); i++ { // nearly sorted
		for j := i; j > 0 && list[j].Sequence < list[j-1].Sequence; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

// lot joins the segments of a lot's ticket, page by page.
func (t tracer) lot(ctx context.Context, ticket names.Ticket) (*trace.Story, error) {
	found, err := t.n.journal.Find(ctx, journal.Query{Ticket: ticket, Limit: trace.MaxLotEntries})
	if err != nil {
		return nil, err
	}
	own := trace.Own(found)
	own.Proofs = t.n.prove(found)
	segments := map[names.NodeID]trace.Segment{t.n.self: own}
	parties, err := t.parties(found)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lotTrace)
	defer cancel()
	var mu sync.Mutex
	var g errgroup.Group
	for _, p := range parties {
		g.Go(func() error {
			seg := t.pages(ctx, p, ticket)
			mu.Lock()
			defer mu.Unlock()
			segments[p] = seg
			return nil
		})
	}
	_ = g.Wait()
	story := trace.Build(ticket, segments, t.means(t.known(ctx, trace.Unproved(segments))))
	story.Add(t.n.examineLot(ctx, trace.LotRulings(segments))...)
	return story, nil
}

func (t tracer) pages(ctx context.Context, p names.NodeID, ticket names.Ticket) (seg trace.Segment) {
	req := &nodepb.TraceRequest{Ticket: string(ticket)}
	for {
		resp := new(nodepb.TraceResponse)
		if seg.Err = t.n.peers.Call(ctx, p, methodTrace, req, resp); seg.Err != nil {
			return seg
		}
		seg.Entries, seg.Proofs = append(seg.Entries, resp.Entries...), append(seg.Proofs, resp.Proofs...)
		if !resp.More || len(resp.Entries) == 0 || len(seg.Entries) > trace.MaxLotEntries {
			return seg
		}
		req.From = resp.Entries[len(resp.Entries)-1].Sequence + 1
	}
}

// examineLot has members decide a sample of a lot's subjects again.
func (n *Node) examineLot(ctx context.Context, rulings []*registrypb.RedecideChunkRequest) (found []trace.Finding) {
	rand.Shuffle(len(rulings), func(i, j int) { rulings[i], rulings[j] = rulings[j], rulings[i] })
	same, asked := map[string]int{}, 0
	for _, rr := range rulings[:min(len(rulings), lotSample)] {
		w, err := chunk.OpenRuling(n.cfg.Mesh, rr)
		if err != nil || w.Len() == 0 {
			continue // what it shows was judged with the rest
		}
		for range min(lotSubjects, w.Len()) {
			rr.Places = append(rr.Places, uint32(rand.IntN(w.Len())))
		}
		by, says, err := n.redecideChunk(ctx, w, rr)
		switch {
		case err != nil:
			found = append(found, trace.Finding{Kind: trace.Redecided, By: []string{w.Clearer.String()},
				Says: fmt.Sprintf("What %s decided on some subjects was not decided again: %v.", w.Clearer, err)})
		case says != "":
			found = append(found, trace.Finding{Kind: trace.Disagreement, By: []string{w.Clearer.String()},
				Says: fmt.Sprintf("%s decided on a subject otherwise than the registry says: %s, as of index %d, by %s.", w.Clearer, says, w.Index, by)})
		default:
			same[w.Clearer.String()] += len(rr.Places)
			asked++
		}
	}
	for clearer, k := range same {
		found = append(found, trace.Finding{Kind: trace.Redecided, By: []string{clearer},
			Says: fmt.Sprintf("A sample of what %s decided, on %d subjects, was decided again by other members: the same.", clearer, k)})
	}
	return found
}

// redecideChunk asks a member that is not the clearer.
func (n *Node) redecideChunk(ctx context.Context, w *chunk.Ruling, rr *registrypb.RedecideChunkRequest) (by names.NodeID, says string, err error) {
	var members []names.NodeID
	err = n.registry.View(func(v record.View) error {
		all, err := v.Members()
		for _, m := range all {
			if m.Institution != w.Clearer.Institution {
				members = append(members, m)
			}
		}
		return err
	})
	if err != nil {
		return by, "", err
	}
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	err = fmt.Errorf("no other member could be asked")
	for _, m := range members {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		resp := new(registrypb.RedecideChunkResponse)
		if m == n.self && n.lots.redecider != nil {
			resp, err = n.lots.redecider.Redecide(limited, m, rr)
		} else {
			err = n.peers.Call(limited, m, methodRedecideChunk, rr, resp)
		}
		cancel()
		if err == nil {
			return m, w.Differs(rr.Places, resp), nil
		}
		n.log.Info("subjects of a lot could not be decided again", "by", m.String(), "err", err)
		err = fmt.Errorf("%s could not", m)
	}
	return by, "", err
}
