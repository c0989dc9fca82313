package belgium

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/testnet"
)

const (
	reportEvery = 5 * time.Second
	submitFor   = 2 * time.Minute // one command, retries included
)

// admit has the operators admit every institution that is not admitted yet.
func (r *run) admit(ctx context.Context) error {
	leader, _, err := r.leader(ctx)
	if err != nil {
		return err
	}
	list, err := r.net.Client(leader).Institutions(ctx)
	if err != nil {
		return err
	}
	known := make(map[names.InstitutionID]bool)
	for _, i := range list.Items {
		known[names.InstitutionID(i.ID)] = true
	}
	operators, err := r.net.Operators(ctx)
	if err != nil {
		return err
	}
	if len(known) < len(r.country.Institutions()) {
		resp, err := operators.Do(ctx, &registrypb.Command{Body: &registrypb.Command_SetFeatureLevel{SetFeatureLevel: &registrypb.FeatureLevel{Level: record.Level}}})
		if err != nil {
			return err
		}
		if !resp.Accepted { // an earlier run, or the genesis file, has done so
			r.say("feature level %d: %s", record.Level, resp.Refusal)
		}
	}
	for n, i := range r.country.Institutions() {
		if n%500 == 0 {
			r.say("admitting institutions: %d of %d", n, len(r.country.Institutions()))
		}
		if known[i.ID] {
			continue
		}
		resp, err := operators.Do(ctx, &registrypb.Command{Body: &registrypb.Command_SetInstitution{SetInstitution: i.admission()}})
		if err != nil {
			return err
		}
		if !resp.Accepted {
			return fmt.Errorf("admit %s: %s", i.ID, resp.Refusal)
		}
	}
	return nil
}

// loading is what goes on while references come.
type loading struct {
	began   time.Time
	already atomic.Int64 // references that an earlier run had sent
	done    atomic.Int64
	bytes   atomic.Int64
}

// load sends every institution's references, each institution its own, signed by itself,
// several institutions at a time, while other traffic goes on.
func (r *run) load(ctx context.Context) error {
	leader, follower, err := r.leader(ctx)
	if err != nil {
		return err
	}
	if r.sent, err = readSent(filepath.Join(r.Dir, "sent.json")); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, r.Within)
	defer cancel()
	var l loading
	probes := r.probe(leader, follower)
	watch := r.watchMembers()
	stop := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() { r.progress(&l, watch, stop) })
	l.began = time.Now()
	processors, own := usedBy(r.pids()), usedBy([]int{os.Getpid()})
	g, limited := errgroup.WithContext(limited)
	g.SetLimit(r.AtOnce)
	for n := range r.country.Institutions() {
		i := &r.country.Institutions()[n]
		g.Go(func() error { return r.declare(limited, i, leader, &l) })
	}
	err = g.Wait()
	took := time.Since(l.began)
	close(stop)
	beside.Wait()
	err = errors.Join(err, r.sent.save())
	load := &r.report.Load
	load.References, load.Seconds, load.SentBytes = l.done.Load(), took.Seconds(), l.bytes.Load()
	load.GeneratorCPUSeconds = usedBy([]int{os.Getpid()}) - own
	load.AlreadyThere = l.already.Load()
	load.MemberCPUSeconds = usedBy(r.pids()) - processors
	load.PeakMemoryMB, load.PeakDiskMB = watch.memory(), watch.disk()
	load.Reads, load.ReadsDuringSnapshot, load.Commits = probes.end()
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		load.Incomplete = true
		r.say("the loading was ended after %v; what is loaded is measured", took.Round(time.Second))
		err = nil
	}
	return err
}

// declare sends what an institution has not sent yet, one command after another.
func (r *run) declare(ctx context.Context, i *Institution, through names.InstitutionID, l *loading) error {
	first, previous := r.sent.of(i.ID)
	l.already.Add(int64(min(i.Count(), first*RowsPerCommand)))
	for n := first; n < i.Commands(); n++ {
		raw, hash, err := r.country.Command(testnet.MeshName, i, n, previous)
		if err != nil {
			return err
		}
		if err := r.submit(ctx, through, raw); err != nil {
			return fmt.Errorf("command %d of %s: %w", n+1, i.ID, err)
		}
		previous = hash
		r.sent.note(i.ID, n+1, hash)
		l.done.Add(int64(min(RowsPerCommand, i.Count()-n*RowsPerCommand)))
		l.bytes.Add(int64(len(raw)))
	}
	return nil
}

// submit tries until the registry says yes or no.
func (r *run) submit(ctx context.Context, through names.InstitutionID, raw []byte) error {
	until, cancel := context.WithTimeout(ctx, submitFor)
	defer cancel()
	for n := 0; ; n++ {
		done, err := r.net.Client(through).Submit(until, raw)
		switch {
		case err == nil && done.Accepted:
			return nil
		case err == nil:
			return fmt.Errorf("refused: %s", done.Refusal)
		case until.Err() != nil:
			return err
		}
		through = r.members[n%len(r.members)] // the member may be down, or no longer lead
		select {
		case <-time.After(50 * time.Millisecond):
		case <-until.Done():
		}
	}
}

// progress tells how far it is.
func (r *run) progress(l *loading, w *watcher, stop <-chan struct{}) {
	tick := time.NewTicker(reportEvery)
	told := time.Now()
	defer tick.Stop()
	total := int64(r.country.References())
	before, at := int64(0), time.Now()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if err := r.sent.save(); err != nil {
			r.say("what was sent is not written down: %v", err)
		}
		now := time.Now()
		if now.Sub(told) < r.Every-reportEvery/2 {
			continue
		}
		told = now
		done, already := l.done.Load(), l.already.Load()
		rate := float64(done-before) / now.Sub(at).Seconds()
		mean := float64(done) / now.Sub(l.began).Seconds()
		before, at = done, now
		left := "?"
		if mean > 0 {
			left = (time.Duration(float64(total-done-already)/mean) * time.Second).Round(time.Second).String()
		}
		r.say("%s %s of %s references, %s/s now, %s/s in the mean, %s left; memory %s MB, disk %s MB", bar(done+already, total), count(int(done+already)), count(int(total)),
			count(int(rate)), count(int(mean)), left, list(w.lastMemory()), list(w.lastDisk()))
	}
}

func bar(done, total int64) string {
	const width = 24
	n := int(done * width / max(total, 1))
	b := []byte("[........................]")
	for i := range min(n, width) {
		b[1+i] = '#'
	}
	return string(b)
}
