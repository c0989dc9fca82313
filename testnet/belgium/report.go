package belgium

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what one run measured. Times are in microseconds, memory is what the
// operating system says is resident, files that are mapped included.
type Report struct {
	Time         time.Time `json:"time"`
	Cores        int       `json:"cores"`
	LoadBefore   string    `json:"load_average_before"` // the machine may be used by others
	Scale        int       `json:"scale"`
	Institutions int       `json:"institutions"`
	Subjects     uint64    `json:"subjects"`
	References   uint64    `json:"references"`

	Load          Load    `json:"load"`
	SettleSeconds float64 `json:"settle_seconds"`
	DiskMB        []int64 `json:"disk_mb"`
	MemoryMB      []int64 `json:"memory_mb"`

	// Look-ups in the directory: while the members, just started, read through what they
	// keep; and after that, which took so long after the first were measured.
	LookupStarted      Times   `json:"lookup_after_start"`
	ReadThroughSeconds float64 `json:"read_through_seconds"`

	Lookup      Times `json:"lookup"`
	LookupSmall Times `json:"lookup_at_1m_references"`
	Badger      Times `json:"bare_badger_read"`

	RestartSeconds float64  `json:"restart_seconds"`
	Snapshot       Snapshot `json:"snapshot"`
	CatchUp        CatchUp  `json:"catch_up"`
	Commits        Commits  `json:"commits"`
}

// Load is how the references came in.
type Load struct {
	References       int64   `json:"references"`
	AlreadyThere     int64   `json:"already_there"`
	Incomplete       bool    `json:"incomplete,omitempty"`
	Seconds          float64 `json:"seconds"`
	SentBytes        int64   `json:"sent_bytes"`
	MemberCPUSeconds float64 `json:"member_cpu_seconds"` // of all members together
	// GeneratorCPUSeconds is what making up, packing, signing and sending took, and the
	// other traffic.
	GeneratorCPUSeconds float64 `json:"generator_cpu_seconds"`
	PeakMemoryMB        []int64 `json:"peak_memory_mb"`
	PeakDiskMB          []int64 `json:"peak_disk_mb"`
	// The other traffic meanwhile, through HTTP: look-ups that are journaled, those while
	// a snapshot was written, and commands of one reference.
	Reads               Times `json:"reads"`
	ReadsDuringSnapshot Times `json:"reads_during_snapshot"`
	Commits             Times `json:"commits"`
}

// PerSecond is the mean rate.
func (l Load) PerSecond() float64 { return float64(l.References) / max(l.Seconds, 1e-9) }

// Snapshot is one that an operator saved, and those that two members wrote for
// themselves, letting go of the log before them; and what others felt of it.
type Snapshot struct {
	Seconds        float64 `json:"seconds"`
	MB             int64   `json:"mb"`
	Reads          Times   `json:"reads"`
	WriteSeconds   float64 `json:"write_seconds"` // of the two, one after the other
	ReadsAtWriting Times   `json:"reads_at_writing"`
	QuietReads     Times   `json:"reads_before"` // while nothing else went on
}

// CatchUp is how a new member got everything, and what others felt of it.
type CatchUp struct {
	Seconds      float64 `json:"seconds"`
	PeakMemoryMB int64   `json:"peak_memory_mb"`
	DiskMB       int64   `json:"disk_mb"`
	Reads        Times   `json:"reads"`
}

// Commits compares small commands with entries of bare consensus.
type Commits struct {
	InFlight          int     `json:"in_flight"`
	PerSecond         float64 `json:"per_second"`
	BareRaftPerSecond float64 `json:"bare_raft_per_second"`
	// Microseconds of processor for one, all members and their clients together, bringing
	// them up included.
	CPU         float64 `json:"cpu_us"`
	BareRaftCPU float64 `json:"bare_raft_cpu_us"`
}

// Times are percentiles in microseconds.
type Times struct {
	N    int     `json:"n"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
	Max  float64 `json:"max_us"`
}

func newReport(o Options, c *Country) *Report {
	load, _ := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(load))
	return &Report{
		Time: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), LoadBefore: strings.Join(f[:min(3, len(f))], " "),
		Scale: o.Scale, Institutions: len(c.Institutions()),
	}
}

// WriteJSON writes the report for machines.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the report for people: what was measured, what is wanted at full
// size, and the reference of the same run.
func (r *Report) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%s references on %s subjects by %s institutions, 1/%d of the country; %d cores, load before %s\n\n",
		count(int(r.References)), count(int(r.Subjects)), count(r.Institutions), r.Scale, r.Cores, r.LoadBefore)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(what, measured, wanted string) { fmt.Fprintf(t, "%s\t%s\t%s\n", what, measured, wanted) }
	ms := func(x Times) string {
		if x.N == 0 {
			return "none"
		}
		return fmt.Sprintf("p50 %.1f, p99 %.1f, max %.1f ms (%d)", x.P50/1000, x.P99/1000, x.Max/1000, x.N)
	}
	us := func(x Times) string { return fmt.Sprintf("p50 %.1f, p99 %.1f, p99.9 %.1f µs", x.P50, x.P99, x.P999) }
	row("", "MEASURED", "WANTED, AT FULL SIZE")
	l := r.Load
	loaded := fmt.Sprintf("%s in %.0f s: %s/s; %.1f bytes, %.2f µs of processor at each member for one, %.2f at who sends", count(int(l.References)), l.Seconds, count(int(l.PerSecond())),
		float64(l.SentBytes)/float64(max(l.References, 1)), l.MemberCPUSeconds*1e6/members/float64(max(l.References, 1)), l.GeneratorCPUSeconds*1e6/float64(max(l.References, 1)))
	if l.AlreadyThere > 0 {
		loaded += fmt.Sprintf(" (%s were there)", count(int(l.AlreadyThere)))
	}
	if l.Incomplete {
		loaded += " INCOMPLETE"
	}
	row("loading", loaded, "1,200 s")
	row("  that rate at full size", fmt.Sprintf("%.0f s", FullPersons*KnownAt/max(l.PerSecond(), 1)), "")
	row("  look-ups meanwhile", ms(l.Reads), "")
	row("  while a snapshot is written", ms(l.ReadsDuringSnapshot), "p99 50 ms")
	row("  commands of one reference", ms(l.Commits), "usable")
	row("  most memory, MB", list(l.PeakMemoryMB), "2,000 each")
	row("  most disk, MB", list(l.PeakDiskMB), "")
	row("disk afterwards, MB", list(r.DiskMB), "4,000 each")
	row("memory afterwards, MB", list(r.MemoryMB), "2,000 each")
	row("directory lookup", us(r.Lookup), "p99 100 µs")
	row(fmt.Sprintf("  while members read what they keep, %.0f s", r.ReadThroughSeconds), us(r.LookupStarted), "")
	row("  at 1 M references", us(r.LookupSmall), fmt.Sprintf("p99 is %.2f times that; wanted: 2", r.Lookup.P99/max(r.LookupSmall.P99, 0.001)))
	row("  bare Badger, as many rows", us(r.Badger), "")
	row("look-ups, nothing else going on", ms(r.Snapshot.QuietReads), "")
	row(fmt.Sprintf("  while a snapshot of %s MB is streamed", count(int(r.Snapshot.MB))), ms(r.Snapshot.Reads), "p99 50 ms")
	row(fmt.Sprintf("  while two members write theirs, %.1f s", r.Snapshot.WriteSeconds), ms(r.Snapshot.ReadsAtWriting), "p99 50 ms")
	row("killed member serves again, cold", fmt.Sprintf("%.2f s", r.RestartSeconds), "3 s")
	row("empty member has caught up", fmt.Sprintf("%.1f s, with at most %d MB; disk %d MB", r.CatchUp.Seconds, r.CatchUp.PeakMemoryMB, r.CatchUp.DiskMB), "180 s, bounded")
	row("  look-ups meanwhile", ms(r.CatchUp.Reads), "p99 50 ms")
	row(fmt.Sprintf("commits, %d in flight", r.Commits.InFlight), fmt.Sprintf("%s/s; bare raft %s/s: %.2f; %.0f and %.0f µs of processor for one", count(int(r.Commits.PerSecond)),
		count(int(r.Commits.BareRaftPerSecond)), r.Commits.PerSecond/max(r.Commits.BareRaftPerSecond, 1), r.Commits.CPU, r.Commits.BareRaftCPU), "0.5")
	return t.Flush()
}

// count writes a number with commas.
func count(n int) string {
	s := strconv.Itoa(n)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

func size(bytes int64) string {
	if bytes < 1<<30 {
		return fmt.Sprintf("%d MB", bytes>>20)
	}
	return fmt.Sprintf("%.1f GB", float64(bytes)/(1<<30))
}

func list(n []int64) string {
	var s []string
	for _, v := range n {
		s = append(s, count(int(v)))
	}
	return strings.Join(s, " ")
}
