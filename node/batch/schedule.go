package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const (
	ackWorkers  = 2
	ackTimeout  = 2 * time.Second
	idle        = time.Minute // between two looks when nothing happens
	firstPause  = 250 * time.Millisecond
	longestRest = 30 * time.Second
)

// acknowledgement tells a supplier that its answer is held here.
type acknowledgement struct {
	to  names.NodeID
	msg *nodepb.ChunkAcknowledgement
}

// later says why a chunk cannot be finished now.
type later struct {
	why   string
	after time.Duration // 0: as the number of tries says
	// busy: whoever was asked answers, only not now. That may last as long as it will.
	busy bool
}

func (l *later) Error() string { return l.why }

// job is one thing to do: a chunk, or the end of a lot.
type job struct {
	l     *lot
	chunk int // -1: write its end
	// giveUp: whoever does not answer now is not waited for any more.
	giveUp bool
}

// Run works on the lots until ctx is done. It returns when all it started has ended.
func (c *Consultant) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for range ackWorkers {
		all.Go(func() { c.sendAcks(ctx) })
	}
	for range c.cfg.AtOnce {
		all.Go(func() { c.worker(ctx) })
	}
	<-ctx.Done()
	return nil
}

func (c *Consultant) worker(ctx context.Context) {
	for ctx.Err() == nil {
		j, wait := c.next()
		if j == nil {
			t := time.NewTimer(wait)
			select {
			case <-c.wake:
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
			continue
		}
		c.nudge() // there may be more, for others
		if j.chunk < 0 {
			c.end(ctx, j.l)
			continue
		}
		c.finished(ctx, j, c.work(ctx, j))
	}
}

// next gives what is to be done, each lot in its turn; else how long there is nothing.
func (c *Consultant) next() (*job, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	wait := idle
	open := c.cfg.Window.Opens(now)
	c.forgetOld(now)
	for i, t := range c.turn {
		l := c.lots[t]
		j, w := c.jobOf(l, now, open)
		if j == nil {
			wait = min(wait, w)
			continue
		}
		// The next look begins with the lot behind it.
		c.turn = append(append(append([]names.Ticket{}, c.turn[i+1:]...), c.turn[:i]...), t)
		return j, 0
	}
	return nil, max(wait, time.Millisecond)
}

func (c *Consultant) jobOf(l *lot, now time.Time, opens time.Duration) (*job, time.Duration) {
	running := l.kept.State == nodepb.LotState_LOT_RUNNING
	over := running && l.allDone() || l.kept.State == nodepb.LotState_LOT_CANCELLED && l.kept.EndedUnixMs == 0
	if over && len(l.inFlight) == 0 && !l.ending {
		if at := l.notBefore[-1]; at.After(now) {
			return nil, at.Sub(now)
		}
		l.ending = true
		return &job{l: l, chunk: -1}, 0
	}
	if !running || opens > 0 {
		return nil, min(max(opens, time.Second), idle)
	}
	wait, left := idle, false
	for i := l.cursor; i < int(l.kept.Chunks); i++ {
		if l.done(i) {
			if !left {
				l.cursor = i + 1
			}
			continue
		}
		left = true
		if l.inFlight[i] {
			continue
		}
		if at := l.notBefore[i]; at.After(now) {
			wait = min(wait, at.Sub(now))
			continue
		}
		l.inFlight[i] = true
		failed := l.failedAt[i]
		return &job{l: l, chunk: i, giveUp: !failed.IsZero() && now.Sub(failed) > c.cfg.Patience}, 0
	}
	return nil, wait
}

// finished takes note of what became of a chunk that was worked on.
func (c *Consultant) finished(ctx context.Context, j *job, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, i := j.l, j.chunk
	delete(l.inFlight, i)
	c.nudge()
	if err == nil {
		delete(l.failedAt, i)
		delete(l.notBefore, i)
		delete(l.tries, i)
		if len(l.failedAt) == 0 {
			l.waits = ""
		}
		return
	}
	if ctx.Err() != nil {
		return
	}
	now := c.cfg.Now()
	var wait *later
	rest := min(firstPause<<min(l.tries[i], 7), longestRest)
	if errors.As(err, &wait) && wait.after > 0 {
		rest = min(wait.after, time.Minute)
	}
	l.tries[i]++
	if l.failedAt[i].IsZero() || wait != nil && wait.busy {
		l.failedAt[i] = now
	}
	l.notBefore[i] = now.Add(rest)
	l.waits = err.Error()
	c.cfg.Log.Info("a chunk of a lot waits", "ticket", string(l.Ticket), "chunk", i, "for", rest, "why", err)
}

// finish makes the end of a chunk durable: its results are, and its journal entries.
func (c *Consultant) finish(l *lot, i int, tally map[string]uint64, done ...outbox.Change) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.kept.Tally == nil {
		l.kept.Tally = map[string]uint64{}
	}
	l.kept.Done[i/8] |= 1 << (i % 8)
	for k, n := range tally {
		l.kept.Tally[k] += n
	}
	if err := c.keep(l, done...); err != nil {
		l.kept.Done[i/8] &^= 1 << (i % 8)
		for k, n := range tally {
			l.kept.Tally[k] -= n
		}
		return err
	}
	return nil
}

// end journals that a lot has ended, once, and lets its results be taken.
func (c *Consultant) end(ctx context.Context, l *lot) {
	err := c.writeEnd(ctx, l)
	c.mu.Lock()
	defer c.mu.Unlock()
	l.ending = false
	if err != nil {
		l.waits, l.notBefore[-1] = err.Error(), c.cfg.Now().Add(longestRest)
		c.cfg.Log.Error("the end of a lot could not be written; it is tried again", "ticket", string(l.Ticket), "err", err)
	}
}

func (c *Consultant) writeEnd(ctx context.Context, l *lot) error {
	now := c.cfg.Now()
	there, err := stands(ctx, c.cfg.Journal, string(l.Ticket), nil, time.UnixMilli(l.TimeUnixMs), func(e *nodepb.Entry) bool { return e.Event == nodepb.Event_LOT_ENDED })
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := orderEntry(now, nodepb.Role_CONSULTANT, nodepb.Event_LOT_ENDED, l.Order)
	e.Lot = &nodepb.LotPart{Lines: l.Lines, Subjects: l.kept.Subjects}
	asked := uint64(0)
	for _, n := range l.kept.Tally {
		asked += n
	}
	state := nodepb.LotState_LOT_DONE
	if l.kept.State == nodepb.LotState_LOT_CANCELLED {
		state = l.kept.State
		e.Reason = registrypb.Reason_LOT_CANCELLED
	}
	e.Detail = fmt.Sprintf("%d of %d lines have a result", asked, l.Lines)
	if !there {
		if err := appendEntry(ctx, c.cfg.Journal, e); err != nil {
			return err
		}
	}
	before, ended, until := l.kept.State, l.kept.EndedUnixMs, l.kept.UntilUnixMs
	l.kept.State, l.kept.EndedUnixMs, l.kept.UntilUnixMs = state, now.UnixMilli(), now.Add(c.cfg.Keep).UnixMilli()
	if err := c.keep(l); err != nil {
		l.kept.State, l.kept.EndedUnixMs, l.kept.UntilUnixMs = before, ended, until
		return err
	}
	l.waits = ""
	c.cfg.Log.Info("a lot has ended", "ticket", string(l.Ticket), "state", StateName(state), "lines", l.Lines)
	return nil
}

// forgetOld drops lots whose results nobody took while they were kept. The caller holds mu.
func (c *Consultant) forgetOld(now time.Time) {
	for _, t := range append([]names.Ticket{}, c.turn...) {
		if l := c.lots[t]; l.kept.UntilUnixMs > 0 && now.UnixMilli() > l.kept.UntilUnixMs {
			c.cfg.Log.Warn("a lot is forgotten whose results nobody acknowledged", "ticket", string(t))
			c.forget(l)
		}
	}
}

func (c *Consultant) acknowledge(to names.NodeID, requestHash []byte) {
	select {
	case c.acks <- acknowledgement{to, &nodepb.ChunkAcknowledgement{RequestHash: requestHash}}:
	default: // the supplier forgets when the answer's life ends
	}
}

func (c *Consultant) sendAcks(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-c.acks:
			limited, cancel := context.WithTimeout(ctx, ackTimeout)
			if _, err := c.cfg.Peers.AcknowledgeChunk(limited, a.to, a.msg); err != nil {
				c.cfg.Log.Debug("acknowledgement of a chunk not delivered", "peer", a.to.String(), "err", err)
			}
			cancel()
		}
	}
}
