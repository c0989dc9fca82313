package api

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Operations is what operators see, and may do, through this node; operate.Service is
// one. Nothing of it changes what the registry says: that takes signed commands.
type Operations interface {
	Health(ctx context.Context) (*MeshHealth, error)
	// Autopilot is known to the leader only: the error is else registry.ErrNotLeader.
	Autopilot() (*Autopilot, error)
	// TransferLeader hands the lead over, to anybody when to is zero.
	TransferLeader(ctx context.Context, to names.NodeID) error
	// Compact has this member write a snapshot and let go of the log before it, and gives
	// the index the snapshot stands at. The error is registry.ErrNotMember elsewhere.
	Compact(ctx context.Context) (uint64, error)
	// Write makes an archive, "snapshot" or "debug", as a stream. The error is ErrArchiving
	// while another is being made.
	Write(ctx context.Context, archive string, w io.Writer) error
}

// ErrArchiving means that this node makes an archive already.
var ErrArchiving = errors.New("an archive is being made")

// MeshHealth is the whole mesh at a glance, as one node reaches it.
type MeshHealth struct {
	Healthy bool `json:"healthy"`
	// Problems say what is wrong, and what to do; none: nothing is.
	Problems         []string     `json:"problems"`
	Leader           string       `json:"leader,omitempty"`
	Term             uint64       `json:"term"`
	FeatureLevel     uint32       `json:"feature_level"`
	AppliedIndex     uint64       `json:"applied_index"` // the furthest there is
	FailureTolerance int          `json:"failure_tolerance"`
	Nodes            []NodeHealth `json:"nodes"`
}

// NodeHealth is one node of the mesh.
type NodeHealth struct {
	Node         string `json:"node"`
	Address      string `json:"address"`
	Member       bool   `json:"member,omitempty"` // the members record names it
	Votes        bool   `json:"votes,omitempty"`
	State        string `json:"state"` // of a node that does not answer: silent
	Term         uint64 `json:"term,omitempty"`
	AppliedIndex uint64 `json:"applied_index"`
	Behind       uint64 `json:"behind"`
	GrantValid   bool   `json:"grant_valid"`
	KnowsLevel   uint32 `json:"knows_level"`
}

// Autopilot is how the consensus group does, as its leader sees it.
type Autopilot struct {
	Healthy          bool              `json:"healthy"`
	Leader           string            `json:"leader"`
	Voters           int               `json:"voters"`
	FailureTolerance int               `json:"failure_tolerance"`
	Settings         AutopilotSettings `json:"settings"`
	Peers            []Peer            `json:"peers"`
	// Proposals are what operators might sign, since nobody else may do it.
	Proposals []string `json:"proposals"`
}

// AutopilotSettings are those that operators signed, or the defaults.
type AutopilotSettings struct {
	StabilizationMs int64  `json:"stabilization_ms"`
	MaxTrailing     uint64 `json:"max_trailing"`
	DeadAfterMs     int64  `json:"dead_after_ms"`
}

// Peer is one member, or server of raft's configuration.
type Peer struct {
	Node      string `json:"node"`
	Recorded  bool   `json:"recorded"`
	Suffrage  string `json:"suffrage"` // voter, nonvoter, none
	Leader    bool   `json:"leader,omitempty"`
	Healthy   bool   `json:"healthy"`
	StableMs  int64  `json:"stable_ms"`
	SilentMs  int64  `json:"silent_ms"`
	Term      uint64 `json:"term"`
	LastIndex uint64 `json:"last_index"` // of its consensus log
	Lag       uint64 `json:"lag"`        // entries
}

// TransferLeader says to whom; empty: to whoever is furthest.
type TransferLeader struct {
	To string `json:"to,omitempty"`
}

// Compacted tells what a member's own log begins after.
type Compacted struct {
	SnapshotIndex uint64 `json:"snapshot_index"`
}

func (s *Server) operated() (Operations, error) {
	if s.cfg.Operations == nil {
		return nil, problem(CodeNotFound, "", "This node offers operators nothing.")
	}
	return s.cfg.Operations, nil
}

func (s *Server) meshHealth(q *request) (response, error) {
	o, err := s.operated()
	if err != nil {
		return nil, err
	}
	return o.Health(q.Context())
}

func (s *Server) autopilot(*request) (response, error) {
	o, err := s.operated()
	if err != nil {
		return nil, err
	}
	a, err := o.Autopilot()
	return a, s.leaderTrouble(err)
}

func (s *Server) transferLeader(q *request) (response, error) {
	o, err := s.operated()
	if err != nil {
		return nil, err
	}
	in, err := decode[TransferLeader](q.body)
	if err != nil {
		return nil, err
	}
	var to names.NodeID
	if in.To != "" {
		if to, err = names.ParseNodeID(in.To); err != nil {
			return nil, problem(CodeMalformed, "to", "Want institution/node.")
		}
	}
	if err := s.readingOf(q, "", subject.ID{}, "operator: hands the registry's lead over"); err != nil {
		return nil, err
	}
	return nil, s.leaderTrouble(o.TransferLeader(q.Context(), to))
}

func (s *Server) compact(q *request) (response, error) {
	o, err := s.operated()
	if err != nil {
		return nil, err
	}
	if err := s.readingOf(q, "", subject.ID{}, "operator: has the member write a snapshot"); err != nil {
		return nil, err
	}
	index, err := o.Compact(q.Context())
	if err != nil {
		return nil, s.leaderTrouble(err)
	}
	return Compacted{SnapshotIndex: index}, nil
}

func (s *Server) leaderTrouble(err error) error {
	switch {
	case errors.Is(err, registry.ErrNotMember):
		return problem(CodeNotFound, "", "This node is no member of the registry: ask at one that is.")
	case errors.Is(err, registry.ErrMalformed):
		return problem(CodeMalformed, "to", "Want another member that votes.")
	case errors.Is(err, registry.ErrNotLeader):
		leader := "none is known at the moment"
		if st, serr := s.cfg.Registry.Status(); serr == nil && st.GetLeader() != nil {
			leader = refOf(st.GetLeader()) + " leads"
		}
		return fmt.Errorf("%w: %w", problem(CodeUnavailable, "", "Only the registry's leader can: ask at its node; "+leader+"."), err)
	}
	return err
}

func (s *Server) snapshot(q *request) (response, error) { return s.archive(q, "snapshot") }

func (s *Server) debug(q *request) (response, error) { return s.archive(q, "debug") }

// archive journals that the archive is taken, for it may hold the whole directory.
func (s *Server) archive(q *request, what string) (response, error) {
	o, err := s.operated()
	if err != nil {
		return nil, err
	}
	if err := s.readingOf(q, "", subject.ID{}, "operator: takes a "+what+" archive"); err != nil {
		return nil, err
	}
	// It takes longer than a request may; it ends when its caller is gone.
	ctx := context.WithoutCancel(q.Context())
	return streamed{mediaBytes, func(w io.Writer) error {
		err := o.Write(ctx, what, w)
		if errors.Is(err, ErrArchiving) {
			return problem(CodeTooMany, "", "Wait until the archive that is being made is done.")
		}
		return s.leaderTrouble(err)
	}}, nil
}
