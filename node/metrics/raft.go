package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/crossroads-mesh/crossroads/registry"
)

// raftCollector tells of consensus under the names that operators of other raft products
// know. hashicorp/raft's own metrics go to one place for the whole process, which many
// nodes in one process cannot share; so they are read from each raft by itself.
type raftCollector struct {
	of func() (registry.RaftStats, bool)
}

func raftDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descRaftState     = raftDesc("raft_state", "1 for the state of this member's raft, 0 for the others.", "state")
	descRaftTerm      = raftDesc("raft_term", "Raft term.")
	descRaftCommit    = raftDesc("raft_commit_index", "Last entry of the log that a majority holds, as this member knows.")
	descRaftApplied   = raftDesc("raft_applied_index", "Last entry of the log that this member has applied.")
	descRaftLast      = raftDesc("raft_last_index", "Last entry of this member's log.")
	descRaftSnapshot  = raftDesc("raft_last_snapshot_index", "Entry at which this member's last snapshot was taken.")
	descRaftPending   = raftDesc("raft_fsm_pending", "Entries that wait for the state machine.")
	descRaftVoters    = raftDesc("raft_voters", "Servers that vote, as this member knows the configuration.")
	descRaftPeers     = raftDesc("raft_peers", "Servers in the configuration that this member knows.")
	descRaftContact   = raftDesc("raft_leader_last_contact_seconds", "How long ago this follower heard its leader.")
	descPilotHealthy  = raftDesc("autopilot_healthy", "1 while every member of the record votes and keeps up. Told by the leader only.")
	descPilotTolerate = raftDesc("autopilot_failure_tolerance", "How many voters more may fail. Told by the leader only.")
)

var raftStates = []string{"Follower", "Candidate", "Leader", "Shutdown"}

// Describe implements prometheus.Collector.
func (c raftCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRaftState, descRaftTerm, descRaftCommit, descRaftApplied, descRaftLast, descRaftSnapshot,
		descRaftPending, descRaftVoters, descRaftPeers, descRaftContact, descPilotHealthy, descPilotTolerate} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c raftCollector) Collect(ch chan<- prometheus.Metric) {
	s, ok := c.of()
	if !ok {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, state := range raftStates {
		gauge(descRaftState, flag(s.State == state), state)
	}
	gauge(descRaftTerm, float64(s.Term))
	gauge(descRaftCommit, float64(s.CommitIndex))
	gauge(descRaftApplied, float64(s.AppliedIndex))
	gauge(descRaftLast, float64(s.LastIndex))
	gauge(descRaftSnapshot, float64(s.LastSnapshotIndex))
	gauge(descRaftPending, float64(s.FSMPending))
	gauge(descRaftVoters, float64(s.Voters))
	gauge(descRaftPeers, float64(s.Servers))
	if s.State == "Follower" && s.LastContact >= 0 {
		gauge(descRaftContact, s.LastContact.Seconds())
	}
	if s.AutopilotKnown {
		gauge(descPilotHealthy, flag(s.AutopilotHealthy))
		gauge(descPilotTolerate, float64(s.FailureTolerance))
	}
}
