package outbox

import (
	"fmt"
	"runtime"
	"time"
)

const (
	// What one sync covers at most, a single larger write aside.
	maxGroup      = 1024
	maxGroupBytes = 1 << 20
	// lazyFor is how long a lazy change waits for a write that it can go with.
	lazyFor = 250 * time.Millisecond
)

// write is what one caller waits for.
type write struct {
	rows []*row
	size int
	done chan error // takes one
}

// enqueue hands a write to the writer and waits.
func (o *Outbox) enqueue(w *write) error {
	o.mu.RLock()
	err := o.state()
	o.mu.RUnlock()
	if err != nil {
		return err
	}
	select {
	case o.queue <- w:
	case <-o.stopped:
		return ErrClosed
	}
	select {
	case err := <-w.done:
		return err
	case <-o.stopped:
	}
	select {
	case err := <-w.done: // the writer's last
		return err
	default:
		return ErrClosed
	}
}

// run is the writer: it alone writes. It takes all that wait into one group, makes
// that durable with one sync, and tells them. It ends when the outbox closes,
// after what waits.
func (o *Outbox) run() {
	var flush <-chan time.Time
	for {
		select {
		case w := <-o.queue:
			runtime.Gosched() // those whom the last group woke are about to come back
			o.commit(o.gather(w))
			flush = nil
		case <-o.nudge:
			if flush == nil {
				flush = time.After(lazyFor)
			}
		case <-flush:
			o.commit(nil)
			flush = nil
		case <-o.closing:
			for {
				select {
				case w := <-o.queue:
					o.commit(o.gather(w))
					continue
				default:
				}
				o.commit(nil)
				return
			}
		}
	}
}

// gather takes what else waits.
func (o *Outbox) gather(w *write) []*write {
	group, size := []*write{w}, w.size
	for len(group) < maxGroup && size < maxGroupBytes {
		select {
		case w := <-o.queue:
			group = append(group, w)
			size += w.size
		default:
			return group
		}
	}
	return group
}

// commit makes a group durable, and with it what waits lazily, and then lets it be
// seen. After an error nothing more is ever written.
func (o *Outbox) commit(group []*write) {
	err := o.commitRows(group)
	for _, w := range group {
		w.done <- err
	}
}

func (o *Outbox) commitRows(group []*write) error {
	rows, err := o.order(group)
	if err != nil || len(rows) == 0 {
		return err
	}
	places, err := o.append(rows)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.failed = fmt.Errorf("%w (%v)", ErrFailed, err)
		return err
	}
	for i, r := range rows {
		e, ok := o.tables[r.Table][r.ID]
		switch {
		case e.row != nil && e.row != r:
			// A lazy change came after this one. It is written later, and wins.
		case r.from.segment != nil && (!ok || e.at != r.from):
			// The row was changed while it was being moved.
		default:
			o.put(r.Key, entry{at: places[i], until: r.until}, r.raw == nil)
		}
	}
	return nil
}

// order gives the rows of a group in the order in which they take effect: rows
// that are moved are older than anything else, lazy ones were seen before.
func (o *Outbox) order(group []*write) (rows []*row, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed != nil {
		return nil, o.failed
	}
	var fresh []*row
	for _, w := range group {
		for _, r := range w.rows {
			if r.from.segment == nil {
				fresh = append(fresh, r)
			} else if o.tables[r.Table][r.ID].at == r.from {
				rows = append(rows, r)
			}
		}
	}
	rows = append(append(rows, o.lazy...), fresh...)
	o.lazy = nil
	return rows, nil
}

// append writes rows behind what is there, durably, and gives where they are.
func (o *Outbox) append(rows []*row) ([]place, error) {
	size := groupHead + 64
	for _, r := range rows {
		size += rowSize(r)
	}
	if o.head.end > segmentHead && o.head.end+int64(size) > o.cfg.SegmentSize {
		if err := o.roll(); err != nil {
			return nil, err
		}
	}
	s := o.head
	if cap(o.buf) < size {
		o.buf = make([]byte, 0, size)
	}
	b := s.appendGroup(o.buf[:0], rows)
	if o.buf = b; cap(b) > 2*maxGroupBytes {
		o.buf = nil // one of unusual size; it is not kept
	}
	if err := s.fill(s.end+int64(len(b)), o.cfg.ChunkSize); err != nil {
		return nil, err
	}
	if _, err := s.file.WriteAt(b, s.end); err != nil {
		return nil, fmt.Errorf("write %s: %w", segmentName(s.number), err)
	}
	if err := s.file.Sync(); err != nil {
		return nil, fmt.Errorf("sync %s: %w", segmentName(s.number), err)
	}
	places := s.placesOf(b, rows)
	s.end += int64(len(b))
	s.groups++
	return places, nil
}

// placesOf gives where the values of a group lie that is about to count.
func (s *segment) placesOf(group []byte, rows []*row) []place {
	_, names, _ := s.groupSize(group)
	places := make([]place, len(rows))
	at := s.end + groupHead + int64(names)
	for i, r := range rows {
		if r.raw != nil {
			places[i] = place{s, at, int32(len(r.raw))}
		}
		at += int64(len(r.raw))
	}
	return places
}

// roll begins the next file.
func (o *Outbox) roll() error {
	s, err := o.begin(o.head.number+1, 0, nil)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.head, o.segments = s, append(o.segments, s)
	return nil
}

var zeros [64 << 10]byte

// fill writes zeros ahead up to at least to, in whole chunks, durably: writing
// over them later changes no size and no allocation, so that a commit is one
// plain write and a sync of data alone.
func (s *segment) fill(to, chunk int64) error {
	if to <= s.filled {
		return nil
	}
	to = (to + chunk - 1) / chunk * chunk
	for s.filled < to {
		n, err := s.file.WriteAt(zeros[:min(int64(len(zeros)), to-s.filled)], s.filled)
		if err != nil {
			return fmt.Errorf("zero-fill %s: %w", segmentName(s.number), err)
		}
		s.filled += int64(n)
	}
	return s.file.Sync()
}
