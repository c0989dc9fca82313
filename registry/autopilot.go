package registry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// pilotAsk bounds the question how a member does.
const pilotAsk = 900 * time.Millisecond

// pilot is what a leader knows of how the members do. It asks each of them every second,
// since raft does not tell how far its followers are. The zero value is ready, and safe
// for concurrent use.
type pilot struct {
	of *member

	mu    sync.Mutex
	since time.Time // of leading; zero: this member does not lead
	seen  map[names.NodeID]*sighting
}

// sighting is one member, as its leader sees it. Times are monotonic.
type sighting struct {
	status  *registrypb.StatusResponse // the last answer; nil: none yet
	at      time.Time                  // of it
	healthy time.Time                  // since when it keeps up; zero: it does not
}

func (p *pilot) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.seen = time.Time{}, nil
}

// look asks everybody once.
func (p *pilot) look(ctx context.Context, want []names.NodeID, settings record.Autopilot) {
	ctx, cancel := context.WithTimeout(ctx, pilotAsk)
	defer cancel()
	r := p.of.raft()
	term, last := r.CurrentTerm(), r.LastIndex()
	answers := make([]*registrypb.StatusResponse, len(want))
	var wg sync.WaitGroup
	for i, n := range want {
		if n == p.of.reg.cfg.Self {
			answers[i], _ = p.of.reg.Status()
			continue
		}
		wg.Go(func() {
			resp := new(registrypb.StatusResponse)
			if p.of.reg.cfg.Peers.Call(ctx, n, MethodStatus, &registrypb.StatusRequest{}, resp) == nil {
				answers[i] = resp
			}
		})
	}
	wg.Wait()
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since, p.seen = now, make(map[names.NodeID]*sighting)
	}
	for n := range p.seen {
		if !slices.Contains(want, n) {
			delete(p.seen, n)
		}
	}
	for i, n := range want {
		s := p.seen[n]
		if s == nil {
			s = &sighting{at: now} // silent since now at the earliest
			p.seen[n] = s
		}
		if answers[i] != nil {
			s.status, s.at = answers[i], now
		}
		ok := answers[i] != nil && answers[i].Term == term && entryAt(answers[i].LastLogIndex)+settings.MaxTrailing >= last
		switch {
		case !ok:
			s.healthy = time.Time{}
		case s.healthy.IsZero():
			s.healthy = now
		}
	}
}

// stable reports whether a member has kept up for as long as it must before it votes.
func (p *pilot) stable(n names.NodeID, settings record.Autopilot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seen[n]
	return s != nil && !s.healthy.IsZero() && time.Since(s.healthy) >= settings.Stabilization
}

// dead gives a voter whose vote is to be taken: silent for too long, and of so many that
// more than half of the whole record goes on voting, and more than half of those voters
// are well. So a leader that is cut off from most takes no vote from anybody.
func (p *pilot) dead(have []raft.Server, want []names.NodeID, settings record.Autopilot) (raft.ServerID, bool) {
	if settings.DeadAfter == 0 {
		return "", false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	voters, well := 0, 0
	var gone raft.ServerID
	for _, h := range have {
		if h.Suffrage != raft.Voter {
			continue
		}
		voters++
		n, err := names.ParseNodeID(string(h.ID))
		s := p.seen[n]
		switch {
		case err != nil || s == nil:
		case !s.healthy.IsZero():
			well++
		case time.Since(s.at) >= settings.DeadAfter && gone == "":
			gone = h.ID
		}
	}
	left := voters - 1
	return gone, gone != "" && left > len(want)/2 && well > left/2
}

// PeerState is one member, or server of raft's configuration.
type PeerState struct {
	ID        names.NodeID
	Recorded  bool   // the members record names it
	Suffrage  string // voter, nonvoter; none: not in raft's configuration
	Leader    bool
	Healthy   bool
	Stable    time.Duration // for how long it has kept up
	Silent    time.Duration // since its last answer
	LastIndex uint64        // of its log, when it answered last
	Lag       uint64        // entries behind the leader's log
	Term      uint64
	Applied   uint64
	Knows     uint32 // feature level
}

// AutopilotState is how the consensus group does, as its leader sees it.
type AutopilotState struct {
	Leader           names.NodeID
	Healthy          bool // every member of the record votes and keeps up
	Voters           int
	FailureTolerance int // how many voters more may fail
	Settings         record.Autopilot
	Peers            []PeerState
}

// Autopilot tells how the consensus group does. Only the leader knows; on others the
// error is ErrNotLeader, or ErrNotMember.
func (r *Registry) Autopilot() (*AutopilotState, error) {
	m := r.member
	switch {
	case m == nil:
		return nil, ErrNotMember
	case !m.leads():
		return nil, ErrNotLeader
	}
	want, settings, err := m.wanted()
	if err != nil {
		return nil, err
	}
	f := m.raft().GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, notLeading(err)
	}
	return m.pilot.state(want, f.Configuration().Servers, settings), nil
}

func (p *pilot) state(want []names.NodeID, have []raft.Server, settings record.Autopilot) *AutopilotState {
	all := slices.Clone(want)
	suffrage := make(map[names.NodeID]string)
	for _, h := range have {
		n, err := names.ParseNodeID(string(h.ID))
		if err != nil {
			continue
		}
		suffrage[n] = map[raft.ServerSuffrage]string{raft.Voter: "voter"}[h.Suffrage]
		if suffrage[n] == "" {
			suffrage[n] = "nonvoter"
		}
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	last, now := p.of.raft().LastIndex(), time.Now()
	out := &AutopilotState{Leader: p.of.reg.cfg.Self, Healthy: true, Settings: settings}
	p.mu.Lock()
	defer p.mu.Unlock()
	well := 0
	for _, n := range all {
		s := PeerState{ID: n, Recorded: slices.Contains(want, n), Suffrage: suffrage[n], Leader: n == p.of.reg.cfg.Self}
		if s.Suffrage == "" {
			s.Suffrage = "none"
		}
		if seen := p.seen[n]; seen != nil {
			s.Healthy, s.Silent = !seen.healthy.IsZero(), now.Sub(seen.at)
			if s.Healthy {
				s.Stable = now.Sub(seen.healthy)
			}
			if st := seen.status; st != nil {
				s.LastIndex, s.Term, s.Applied, s.Knows = entryAt(st.LastLogIndex), st.Term, st.AppliedIndex, st.KnowsLevel
				s.Lag = last - min(last, s.LastIndex)
			}
		}
		if s.Suffrage == "voter" {
			out.Voters++
			if s.Healthy {
				well++
			}
		}
		out.Healthy = out.Healthy && s.Healthy && s.Recorded && s.Suffrage == "voter"
		out.Peers = append(out.Peers, s)
	}
	out.FailureTolerance = max(0, well-(out.Voters/2+1))
	return out
}

// TransferLeadership hands the lead over to another member, or with the zero NodeID to
// whichever is furthest. Only the leader can; the error is else ErrNotLeader.
func (r *Registry) TransferLeadership(ctx context.Context, to names.NodeID) error {
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	m := r.member
	switch {
	case m == nil:
		return ErrNotMember
	case !m.leads():
		return ErrNotLeader
	}
	var f raft.Future
	if to == (names.NodeID{}) {
		f = m.raft().LeadershipTransfer()
	} else {
		if !slices.Contains(votersOf(m.raft()), raft.ServerID(to.String())) || to == r.cfg.Self {
			return fmt.Errorf("%w: %s is no other voter", ErrMalformed, to)
		}
		s := server(to)
		f = m.raft().LeadershipTransferToServer(s.ID, s.Address)
	}
	done := make(chan error, 1)
	go func() { done <- f.Error() }() // ends with raft's own election timeout
	select {
	case err := <-done:
		return notLeading(err)
	case <-ctx.Done():
		<-done
		return ctx.Err()
	}
}

// RaftStats is what raft tells of itself on a member. Indexes are those of its log's
// entries, of which each holds many commands.
type RaftStats struct {
	State                                      string
	Term, CommitIndex, AppliedIndex, LastIndex uint64
	LastSnapshotIndex, FSMPending              uint64
	Voters, Servers                            int
	LastContact                                time.Duration // of a follower with its leader; negative: none yet
	AutopilotKnown, AutopilotHealthy           bool          // only a leader knows
	FailureTolerance                           int
}

// RaftStats gives raft's own figures; false: this node is no member, or raft does not run.
func (r *Registry) RaftStats() (RaftStats, bool) {
	m := r.member
	if m == nil || m.raft() == nil {
		return RaftStats{}, false
	}
	raw := m.raft().Stats()
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(raw[name], 10, 64)
		return n
	}
	s := RaftStats{
		State: raw["state"], Term: number("term"), CommitIndex: number("commit_index"), AppliedIndex: number("applied_index"),
		LastIndex: number("last_log_index"), LastSnapshotIndex: number("last_snapshot_index"), FSMPending: number("fsm_pending"),
		Voters: len(votersOf(m.raft())), Servers: len(m.raft().GetConfiguration().Configuration().Servers), LastContact: -1,
	}
	if at := m.raft().LastContact(); !at.IsZero() {
		s.LastContact = time.Since(at)
	}
	if a, err := r.Autopilot(); err == nil {
		s.AutopilotKnown, s.AutopilotHealthy, s.FailureTolerance = true, a.Healthy, a.FailureTolerance
	}
	return s, true
}
