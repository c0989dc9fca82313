package outbox

import (
	"bytes"
	"fmt"
	"time"
)

// sweepBatch is how many rows Sweep takes away before others have their turn.
const sweepBatch = 1000

// Sweep takes the rows that have ended out of the outbox and gives how many they
// were, and frees the disk of the oldest files: one in which nothing is wanted any
// more goes, and one that keeps too much of the disk busy is written anew.
func (o *Outbox) Sweep() (int, error) {
	o.sweeping.Lock()
	defer o.sweeping.Unlock()
	ended, err := o.endedRows()
	if err != nil {
		return 0, err
	}
	total := 0
	for len(ended) > 0 {
		batch := ended[:min(sweepBatch, len(ended))]
		ended = ended[len(batch):]
		n, err := o.sweep(batch)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, o.reclaim()
}

func (o *Outbox) endedRows() (ended [][]byte, err error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if err := o.state(); err != nil {
		return nil, err
	}
	for t, table := range o.tables {
		for id, e := range table {
			if o.ended(e.until) {
				ended = append(ended, Key{t, id}.row())
			}
		}
	}
	return ended, nil
}

// sweep forgets those of the rows that still have ended: one may have been
// written anew since it was found. Nothing need be written for it: a row that is
// read again after a restart has ended then too.
func (o *Outbox) sweep(rows [][]byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.state(); err != nil {
		return 0, err
	}
	for _, name := range rows {
		k := Key{Table(name[0]), string(name[1:])}
		e, ok := o.tables[k.Table][k.ID]
		if !ok || !o.ended(e.until) || o.fs != nil && e.row != nil {
			continue
		}
		o.put(k, entry{}, true)
		n++
	}
	return n, nil
}

// reclaim removes oldest files while they are of no use, or the files together
// hold more than twice of what is wanted. Only the oldest may go: a deletion in
// a later file may be about a row in an earlier one.
func (o *Outbox) reclaim() error {
	for {
		s, wanted := o.oldest()
		if s == nil {
			return nil
		}
		if wanted > 0 {
			if err := o.move(s); err != nil {
				return err
			}
		}
		if err := o.drop(s); err != nil {
			return err
		}
	}
}

// oldest gives the oldest file if it should go, and how much in it is wanted.
func (o *Outbox) oldest() (s *segment, wanted int64) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if len(o.segments) < 2 || o.state() != nil {
		return nil, 0
	}
	for _, s := range o.segments {
		wanted += s.live
	}
	s = o.segments[0]
	if held := int64(len(o.segments)) * o.cfg.SegmentSize; s.live > 0 && held <= 2*wanted+2*o.cfg.SegmentSize {
		return nil, 0
	}
	return s, s.live
}

// move writes what is wanted of a file behind everything else.
func (o *Outbox) move(s *segment) error {
	_, _, err := s.scan(func(rows []*row) error {
		w := &write{done: make(chan error, 1)}
		o.mu.RLock()
		for _, r := range rows {
			if r.raw != nil && o.tables[r.Table][r.ID].at == r.from && !o.ended(r.until) {
				c := *r
				c.raw = bytes.Clone(r.raw)
				w.rows, w.size = append(w.rows, &c), w.size+rowSize(&c)
			}
		}
		o.mu.RUnlock()
		if len(w.rows) == 0 {
			return nil
		}
		return o.enqueue(w)
	})
	return err
}

// drop takes the oldest file away, unless something in it is still wanted.
func (o *Outbox) drop(s *segment) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.state(); err != nil {
		return err
	}
	for _, table := range o.tables {
		for id, e := range table {
			if e.at.segment == s && o.ended(e.until) {
				s.live -= int64(e.at.size)
				delete(table, id)
			}
		}
	}
	if s.live != 0 {
		return fmt.Errorf("outbox: %s still holds %d bytes that are wanted", segmentName(s.number), s.live)
	}
	o.segments = o.segments[1:]
	return o.remove(s)
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
