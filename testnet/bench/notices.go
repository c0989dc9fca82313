package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// NoticeOptions say how automatic communications are measured. The zero value of each
// field takes its default.
type NoticeOptions struct {
	Changes  int       // published in each of three rounds; default 5,000
	InFlight int       // publications under way at once; default 64
	Batch    int       // changes in one request of the second round; default 128
	Persons  int       // invented persons; default 2,000
	Binary   string    // as Options.Binary
	Profile  string    // folder for profiles of every process in the first round; empty: none
	Out      io.Writer // progress; nil: none
}

func (o NoticeOptions) withDefaults() NoticeOptions {
	if o.Changes == 0 {
		o.Changes = 5_000
	}
	if o.InFlight == 0 {
		o.InFlight = 64
	}
	if o.Batch == 0 {
		o.Batch = 128
	}
	if o.Persons == 0 {
		o.Persons = 2_000
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return o
}

// NoticeReport is what one run measured.
type NoticeReport struct {
	Time      time.Time           `json:"time"`
	Machine   string              `json:"machine"`
	Load      string              `json:"load_average_before"`
	Publisher names.InstitutionID `json:"publisher"`
	Dataset   names.DatasetID     `json:"dataset"`
	// Published are all changes, told to everybody concerned as they come: each handed in by
	// a request of its own.
	Published *NoticeRun `json:"as_published"`
	// Together are as many, of which AtOnce were handed in by one request, two of which were
	// under way at once.
	AtOnce   int        `json:"handed_in_at_once"`
	Together *NoticeRun `json:"published_together"`
	// Backlog is what one recipient, which was down meanwhile, is told once it is back:
	// each delivery cleared anew.
	Absent  names.InstitutionID `json:"absent"`
	Backlog *NoticeRun          `json:"backlog"`
	// Journal is the reference: appends alone, of which a delivery costs four.
	Journal Append `json:"journal_alone"`
}

// NoticeRun is one round.
type NoticeRun struct {
	Changes    int                `json:"changes"`
	Deliveries int                `json:"deliveries"`
	Seconds    float64            `json:"seconds"`
	PerSecond  float64            `json:"deliveries_per_second"`
	CPU        float64            `json:"cpu_us"`            // of all nodes, for one delivery
	CPUBy      map[string]float64 `json:"cpu_us_by_process"` // the same, by process; the client too
}

const (
	noticePublisher = names.InstitutionID("national-register")
	noticeDataset   = names.DatasetID("person-address/v1")
)

// notices publishes changes in a network.
type notices struct {
	o      NoticeOptions
	n      *testnet.Network
	people []*data.Person
	told   [][]names.InstitutionID // of a change about each
	about  names.Period
	next   int
}

// RunNotices brings a network up and publishes changes three times: to recipients that are
// all there, handed in one by one and then many at once; and while one of them is down, which is told when it is back.
func RunNotices(ctx context.Context, o NoticeOptions) (_ *NoticeReport, err error) {
	o = o.withDefaults()
	head := newReport(Options{})
	r := &NoticeReport{Time: head.Time, Machine: head.Machine, Load: head.Load, Publisher: noticePublisher, Dataset: noticeDataset}
	fmt.Fprintln(o.Out, "the journal alone")
	dir, err := os.MkdirTemp("", "crossroads-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r.Journal, err = appending(ctx, dir, false, func(do func(int64) error) (Append, error) { return appends(ctx, 2*time.Second, do) })
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(o.Out, "a network of %d institutions, %d persons\n", institutions, o.Persons)
	n, err := testnet.Start(ctx, testnet.Options{Nodes: institutions, Persons: o.Persons, Processes: true, Binary: o.Binary, Profile: o.Profile})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	b, err := newNotices(o, n)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(o.Out, "%d changes, told as they are published\n", o.Changes)
	if r.Published, err = b.published(ctx); err != nil {
		return nil, err
	}
	fmt.Fprintf(o.Out, "%d changes, handed in %d at once\n", o.Changes, o.Batch)
	r.AtOnce = o.Batch
	if r.Together, err = b.together(ctx); err != nil {
		return nil, err
	}
	if r.Absent, err = b.absent(); err != nil {
		return nil, err
	}
	fmt.Fprintf(o.Out, "%d changes while %s is down, which is told of them then\n", o.Changes, r.Absent)
	r.Backlog, err = b.backlog(ctx, r.Absent)
	return r, err
}

func newNotices(o NoticeOptions, n *testnet.Network) (*notices, error) {
	b := &notices{o: o, n: n, about: names.Period{From: data.Today, Until: names.Forever}}
	today := names.DateOf(time.Now().UTC())
	for p := range n.World().Persons() {
		told := n.World().Told(p, noticePublisher, noticeDataset, b.about, []names.FieldName{"street", "municipality"}, today)
		if p.Former != nil || p.Death != names.Forever || p.Bis || len(told) == 0 {
			continue
		}
		var to []names.InstitutionID
		for _, t := range told {
			to = append(to, t.Institution)
		}
		b.people, b.told = append(b.people, p), append(b.told, to)
	}
	if len(b.people) < 100 {
		return nil, fmt.Errorf("changes about %d persons are told to anybody; want 100", len(b.people))
	}
	return b, nil
}

// absent gives the recipient that is told of the most changes, and is no registry member.
func (b *notices) absent() (best names.InstitutionID, err error) {
	count, most := map[names.InstitutionID]int{}, 0
	for _, told := range b.told {
		for _, to := range told {
			count[to]++
		}
	}
	for _, e := range b.n.Endpoints().Nodes {
		if k := count[e.Institution]; e.Role != "member" && k > most {
			best, most = e.Institution, k
		}
	}
	if best == "" {
		return "", errors.New("every recipient is a registry member")
	}
	return best, nil
}

// publish publishes the next changes, inFlight requests at once of atOnce changes each, and
// gives how many notices each recipient is due.
func (b *notices) publish(ctx context.Context, inFlight, atOnce int) (due map[names.InstitutionID]int, err error) {
	from := b.next
	b.next += b.o.Changes
	due = map[names.InstitutionID]int{}
	for i := from; i < b.next; i++ {
		for _, to := range b.told[i%len(b.people)] {
			due[to]++
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan []api.PublicationRequest)
	var all sync.WaitGroup
	c := b.n.Client(noticePublisher)
	for range inFlight {
		all.Go(func() {
			for list := range work {
				if err := handIn(ctx, c, list, atOnce > 1); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := from; i < b.next && ctx.Err() == nil; i += atOnce {
		var list []api.PublicationRequest
		for k := i; k < min(i+atOnce, b.next); k++ {
			list = append(list, b.change(k))
		}
		work <- list
	}
	close(work)
	all.Wait()
	return due, context.Cause(ctx)
}

// change is the i-th that is published.
func (b *notices) change(i int) api.PublicationRequest {
	return api.PublicationRequest{
		ClientTicket: names.ClientTicket(fmt.Sprintf("moved-%d", i)), Dataset: noticeDataset, Period: &b.about,
		Subject: api.Subject{Scheme: string(subject.SSIN), Number: b.people[i%len(b.people)].SSIN.Number()},
		Record:  json.RawMessage(fmt.Sprintf(`{"street":"Street %d","house_number":"7","postal_code":"9000","municipality":"Ghent","start_date":"2026-01-01","end_date":null}`, i)),
	}
}

// handIn publishes changes in one request, and insists that all are accepted.
func handIn(ctx context.Context, c *api.Client, list []api.PublicationRequest, batch bool) error {
	if !batch {
		done, err := c.Publish(ctx, list[0])
		if err == nil && done.Status != "ACCEPTED" {
			err = fmt.Errorf("a change is %s", done.Status)
		}
		return err
	}
	done, err := c.PublishBatch(ctx, api.PublicationBatch{Items: list})
	if err != nil {
		return err
	}
	if len(done.Items) != len(list) {
		return fmt.Errorf("%d outcomes for %d changes", len(done.Items), len(list))
	}
	for _, o := range done.Items {
		switch {
		case o.Problem != nil:
			return o.Problem
		case o.Publication.Status != "ACCEPTED":
			return fmt.Errorf("a change is %s", o.Publication.Status)
		}
	}
	return nil
}

// waiting gives what is in the inboxes.
func (b *notices) waiting(ctx context.Context, of map[names.InstitutionID]int) (map[names.InstitutionID]int, error) {
	got := map[names.InstitutionID]int{}
	for to := range of {
		st, err := b.n.Client(to).InboxState(ctx)
		if err != nil {
			return nil, err
		}
		got[to] = st.Waiting
	}
	return got, nil
}

// arrive waits until all that is due has arrived.
func (b *notices) arrive(ctx context.Context, before, due map[names.InstitutionID]int) error {
	for to, n := range due {
		for {
			st, err := b.n.Client(to).InboxState(ctx)
			if err != nil {
				return err
			}
			if st.Waiting-before[to] > n {
				return fmt.Errorf("%s has %d notices, %d are due", to, st.Waiting-before[to], n)
			}
			if st.Waiting-before[to] == n {
				break
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("%s has %d of %d notices: %w", to, st.Waiting-before[to], n, ctx.Err())
			}
		}
	}
	return nil
}

func (b *notices) pids() map[string]int {
	pids := map[string]int{generator: os.Getpid()}
	for _, e := range b.n.Endpoints().Nodes {
		pids[string(e.Institution)] = e.PID
	}
	return pids
}

func (b *notices) published(ctx context.Context) (*NoticeRun, error) {
	return b.round(ctx, b.o.Profile, b.o.InFlight, 1)
}

func (b *notices) together(ctx context.Context) (*NoticeRun, error) {
	return b.round(ctx, "", 2, b.o.Batch)
}

// round publishes while everybody is there, and measures until all have been told. An empty
// folder takes no profiles.
func (b *notices) round(ctx context.Context, folder string, inFlight, atOnce int) (*NoticeRun, error) {
	l := &load{pids: b.pids()}
	everybody := map[names.InstitutionID]int{}
	for _, told := range b.told {
		for _, to := range told {
			everybody[to] = 0
		}
	}
	before, err := b.waiting(ctx, everybody)
	if err != nil {
		return nil, err
	}
	stop, err := l.profile(folder, true)
	if err != nil {
		return nil, err
	}
	used, begun := usageOf(l.pids), time.Now()
	due, err := b.publish(ctx, inFlight, atOnce)
	if err == nil {
		err = b.arrive(ctx, before, due)
	}
	run := runOf(b.o.Changes, due, time.Since(begun), used)
	return run, errors.Join(err, stop())
}

// backlog publishes while one recipient is down, and measures how long it takes from its
// return until it has been told of everything.
func (b *notices) backlog(ctx context.Context, absent names.InstitutionID) (*NoticeRun, error) {
	before, err := b.waiting(ctx, map[names.InstitutionID]int{absent: 0})
	if err != nil {
		return nil, err
	}
	if err := b.n.KillNode(absent); err != nil {
		return nil, err
	}
	due, err := b.publish(ctx, b.o.InFlight, 1)
	if err != nil {
		return nil, err
	}
	mine := map[names.InstitutionID]int{absent: due[absent]}
	if err := b.settled(ctx, due[absent]); err != nil {
		return nil, err
	}
	if err := b.n.StartNode(absent, nil); err != nil {
		return nil, err
	}
	if err := b.n.WaitReady(ctx); err != nil {
		return nil, err
	}
	used, begun := usageOf(b.pids()), time.Now()
	if _, err := b.n.Client(noticePublisher).Redrive(ctx, api.DeliverySelection{Recipient: absent}); err != nil {
		return nil, err
	}
	if err := b.arrive(ctx, before, mine); err != nil {
		return nil, err
	}
	return runOf(b.o.Changes, mine, time.Since(begun), used), nil
}

// settled waits until nobody but the absent recipient waits for anything.
func (b *notices) settled(ctx context.Context, waits int) error {
	for {
		lags, err := b.n.Client(noticePublisher).DeliveryLags(ctx)
		if err != nil {
			return err
		}
		left := lags.Pending
		for _, l := range lags.Items {
			left += l.Waiting
		}
		if left == waits {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func runOf(changes int, due map[names.InstitutionID]int, took time.Duration, used *usage) *NoticeRun {
	run := &NoticeRun{Changes: changes, Seconds: took.Seconds()}
	for _, n := range due {
		run.Deliveries += n
	}
	run.PerSecond = float64(run.Deliveries) / took.Seconds()
	run.CPUBy = used.since(run.Deliveries).perCall()
	for name, us := range run.CPUBy {
		if name != generator {
			run.CPU += us
		}
	}
	return run
}

// WriteJSON writes the report for machines.
func (r *NoticeReport) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

// WriteTable writes the report for people.
func (r *NoticeReport) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }
	line("%s, %s; load average before: %s", r.Time.Format(time.DateTime), r.Machine, r.Load)
	line("%s publishes %s\n", r.Publisher, r.Dataset)
	line("durable deliveries\tper second\tCPU µs each\tdeliveries\tchanges\tseconds")
	for _, x := range []struct {
		what string
		*NoticeRun
	}{{"published one by one, told at once", r.Published}, {fmt.Sprintf("published %d at once, told at once", r.AtOnce), r.Together}, {"backlog of " + string(r.Absent) + ", cleared anew", r.Backlog}} {
		line("%s\t%.0f\t%.0f\t%d\t%d\t%.1f", x.what, x.PerSecond, x.CPU, x.Deliveries, x.Changes, x.Seconds)
	}
	line("reference: journal appends alone\t%.0f\t%.0f\t%d", r.Journal.PerSecond, r.Journal.CPU, r.Journal.Count)
	line("\nCPU µs a delivery, by process\tone by one\t%d at once\tbacklog", r.AtOnce)
	for _, name := range slices.Sorted(maps.Keys(r.Published.CPUBy)) {
		line("%s\t%.0f\t%.0f\t%.0f", name, r.Published.CPUBy[name], r.Together.CPUBy[name], r.Backlog.CPUBy[name])
	}
	return t.Flush()
}
