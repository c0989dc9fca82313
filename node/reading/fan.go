package reading

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const (
	askTimeout = 3 * time.Second // of one node
	askAtOnce  = 64
	maxAsked   = 4096
)

// Unreached is a node whose journal could not be read, and why.
type Unreached struct {
	Node string `json:"node"` // institution/node, or institution
	Why  string `json:"why"`
}

// fan asks nodes, each once. mu guards what ask's caller collects.
type fan struct {
	s      *Service
	seen   map[names.NodeID]bool
	mu     sync.Mutex
	told   []string
	failed []Unreached
}

func (s *Service) fan() *fan { return &fan{s: s, seen: map[names.NodeID]bool{s.cfg.Self: true}} }

// members gives the registry members.
func (s *Service) members() (ids []names.NodeID, err error) {
	err = s.cfg.Registry.View(func(v record.View) error {
		ids, err = v.Members()
		return err
	})
	return ids, err
}

// nodes gives the nodes in service that refs name, each once, in order: that one,
// or all of the institution's. Whoever the registry does not know is left out: what
// others say names nobody by itself.
func (s *Service) nodes(refs []*registrypb.NodeRef) (ids []names.NodeID, err error) {
	seen := map[names.NodeID]bool{}
	err = s.cfg.Registry.View(func(v record.View) error {
		for _, r := range refs {
			id := record.NodeID(r)
			if id.Institution.Validate() != nil || seen[id] || len(ids) >= maxAsked {
				continue
			}
			seen[id] = true
			listed, err := v.NodesOf(id.Institution)
			if err != nil {
				return err
			}
			for _, n := range listed {
				node := record.NodeID(n.Ref)
				if !n.Removed && (id.Node == "" || id.Node == node.Node) && !slices.Contains(ids, node) {
					ids = append(ids, node)
				}
			}
		}
		return nil
	})
	return ids, err
}

// each asks those of nodes that were not asked before, and returns when all have
// answered or failed. ask is called at the same time for several; what it does under
// lock is done one after another.
func (f *fan) each(ctx context.Context, nodes []names.NodeID, ask func(ctx context.Context, n names.NodeID) (take func(), err error)) {
	var g errgroup.Group
	g.SetLimit(askAtOnce)
	for _, n := range nodes {
		if f.seen[n] {
			continue
		}
		f.seen[n] = true
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			take, err := ask(ctx, n)
			f.mu.Lock()
			defer f.mu.Unlock()
			if err != nil {
				f.failed = append(f.failed, Unreached{Node: n.String(), Why: why(err)})
				return nil
			}
			f.told = append(f.told, n.String())
			take()
			return nil
		})
	}
	_ = g.Wait()
}

// why says why a node told nothing, and no more than the reader may know of it.
func why(err error) string {
	switch {
	case errors.Is(err, ErrNoRight):
		return "it did not accept the right to read"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "it did not answer in time"
	}
	return "it could not be reached, or could not read its journal"
}

// done gives who told and who did not, in order.
func (f *fan) done() (told []string, failed []Unreached) {
	told = append(slices.Clone(f.told), f.s.cfg.Self.String())
	slices.Sort(told)
	slices.SortFunc(f.failed, func(a, b Unreached) int {
		if a.Node < b.Node {
			return -1
		}
		return 1
	})
	return told, f.failed
}
