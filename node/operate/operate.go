// Package operate is what the operators of a mesh see and do through one node: the health
// of all nodes, the consensus group, the state hash, snapshots and an archive for whoever
// looks for a fault. Nothing here changes what the registry says; that takes commands with
// the operators' signatures.
package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Peers asks other nodes.
type Peers interface {
	Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) error
}

// Config is what a Service needs; everything is required.
type Config struct {
	Self     names.NodeID
	Registry *registry.Registry
	Peers    Peers
	// Settings are the node's own, of which the debug archive holds what is no secret.
	Settings *config.Config
	Version  string
	Metrics  func(context.Context) ([]byte, error)
	Ready    func() []api.Checked
}

// Service is one node's. It is safe for concurrent use.
type Service struct {
	cfg       Config
	archiving sync.Mutex // held while an archive is made
}

var _ api.Operations = (*Service)(nil)

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

const (
	askEach   = 2 * time.Second // bounds the question to one node
	askAtOnce = 64
	// lagging is how many indexes behind the furthest a node may be and count as well: it
	// is what a busy mesh decides in a second or so.
	lagging = 64 << 10
)

// Health asks every node of the mesh how it does.
func (s *Service) Health(ctx context.Context) (*api.MeshHealth, error) {
	h := &api.MeshHealth{Problems: []string{}}
	nodes, err := s.nodes(h)
	if err != nil {
		return nil, err
	}
	answers := s.askAll(ctx, nodes)
	for i, a := range answers {
		n := &h.Nodes[i]
		if a == nil {
			n.State = "silent"
			continue
		}
		n.State, n.Votes, n.Term, n.AppliedIndex, n.GrantValid, n.KnowsLevel = a.State, a.Votes, a.Term, a.AppliedIndex, a.GrantValid, max(1, a.KnowsLevel)
		h.AppliedIndex, h.Term, h.FeatureLevel = max(h.AppliedIndex, a.AppliedIndex), max(h.Term, a.Term), max(h.FeatureLevel, a.FeatureLevel)
	}
	s.judge(h)
	return h, nil
}

// nodes lists the nodes in service, members first.
func (s *Service) nodes(h *api.MeshHealth) (ids []names.NodeID, err error) {
	var members, others []names.NodeID
	addresses := make(map[names.NodeID]string)
	err = s.cfg.Registry.View(func(v record.View) error {
		voters, err := v.Members()
		if err != nil {
			return err
		}
		members = voters
		return v.Nodes(func(n *registrypb.Node) error {
			id := record.NodeID(n.Ref)
			addresses[id] = n.Address
			stands, err := v.NodeStands(id)
			if err == nil && stands && !slices.Contains(voters, id) {
				others = append(others, id)
			}
			return err
		})
	})
	ids = append(members, others...)
	for i, id := range ids {
		h.Nodes = append(h.Nodes, api.NodeHealth{Node: id.String(), Address: addresses[id], Member: i < len(members)})
	}
	return ids, err
}

func (s *Service) askAll(ctx context.Context, nodes []names.NodeID) []*registrypb.StatusResponse {
	answers := make([]*registrypb.StatusResponse, len(nodes))
	slots := make(chan struct{}, askAtOnce)
	var wg sync.WaitGroup
	for i, n := range nodes {
		if n == s.cfg.Self {
			answers[i], _ = s.cfg.Registry.Status()
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, askEach)
			defer cancel()
			resp := new(registrypb.StatusResponse)
			if s.cfg.Peers.Call(ctx, n, registry.MethodStatus, &registrypb.StatusRequest{}, resp) == nil {
				answers[i] = resp
			}
		})
	}
	wg.Wait()
	return answers
}

// judge says what is wrong.
func (s *Service) judge(h *api.MeshHealth) {
	tell := func(format string, args ...any) { h.Problems = append(h.Problems, fmt.Sprintf(format, args...)) }
	voters, well, silent := 0, 0, 0
	for i := range h.Nodes {
		n := &h.Nodes[i]
		n.Behind = h.AppliedIndex - min(h.AppliedIndex, n.AppliedIndex)
		if n.State == "leader" && n.Term == h.Term {
			h.Leader = n.Node
		}
		switch {
		case n.State == "silent":
			silent++
			if n.Member {
				tell("member %s does not answer: see its log, and its address %s", n.Node, n.Address)
			}
		case n.KnowsLevel < h.FeatureLevel:
			tell("node %s runs a program that knows feature level %d, the mesh is at %d: install a newer release", n.Node, n.KnowsLevel, h.FeatureLevel)
		case !n.GrantValid:
			tell("node %s cannot be sure of what the registry says, and does no work: see its log and its clock", n.Node)
		case n.Behind > lagging:
			tell("node %s is %d indexes behind", n.Node, n.Behind)
		}
		if n.Member {
			voters++
			if n.Votes && n.GrantValid && n.Behind <= lagging {
				well++
			}
			if n.State != "silent" && !n.Votes {
				tell("member %s does not vote yet: it is catching up, or its disk is new (crossroads operator autopilot state, at the leader)", n.Node)
			}
		}
	}
	if h.Leader == "" {
		tell("no member leads: the registry takes no commands, and clearing ends with the leases")
	}
	if n := silent - countSilentMembers(h); n > 0 {
		tell("%d nodes that are no members do not answer", n)
	}
	h.FailureTolerance = max(0, well-(voters/2+1))
	if voters > 2 && h.FailureTolerance == 0 {
		tell("the registry bears the loss of no further member")
	}
	if err := s.cfg.Registry.Sound(); err != nil {
		tell("this node's replica differs from what the members signed: %v", err)
	}
	if a := s.cfg.Registry.Agreement(); len(a.Differ) > 0 {
		tell("members signed another state than this node's at index %d: %s", a.Mark.Index, joined(a.Differ))
	}
	h.Healthy = len(h.Problems) == 0
}

func countSilentMembers(h *api.MeshHealth) (count int) {
	for _, n := range h.Nodes {
		if n.Member && n.State == "silent" {
			count++
		}
	}
	return count
}

func joined(ids []names.NodeID) string {
	return fmt.Sprint(texts(ids))
}

func texts(ids []names.NodeID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.String()
	}
	return out
}

// Autopilot tells how the consensus group does, and what operators might sign.
func (s *Service) Autopilot() (*api.Autopilot, error) {
	a, err := s.cfg.Registry.Autopilot()
	if err != nil {
		return nil, err
	}
	out := &api.Autopilot{
		Healthy: a.Healthy, Leader: a.Leader.String(), Voters: a.Voters, FailureTolerance: a.FailureTolerance, Proposals: []string{}, Peers: []api.Peer{},
		Settings: api.AutopilotSettings{StabilizationMs: a.Settings.Stabilization.Milliseconds(), MaxTrailing: a.Settings.MaxTrailing, DeadAfterMs: a.Settings.DeadAfter.Milliseconds()},
	}
	for _, p := range a.Peers {
		out.Peers = append(out.Peers, api.Peer{
			Node: p.ID.String(), Recorded: p.Recorded, Suffrage: p.Suffrage, Leader: p.Leader, Healthy: p.Healthy,
			StableMs: p.Stable.Milliseconds(), SilentMs: p.Silent.Milliseconds(), Term: p.Term, LastIndex: p.LastIndex, Lag: p.Lag,
		})
		if p.Recorded && a.Settings.DeadAfter > 0 && p.Silent >= a.Settings.DeadAfter {
			out.Proposals = append(out.Proposals, fmt.Sprintf("%s has been silent for %s: take it out of the members record with crossroads operator raft remove-peer %s, or bring it back",
				p.ID, p.Silent.Round(time.Second), p.ID))
		}
	}
	return out, nil
}

// TransferLeader hands the lead over.
func (s *Service) TransferLeader(ctx context.Context, to names.NodeID) error {
	return s.cfg.Registry.TransferLeadership(ctx, to)
}

// Compact has this member write a snapshot and let go of log.
func (s *Service) Compact(ctx context.Context) (uint64, error) { return s.cfg.Registry.Compact(ctx) }

// Write makes an archive; one at a time.
func (s *Service) Write(ctx context.Context, archive string, w io.Writer) error {
	if !s.archiving.TryLock() {
		return api.ErrArchiving
	}
	defer s.archiving.Unlock()
	switch archive {
	case "snapshot":
		_, err := s.cfg.Registry.SaveSnapshot(ctx, w)
		return err
	case "debug":
		return s.debug(ctx, w)
	}
	return errors.New("no such archive")
}
