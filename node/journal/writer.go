package journal

import (
	"fmt"
	"runtime"
)

// What one sync covers, and what comes together, at most; the last to join may go beyond.
const (
	maxGroup      = 1024
	maxGroupBytes = 1 << 20
)

// row is an entry on its way into the index.
type row struct {
	terms    terms
	sequence uint64
	at       location
}

// write is the writer: it alone touches the file being written. It commits all
// that wait with one sync, tells them, and hands them on to the index. It ends
// when the journal closes, after the group in hand.
func (j *Journal) write(index chan<- []row) {
	for {
		select {
		case <-j.closing:
			return
		case first := <-j.queue:
			j.months.RLock()
			group := j.keys.admit(j.gather(first))
			rows, err := j.commit(group)
			j.months.RUnlock()
			for _, p := range group {
				p.done <- err
			}
			if err == nil && len(rows) > 0 {
				index <- rows
			}
		}
	}
}

// gather takes what else waits. It lets others run first: those whom the last
// group woke are about to come back.
func (j *Journal) gather(group []*pending) []*pending {
	runtime.Gosched()
	size := 0
	for _, p := range group {
		size += len(p.entry)
	}
	for len(group) < maxGroup && size < maxGroupBytes {
		select {
		case more := <-j.queue:
			group = append(group, more...)
			for _, p := range more {
				size += len(p.entry)
			}
		default:
			return group
		}
	}
	return group
}

// commit makes a group durable. After an error nothing more is ever written.
func (j *Journal) commit(group []*pending) ([]row, error) {
	if err := j.failure.Load(); err != nil {
		return nil, *err
	}
	if len(group) == 0 {
		return nil, nil
	}
	rows, err := j.writeGroup(group)
	if err != nil {
		return nil, j.fail(err)
	}
	j.durable.Add(uint64(len(group)))
	return rows, nil
}

func (j *Journal) writeGroup(group []*pending) ([]row, error) {
	next := j.durable.Load()
	buf := j.buf[:0]
	rows := make([]row, len(group))
	for i, p := range group {
		month := periodOf(p.terms.time)
		key, err := j.keys.make(month)
		if err != nil {
			return nil, err
		}
		p.sequence = next + uint64(i)
		rows[i] = row{p.terms, p.sequence, location{offset: int64(len(buf))}}
		h := header{place: uint32(i), period: month, sequence: p.sequence, commitment: p.commitment}
		buf = appendRecord(buf, h, key.aead, p.salt, p.entry)
	}
	if j.buf = buf; cap(j.buf) > 2*maxGroupBytes {
		j.buf = nil // one of unusual size; it is not kept
	}
	if err := j.makeRoom(int64(len(buf)), next); err != nil {
		return nil, err
	}
	s := j.seg
	if _, err := s.file.WriteAt(buf, s.end); err != nil {
		return nil, fmt.Errorf("write %s: %w", segmentName(s.first), err)
	}
	if err := s.file.Sync(); err != nil {
		return nil, fmt.Errorf("sync %s: %w", segmentName(s.first), err)
	}
	for i := range rows {
		rows[i].at.segment = s.first
		rows[i].at.offset += s.end
	}
	s.end += int64(len(buf))
	return rows, nil
}

// makeRoom begins a new segment when the present one is full, and keeps zeros
// ahead of the writing.
func (j *Journal) makeRoom(size int64, next uint64) error {
	if j.seg.end > segmentHead && j.seg.end+size > j.cfg.SegmentSize {
		s, err := j.beginSegment(next)
		if err != nil {
			return err
		}
		if err := j.seg.file.Close(); err != nil {
			s.file.Close()
			return err
		}
		j.seg = s
	}
	if j.seg.end+size <= j.seg.filled {
		return nil
	}
	return j.seg.fill(j.seg.end+size, j.cfg.ChunkSize)
}
