package metrics

import "github.com/prometheus/client_golang/prometheus"

// registryCollector asks for the status once for each collection.
type registryCollector struct{ of Registry }

func registryDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("crossroads_registry_"+name, help, labels, nil)
}

// What a Desc is, never changes.
var (
	descState      = registryDesc("state", "1 for what this node is to the registry, 0 for the others.", "state")
	descTerm       = registryDesc("term", "Raft term, on a member.")
	descApplied    = registryDesc("applied_index", "Index up to which this node holds everything.")
	descCommit     = registryDesc("commit_index", "Index up to which a majority holds everything, on a member.")
	descStanding   = registryDesc("standing_valid", "1 while this node may rely on its view of the registry.")
	descSubjects   = registryDesc("subjects", "Subjects in the directory that this node holds.")
	descStateSame  = registryDesc("state_members", "Members by what they signed of their state at the index that was last compared: same as here, differ, or silent.", "said")
	descDiverged   = registryDesc("diverged", "1 while this node's state is not the one that most members signed, and so nothing is cleared.")
	descVerifying  = registryDesc("verifying", "1 while this node reads through what it keeps of the registry, or is about to after its start.")
	descVerified   = registryDesc("verified", "Rows and log entries read through so far; 0 when nothing is being read through.")
	descReferences = registryDesc("references", "References in the directory that this node holds.")
)

// states are those of Registry.Status.
var states = []string{"leader", "follower", "candidate", "watcher", "starting"}

// Describe implements prometheus.Collector.
func (c registryCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descState, descTerm, descApplied, descCommit, descStanding, descSubjects, descReferences, descStateSame, descDiverged, descVerifying, descVerified} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c registryCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s, err := c.of.Status()
	if err != nil { // the rest is told all the same: this is when somebody looks
		gauge(descStanding, 0)
		return
	}
	for _, state := range states {
		gauge(descState, flag(s.GetState() == state), state)
	}
	gauge(descTerm, float64(s.GetTerm()))
	gauge(descApplied, float64(s.GetAppliedIndex()))
	gauge(descCommit, float64(s.GetCommitIndex()))
	gauge(descStanding, flag(s.GetGrantValid()))
	gauge(descSubjects, float64(s.GetSubjects()))
	gauge(descStateSame, float64(len(s.GetStateSame())), "same")
	gauge(descStateSame, float64(len(s.GetStateDiffer())), "differ")
	gauge(descStateSame, float64(len(s.GetStateSilent())), "silent")
	gauge(descDiverged, flag(s.GetDiverged() != ""))
	gauge(descReferences, float64(s.GetReferences()))
	gauge(descVerifying, flag(s.GetVerifying()))
	gauge(descVerified, float64(s.GetVerified()))
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
