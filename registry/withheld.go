package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/agree"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// A member that lies can keep a removal from those who hear of the registry through it,
// and sign them grants as of before (DESIGN.md, "Removals that a liar keeps back"). So every
// replica also asks each other member directly, twice a lease, what it holds that took a
// right away. The answer needs no trust: it is commands as their authors signed them, and this
// replica judges them. One that it would accept, and lacks, ends its standing until it has it.

const (
	// removalCommands and removalBytes bound an answer, of which the last command may pass the
	// second; removalPasts bounds what is asked.
	removalCommands = 256
	removalBytes    = 256 << 10
	removalPasts    = 40
)

// withheld is what other members hold and this replica lacks. It is safe for concurrent use.
type withheld struct {
	turn chan struct{} // buffered: follow somebody else

	mu       sync.Mutex
	asked    time.Time // when the last round began that ended; its monotonic reading
	wall     time.Time // and its wall clock
	lacking  map[names.NodeID]map[agree.CommandHash]*lack
	insisted bool // somebody finds out what became of one
}

// lack is a removal that a member showed.
type lack struct {
	by       names.NodeID
	envelope []byte
	since    time.Time // it counts from then on
	told     bool      // it is in the log
}

func newWithheld() withheld {
	return withheld{turn: make(chan struct{}, 1), lacking: make(map[names.NodeID]map[agree.CommandHash]*lack)}
}

// HandleRemovals answers MethodRemovals on a member: public commands that the asker may lack.
// They are signed by their authors, and nothing else of the answer counts.
func (r *Registry) HandleRemovals(ctx context.Context, from names.NodeID, req *registrypb.RemovalsRequest) (*registrypb.RemovalsResponse, error) {
	if r.member == nil {
		return nil, ErrNotMember
	}
	_, leave, err := r.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := r.admitted(from); err != nil {
		return nil, err
	}
	if len(req.GetPasts()) > removalPasts {
		return nil, fmt.Errorf("%w: %d points of a history, at most %d are read", ErrMalformed, len(req.Pasts), removalPasts)
	}
	resp := new(registrypb.RemovalsResponse)
	err = r.store.View(func(v record.View) error {
		next, err := parted(v, req.GetPasts())
		if err != nil {
			return err
		}
		resp.Envelopes, err = removalsFrom(v, next)
		return err
	})
	return resp, err
}

// parted gives the first index after which a history may differ from this one.
func parted(v record.View, pasts []*registrypb.Past) (next uint64, err error) {
	for _, p := range pasts {
		shared, err := v.Shares(record.Past{Index: p.GetIndex(), Hash: p.GetHash()}, p.GetIndex())
		if err != nil {
			return 0, err
		}
		if shared {
			return p.GetIndex() + 1, nil
		}
	}
	return 1, nil
}

// removalsFrom gives public commands from an index on, up to the last that took a right away.
func removalsFrom(v record.View, next uint64) (envelopes [][]byte, err error) {
	commands, err := v.VisibleTo("", next, removalCommands, removalBytes)
	if err != nil {
		return nil, err
	}
	last := 0
	for i, c := range commands {
		envelopes = append(envelopes, c.Envelope)
		hash, _, err := commandOf(c.Envelope)
		if err != nil {
			return nil, err
		}
		_, removes, err := v.AcceptedAt(hash[:])
		if err != nil {
			return nil, err
		}
		if removes {
			last = i + 1
		}
	}
	return envelopes[:last], nil
}

// hearing is when members are asked for removals. One that an honest member holds is heard
// within valid, and heeded a grace later: together no more than what whoever takes a right
// away is made to wait (revocationBound).
type hearing struct {
	every  time.Duration // a round begins
	within time.Duration // an answer is waited for
	valid  time.Duration // how long ago the last round that ended may have begun
	grace  time.Duration // how long a removal may be on its way to this replica after another member holds it
}

func (r *Registry) hearing() hearing {
	b := r.cfg.Genesis.Bounds
	spare := (b.ReleaseLife + 2*b.Skew) / 2
	return hearing{b.Lease / 2, b.Lease / 5, b.Lease + min(b.Lease, spare), min(b.Lease/4, spare)}
}

// keepListening asks every other member, round after round, until ctx ends.
func (r *Registry) keepListening(ctx context.Context) error {
	var insisting sync.WaitGroup
	defer insisting.Wait()
	h := r.hearing()
	begin := time.NewTicker(h.every)
	defer begin.Stop()
	for {
		if err := r.listen(ctx); err != nil {
			return err
		}
		// A grace later than it ended the standing: who starts lacks much for a moment.
		if hash, l := r.overdue(h.grace); l != nil {
			insisting.Go(func() { r.insist(ctx, hash, l) })
		}
		select {
		case <-begin.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// listen is one round.
func (r *Registry) listen(ctx context.Context) error {
	members, err := r.voters()
	if err != nil {
		return err
	}
	w := &r.withheld
	began, wall := time.Now(), r.cfg.Now().Round(0)
	w.mu.Lock()
	first := w.asked.IsZero()
	w.mu.Unlock()
	h := r.hearing()
	since := began.Add(h.grace)
	if first { // it comes from nowhere, so nothing is on its way
		since = began
	}
	req := new(registrypb.RemovalsRequest)
	err = r.store.View(func(v record.View) error {
		pasts, err := v.Pasts()
		for _, p := range pasts {
			req.Pasts = append(req.Pasts, &registrypb.Past{Index: p.Index, Hash: p.Hash})
		}
		return err
	})
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, h.within)
	defer cancel()
	var wg sync.WaitGroup
	current := make(map[names.NodeID]bool)
	for _, m := range members {
		if current[m] = true; m == r.cfg.Self {
			continue
		}
		wg.Go(func() {
			if err := r.hear(asking, m, req, since); err != nil && ctx.Err() == nil {
				r.cfg.Log.Debug("registry: a member says nothing of removals", "member", m.String(), "error", err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked, w.wall = began, wall
	for m := range w.lacking {
		if !current[m] {
			delete(w.lacking, m)
		}
	}
	return nil
}

// hear asks one member, and notes what this replica lacks.
func (r *Registry) hear(ctx context.Context, m names.NodeID, req *registrypb.RemovalsRequest, since time.Time) error {
	resp := new(registrypb.RemovalsResponse)
	if err := r.cfg.Peers.Call(ctx, m, MethodRemovals, req, resp); err != nil {
		return err
	}
	missing, err := r.missing(resp.Envelopes)
	if err != nil {
		return err
	}
	w := &r.withheld
	w.mu.Lock()
	defer w.mu.Unlock()
	for hash, l := range missing {
		if before := w.lacking[m][hash]; before != nil {
			missing[hash] = before
		} else {
			l.by, l.since = m, since
		}
	}
	w.lacking[m] = missing
	return nil
}

// missing gives those of the commands that would take a right away here, and have not.
func (r *Registry) missing(envelopes [][]byte) (map[agree.CommandHash]*lack, error) {
	if len(envelopes) == 0 {
		return nil, nil
	}
	if len(envelopes) > removalCommands {
		return nil, fmt.Errorf("%w: %d commands, at most %d are read", ErrMalformed, len(envelopes), removalCommands)
	}
	results, err := r.store.Try(envelopes)
	if err != nil {
		return nil, err
	}
	found := make(map[agree.CommandHash]*lack)
	for i, res := range results {
		if !res.Accepted || res.Repeated || !res.RemovesRight {
			continue
		}
		hash, _, err := commandOf(envelopes[i])
		if err != nil {
			return nil, err
		}
		found[hash] = &lack{envelope: envelopes[i]}
	}
	return found, nil
}

// has reports whether this replica holds a command by now.
func (r *Registry) has(hash agree.CommandHash) (index uint64, err error) {
	err = r.store.View(func(v record.View) (err error) {
		index, _, err = v.AcceptedAt(hash[:])
		return err
	})
	return index, err
}

// nothingWithheld says why this replica cannot be relied on, as far as other members showed.
func (r *Registry) nothingWithheld() error {
	valid := r.hearing().valid
	w := &r.withheld
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked.IsZero() {
		return errors.New("not every member was asked yet what takes rights away")
	}
	if time.Since(w.asked) > valid || r.cfg.Now().Round(0).Sub(w.wall) > valid+r.cfg.Genesis.Bounds.Skew {
		return errors.New("the members have not been asked for too long what takes rights away")
	}
	if hash, l := w.overdue(r, 0); l != nil {
		return fmt.Errorf("a member shows a removal of a right that this replica lacks, command %x", hash[:8])
	}
	return nil
}

// overdue gives a removal that this replica lacks although it had time to come, and more.
func (r *Registry) overdue(more time.Duration) (agree.CommandHash, *lack) {
	w := &r.withheld
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.overdue(r, more)
}

// overdue is that of the registry r, whose withheld this is; the caller holds mu.
func (w *withheld) overdue(r *Registry, more time.Duration) (agree.CommandHash, *lack) {
	for _, lacking := range w.lacking {
		for hash, l := range lacking {
			if time.Since(l.since) < more {
				continue
			}
			if index, err := r.has(hash); err == nil && index > 0 {
				delete(lacking, hash)
				continue
			}
			return hash, l
		}
	}
	return agree.CommandHash{}, nil
}

// insist finds out what became of a removal that this replica lacks. Most members hold it
// at an index that this replica has passed: its copy has a gap, and is given up. At a later
// one: it comes, from another member. Nobody decided it: then its author may have handed it
// in where it was kept, and it is handed in here.
func (r *Registry) insist(ctx context.Context, hash agree.CommandHash, l *lack) {
	w := &r.withheld
	w.mu.Lock()
	busy, told := w.insisted, l.told
	w.insisted = true
	l.told = l.told || !busy
	w.mu.Unlock()
	if busy {
		return
	}
	defer func() {
		w.mu.Lock()
		w.insisted = false
		w.mu.Unlock()
	}()
	if !told {
		r.cfg.Log.Error("registry: a member shows a removal of a right that this replica lacks: it stands no more until it has it. Whom it follows keeps it back, or nobody decided it",
			"member", l.by.String(), "index", r.store.AppliedIndex(), "command_sha256", fmt.Sprintf("%x", hash[:]))
	}
	select {
	case w.turn <- struct{}{}:
	default:
	}
	asking, cancel := context.WithTimeout(ctx, r.cfg.Genesis.Bounds.Lease)
	defer cancel()
	states, err := r.majority(asking, &registrypb.StateRequest{Command: hash[:]}, func(s agree.State) bool { return s.Command == hash })
	if err == nil {
		if index, err := r.has(hash); r.member == nil && err == nil && index == 0 && states[0].CommandIndex <= r.store.AppliedIndex() {
			r.failed(r.giveUp())
		}
		return
	}
	if ctx.Err() != nil {
		return
	}
	handing, stop := context.WithTimeout(ctx, r.revocationBound())
	defer stop()
	if _, err := r.Submit(handing, l.envelope); err != nil && ctx.Err() == nil {
		r.cfg.Log.Warn("registry: a removal that this replica lacks was handed in, and is not acknowledged", "error", err)
	}
}
