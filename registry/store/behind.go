package store

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/record"
)

// A store that is fed from a durable log need not wait for its disk: what it decided is
// seen at once, and settled, which is in the database and synced, a little later, by a
// goroutine of its own, several batches in one transaction. After a crash the database
// stands at an earlier index, as a whole; whoever feeds the store begins again from there.
//
// mostAbove and mostAboveBytes bound what is decided and not settled: beyond, the applier
// waits. A transaction of the settler takes more than one delta up to settleBytes and
// settleRows, which leaves room for what else one writes, see softBytes. It begins settleAfter
// the first of them was decided, or earlier if half of what may wait does: many rows are
// written by each delta anew, above all the sums of the state's hash, and settled once.
const (
	mostAbove      = 64
	mostAboveBytes = 4 << 20
	settleBytes    = 1 << 20
	settleRows     = 8_192
	settleAfter    = 100 * time.Millisecond
)

// Behind lets the store settle behind what is decided: from now on AppliedIndex,
// WaitApplied and views may be ahead of the disk, and of what a reopened store holds. It
// is for who has everything that it fed since the last Freeze, or Restore, in a durable log
// and feeds it again. Freeze and Close settle first. Call it once, before the store is used; failed is called, once,
// when settling fails, by another goroutine. A store in memory has no use for it.
func (s *Store) Behind(failed func(error)) {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.failing = failed
	s.current.settleBehind(s.failing)
}

// settleBehind begins settling; close ends it.
func (g *generation) settleBehind(failed func(error)) {
	if g.layers == nil || failed == nil {
		return
	}
	g.behind = true
	g.settling.Go(func() {
		if err := g.keepSettling(); err != nil {
			failed(err)
		}
	})
}

// decide makes what w wrote the present. It is settled at once if nobody settles behind,
// or if it is much, as while references are loaded: then it makes a run, which is not to
// wait in memory.
func (g *generation) decide(w *writer, index uint64) error {
	if !g.behind || len(w.pending) > g.layers.recentRows || w.pendingBytes > g.layers.recentBytes {
		if err := g.settled(); err != nil {
			return err
		}
		return g.commit(w, index)
	}
	defer w.discard()
	if err := w.finish(index); err != nil {
		return err
	}
	d := &delta{rows: w.own, bytes: w.bytes + w.pendingBytes}
	for _, k := range w.pending {
		d.rows[k] = w.touched[k].now
	}
	if err := g.until(func() bool { n, bytes := g.waiting(); return n < mostAbove && bytes < mostAboveBytes }); err != nil {
		return err
	}
	w.saved()
	g.advance(func(now *present) *present {
		return &present{base: now.base, above: append(now.above[:len(now.above):len(now.above)], d), cache: now.cache.after(w)}
	})
	return nil
}

// waiting gives how much is decided and not settled. The caller holds mu.
func (g *generation) waiting() (n, bytes int) {
	for _, d := range g.now.above {
		bytes += d.bytes
	}
	return len(g.now.above), bytes
}

// until waits for a condition on the present, or gives why it will not come about.
func (g *generation) until(fn func() bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.broken != nil || fn() {
		return g.broken
	}
	g.hurried++
	defer func() { g.hurried-- }()
	g.moved.Broadcast() // the settler may be gathering
	for g.broken == nil && !fn() {
		g.moved.Wait()
	}
	return g.broken
}

// settled waits until what was decided before the call is settled.
func (g *generation) settled() error {
	g.mu.Lock()
	var last *delta
	if n := len(g.now.above); n > 0 {
		last = g.now.above[n-1]
	}
	g.mu.Unlock()
	return g.until(func() bool { return last == nil || !slices.Contains(g.now.above, last) })
}

// keepSettling settles until stop is called and nothing is left.
func (g *generation) keepSettling() error {
	for {
		g.mu.Lock()
		for len(g.now.above) == 0 && !g.stopping {
			g.moved.Wait()
		}
		g.gather()
		above := g.now.above
		g.mu.Unlock()
		if len(above) == 0 {
			return nil
		}
		c, n := together(above)
		if err := g.settle(c, n); err != nil {
			return g.fail(err)
		}
	}
}

// gather waits, for settleAfter at most, until it is worth a transaction to settle what
// waits, or somebody waits for that. The caller holds mu.
func (g *generation) gather() {
	late := false
	t := time.AfterFunc(settleAfter, func() {
		g.mu.Lock()
		late = true
		g.moved.Broadcast()
		g.mu.Unlock()
	})
	defer t.Stop()
	for !late && !g.stopping && g.hurried == 0 && g.broken == nil {
		if n, bytes := g.waiting(); n >= mostAbove/2 || bytes >= mostAboveBytes/2 {
			return
		}
		g.moved.Wait()
	}
}

// together makes one transaction's worth of the oldest deltas.
func together(above []*delta) (c changed, n int) {
	rows, bytes := above[0].rows, above[0].bytes
	for n = 1; n < len(above); n++ {
		d := above[n]
		if bytes+d.bytes > settleBytes || len(rows)+len(d.rows) > settleRows {
			break
		}
		if n == 1 { // the oldest itself is being read
			rows = maps.Clone(rows)
		}
		for k, v := range d.rows {
			if was, ok := rows[k]; ok { // many are written again and again, as the sums of the hash
				bytes -= len(k) + min(len(was), valueLog) + 16
			}
			rows[k] = v
		}
		bytes += d.bytes
	}
	return changedOf(rows), n
}

// fail keeps anything from being decided any more, and gives the first failure.
func (g *generation) fail(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.broken == nil {
		g.broken = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	g.moved.Broadcast()
	return g.broken
}

// whole gives why nothing may be written any more.
func (g *generation) whole() error { return g.until(func() bool { return true }) }

// stop settles what is left, unless settling failed before.
func (g *generation) stop() {
	g.mu.Lock()
	g.stopping = true
	g.moved.Broadcast()
	g.mu.Unlock()
	g.settling.Wait()
}

// changedOf tells rows of the directory from others.
func changedOf(rows map[string][]byte) changed {
	c := changed{
		value: func(k string) []byte { return rows[k] },
		plain: func(yield func(string, []byte) bool) {
			for k, v := range rows {
				if !record.OfDirectory([]byte(k)) && !yield(k, v) {
					return
				}
			}
		},
	}
	for k, v := range rows {
		if record.OfDirectory([]byte(k)) {
			c.directory = append(c.directory, k)
			c.bytes += len(k) + len(v) + 16
		}
	}
	return c
}
