package node

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/audit"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// openAudit makes what holds clearing peers to their decisions.
func (n *Node) openAudit() error {
	cfg := audit.Config{
		Self: n.self, Registry: n.registry, Journal: n.journal, Every: n.cfg.Limits.ExamineEvery, Now: n.deps.Now, Log: n.log,
		Ask: func(ctx context.Context, to names.NodeID, req *registrypb.RedecideRequest) (*registrypb.RedecideResponse, error) {
			resp := new(registrypb.RedecideResponse)
			return resp, n.peers.Call(ctx, to, methodRedecide, req, resp)
		},
	}
	if n.cfg.Member {
		cfg.Own = clearing.NewRedecider(clearing.RedeciderConfig{
			Self: n.self, Mesh: n.cfg.Mesh, Rules: n.registry.Rules(), Bounds: n.keys.genesis.Bounds, Registry: n.registry, Log: n.log,
		})
	}
	n.audit = audit.New(cfg)
	return nil
}

// maxExamined is how many rulings of one ticket are decided again for a trace.
const maxExamined = 16

// examine has what was permitted and refused decided again, and says what came of it.
func (n *Node) examine(ctx context.Context, rulings []trace.Ruling) []trace.Finding {
	var mu sync.Mutex
	var found []trace.Finding
	var g errgroup.Group
	g.SetLimit(4)
	for _, p := range rulings[:min(len(rulings), maxExamined)] {
		g.Go(func() error {
			f := redecided(n.audit.Examine(ctx, p.Request, p.Ruling))
			mu.Lock()
			defer mu.Unlock()
			found = append(found, f)
			return nil
		})
	}
	_ = g.Wait()
	return found
}

// wrongDecisions gives what was found, without what names a subject.
func (n *Node) wrongDecisions() (list []api.WrongDecision) {
	for _, f := range n.audit.Findings() {
		list = append(list, api.WrongDecision{Found: f.Found, Clearer: f.Clearer, Ticket: f.Ticket, RegistryIndex: f.RegistryIndex, Says: f.Says})
	}
	return list
}

// redecided puts a verdict into a finding.
func redecided(v audit.Verdict) trace.Finding {
	clearer := v.Clearer.String()
	did, wrongly := "refused", "refused what it must permit, or for another reason"
	if v.Permits {
		did, wrongly = "cleared", "permitted what it must not"
	}
	switch {
	case v.Unknown != "":
		return trace.Finding{Kind: trace.Redecided, By: []string{clearer},
			Says: fmt.Sprintf("What %s %s was not decided again: %s.", clearer, did, v.Unknown)}
	case v.Wrong():
		return trace.Finding{Kind: trace.Disagreement, By: []string{clearer},
			Says: fmt.Sprintf("%s %s: %s, as of index %d, by %s.", clearer, wrongly, v.Says, v.Index, and(v.Against))}
	case len(v.Against) > 0:
		by := []string{clearer}
		for _, m := range v.Against {
			by = append(by, m.String())
		}
		return trace.Finding{Kind: trace.Unverified, By: by,
			Says: fmt.Sprintf("Members decide otherwise about what %s %s: %s say that %s; %s decided the same.", clearer, did, and(v.Against), v.Says, and(v.Same))}
	}
	return trace.Finding{Kind: trace.Redecided, By: []string{clearer},
		Says: fmt.Sprintf("What %s %s was decided again, as of index %d, by %s: the same.", clearer, did, v.Index, and(v.Same))}
}

func and(nodes []names.NodeID) (s string) {
	for i, n := range nodes {
		if i > 0 {
			s += " and "
		}
		s += n.String()
	}
	return s
}
