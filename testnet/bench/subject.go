package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet"
)

// SubjectOptions say what to measure of subjects' views. The zero value of each field
// takes its default.
type SubjectOptions struct {
	Entries int       // in the seven journals together; default 1,000,000
	Views   int       // how many are measured; default 200
	Dir     string    // where to keep the network; filled already: it is measured as it is; default: a temporary folder
	Binary  string    // the crossroads binary that node processes run; default: this one
	Profile string    // folder for profiles of every process, while views are measured; empty: none
	Out     io.Writer // progress; nil: none
}

// SubjectReport is what one run measured.
type SubjectReport struct {
	Time     time.Time `json:"time"`
	Machine  string    `json:"machine"`
	Load     string    `json:"load_average_before"` // the machine may be used by others
	Entries  uint64    `json:"entries"`             // of all journals
	Largest  uint64    `json:"entries_of_largest_journal"`
	Filled   float64   `json:"filled_per_second"` // entries; 0: the network was there
	Uses     int       `json:"uses"`              // in a view, mean
	Readings int       `json:"readings"`          // of these, earlier views; mean
	Views    Measured  `json:"views"`             // through the API of one node, over all journals
	Find     Measured  `json:"find"`              // of the same subjects, in the largest journal alone
}

// MeasureSubject measures how long a person waits who wants to see what was done with its
// data in the last six months: seven institutions, each node a process of its own with a
// journal that was filled by journal.Append, asked over HTTP, which ask each other over
// the mesh.
func MeasureSubject(ctx context.Context, o SubjectOptions) (r *SubjectReport, err error) {
	if o.Entries == 0 {
		o.Entries = 1_000_000
	}
	if o.Views == 0 {
		o.Views = 200
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "crossroads-subject-"); err != nil {
			return nil, err
		}
		defer os.RemoveAll(o.Dir)
	}
	load := newReport(Options{})
	r = &SubjectReport{Time: load.Time, Machine: load.Machine, Load: load.Load}
	about, err := o.fill(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("fill the journals: %w", err)
	}
	if err := o.views(ctx, r, about); err != nil {
		return nil, fmt.Errorf("views: %w", err)
	}
	o.say("the largest journal alone")
	if err := o.finds(ctx, r, about); err != nil {
		return nil, fmt.Errorf("find: %w", err)
	}
	return r, nil
}

func (o SubjectOptions) say(format string, args ...any) { fmt.Fprintf(o.Out, format+" ...\n", args...) }

func (o SubjectOptions) start(ctx context.Context) (*testnet.Network, error) {
	return testnet.Start(ctx, testnet.Options{Nodes: institutions, Dir: o.Dir, Processes: true, Binary: o.Binary, Profile: o.Profile})
}

// looking is how many persons look, in turns, since every look is an entry on its subject
// in seven journals, which the next shows.
const looking = 20

// fill makes the network, stops it, and fills its journals, unless that was done.
func (o SubjectOptions) fill(ctx context.Context, r *SubjectReport) (about []subject.ID, err error) {
	n, err := o.start(ctx)
	if err != nil {
		return nil, err
	}
	var nodes []names.NodeID
	for _, e := range n.Endpoints().Nodes {
		nodes = append(nodes, names.NodeID{Institution: e.Institution, Node: "n1"})
	}
	w := n.World()
	for p := range w.Persons() {
		if len(about) == looking {
			break
		}
		about = append(about, p.SSIN)
	}
	if err := n.Close(); err != nil {
		return nil, err
	}
	filled := filepath.Join(o.Dir, "filled.json")
	if _, err := os.Stat(filled); err == nil {
		return about, nil
	}
	o.say("filling seven journals with %d entries", o.Entries)
	begun := time.Now()
	h := &history{nodes: nodes, about: about, entries: o.Entries, until: begun.Add(-time.Hour)}
	count, err := h.write(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	r.Filled = float64(count) / time.Since(begun).Seconds()
	b, err := json.Marshal(map[string]int64{"entries": count})
	if err != nil {
		return nil, err
	}
	return about, os.WriteFile(filled, b, 0o600)
}

// openJournal opens the journal of a node that is stopped, as that node would.
func openJournal(dir string, institution names.InstitutionID) (*journal.Journal, error) {
	cfg, err := config.Load(filepath.Join(dir, "nodes", string(institution), "node.yaml"))
	if err != nil {
		return nil, err
	}
	key, err := certs.LoadStorageKey(cfg.Data.KeyFile)
	if err != nil {
		return nil, err
	}
	return journal.Open(journal.Config{Dir: filepath.Join(cfg.Data.Dir, "journal"), Key: key, Log: slog.New(slog.DiscardHandler)})
}

// views measures views at the node of one institution, one after the other.
func (o SubjectOptions) views(ctx context.Context, r *SubjectReport, about []subject.ID) (err error) {
	n, err := o.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	c := n.Client(n.World().Institutions()[0].ID)
	provider := n.Endpoints().ProviderKey
	view := func(id subject.ID) (*reading.SubjectView, time.Duration, error) {
		challenge, err := c.SubjectChallenge(ctx, api.SubjectPeriod{})
		if err != nil {
			return nil, 0, err
		}
		token, err := testnet.Identify(provider, challenge, api.Subject{Scheme: string(id.Scheme()), Number: id.Number()}, nil)
		if err != nil {
			return nil, 0, err
		}
		begun := time.Now()
		v, err := c.SubjectView(ctx, token)
		if err != nil {
			return nil, 0, err
		}
		if !v.Complete || len(v.Journals) != institutions {
			return nil, 0, fmt.Errorf("the view is of %d journals, complete: %t; not reached: %v", len(v.Journals), v.Complete, v.NotReached)
		}
		return v, time.Since(begun), nil
	}
	o.say("warming up")
	for i := range 2 * looking {
		if _, _, err := view(about[i%looking]); err != nil {
			return err
		}
	}
	o.say("%d views", o.Views)
	l := &load{pids: map[string]int{generator: os.Getpid()}}
	for _, e := range n.Endpoints().Nodes {
		l.pids[string(e.Institution)] = e.PID
	}
	stop, err := l.profile(o.Profile, true)
	if err != nil {
		return err
	}
	used := usageOf(l.pids)
	var took []time.Duration
	begun := time.Now()
	for i := range o.Views {
		v, d, err := view(about[i%looking])
		if err != nil {
			return err
		}
		took = append(took, d)
		r.Uses += len(v.Uses)
		for _, u := range v.Uses {
			if u.Kind == reading.LogReading {
				r.Readings++
			}
		}
	}
	r.Views = measuredOf(took, time.Since(begun))
	for _, cpu := range used.since(o.Views).perCall() {
		r.Views.CPU += cpu
	}
	r.Uses, r.Readings = r.Uses/o.Views, r.Readings/o.Views
	return stop()
}

// finds measures the same searches in the largest journal, with the network stopped.
func (o SubjectOptions) finds(ctx context.Context, r *SubjectReport, about []subject.ID) error {
	dirs, err := os.ReadDir(filepath.Join(o.Dir, "nodes"))
	if err != nil {
		return err
	}
	var largest names.InstitutionID
	for _, d := range dirs {
		j, err := openJournal(o.Dir, names.InstitutionID(d.Name()))
		if err != nil {
			return err
		}
		if r.Entries += j.Next(); j.Next() > r.Largest {
			r.Largest, largest = j.Next(), names.InstitutionID(d.Name())
		}
		if err := j.Close(); err != nil {
			return err
		}
	}
	j, err := openJournal(o.Dir, largest)
	if err != nil {
		return err
	}
	until := time.Now()
	var took []time.Duration
	for i := range o.Views + looking {
		at := time.Now()
		found, err := j.Find(ctx, journal.Query{Subject: about[i%looking], From: until.AddDate(0, -6, 0), Until: until, Limit: 2001, NewestFirst: true})
		if err == nil && len(found) == 0 {
			err = errors.New("nothing is found")
		}
		if err != nil {
			return errors.Join(err, j.Close())
		}
		if i >= looking {
			took = append(took, time.Since(at))
		}
	}
	r.Find = measuredOf(slices.Clone(took), time.Since(until))
	return j.Close()
}

// WriteJSON writes the report for machines.
func (r *SubjectReport) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

// WriteTable writes the report for people.
func (r *SubjectReport) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s, %s; load average before: %s\n", r.Time.Format(time.DateTime), r.Machine, r.Load)
	fmt.Fprintf(t, "%d institutions, each a process; %d entries in their journals, %d in the largest", institutions, r.Entries, r.Largest)
	if r.Filled > 0 {
		fmt.Fprintf(t, "; filled at %.0f/s", r.Filled)
	}
	fmt.Fprintf(t, "\na view shows %d uses, %d of them earlier views\n\n\tcount\tp50 ms\tp99 ms\tCPU µs\n", r.Uses, r.Readings)
	fmt.Fprintf(t, "a subject's view over seven journals\t%d\t%.1f\t%.1f\t%.0f\n", r.Views.Count, r.Views.P50, r.Views.P99, r.Views.CPU)
	fmt.Fprintf(t, "Find in the largest journal alone\t%d\t%.1f\t%.1f\n", r.Find.Count, r.Find.P50, r.Find.P99)
	return t.Flush()
}
