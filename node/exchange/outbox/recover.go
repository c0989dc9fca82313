package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
)

// unfinished is the name of a file that is being begun.
const unfinished = "begun.tmp"

// begin makes a file durable under its name, with groups of rows in it, and gives
// it ready for more. A crash leaves the whole file or none.
func (o *Outbox) begin(number, replaces uint64, groups [][]*row) (_ *segment, err error) {
	if err := o.fs.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s := &segment{number: number, replaces: replaces, end: segmentHead}
	head, err := s.header(o.files)
	if err != nil {
		return nil, err
	}
	if s.file, err = o.fs.Open(unfinished, true); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.file.Close()
			err = fmt.Errorf("begin %s: %w", segmentName(number), err)
		}
	}()
	if _, err := s.file.WriteAt(head, 0); err != nil {
		return nil, err
	}
	s.filled = segmentHead
	for _, rows := range groups {
		b := s.appendGroup(nil, rows)
		if _, err := s.file.WriteAt(b, s.end); err != nil {
			return nil, err
		}
		for i, at := range s.placesOf(b, rows) {
			rows[i].from = at
		}
		s.end += int64(len(b))
		s.filled = s.end
		s.groups++
	}
	if err := s.fill(s.end+1, o.cfg.ChunkSize); err != nil {
		return nil, err
	}
	if err := o.fs.Rename(unfinished, segmentName(number)); err != nil {
		return nil, err
	}
	return s, o.fs.SyncDir()
}

// recover reads all files and begins a new one.
//
// The last file is written once more, under a new number and key: behind its end
// may lie a group that was never synced, and after a failed sync the system may
// show bytes that it has given up bringing to disk. Writing in it again would also
// use a nonce twice.
func (o *Outbox) recover() error {
	if err := o.openSegments(); err != nil {
		return err
	}
	var last *segment
	var groups [][]*row
	for i, s := range o.segments {
		isLast := i == len(o.segments)-1
		end, count, err := s.scan(func(rows []*row) error {
			o.replay(rows)
			if isLast {
				groups = append(groups, clone(rows))
			}
			return nil
		})
		if err == nil {
			err = s.judgeTail(end, count, isLast, o)
		}
		if err != nil {
			return err
		}
		last = s
	}
	var number, replaces uint64
	if last != nil {
		number, replaces = last.number, last.number
	}
	s, err := o.begin(number+1, replaces, groups)
	if err != nil {
		return err
	}
	for _, rows := range groups {
		o.replay(rows)
	}
	o.head, o.segments = s, append(o.segments, s)
	if last == nil {
		return nil
	}
	o.segments = append(o.segments[:len(o.segments)-2], s)
	return o.remove(last)
}

// openSegments opens all files but those that another replaces, which it removes.
func (o *Outbox) openSegments() error {
	all, err := numbers(o.fs)
	if err != nil {
		return err
	}
	for _, n := range all {
		f, err := o.fs.Open(segmentName(n), false)
		if err != nil {
			return err
		}
		s := &segment{number: n, file: f}
		o.segments = append(o.segments, s)
		if err := s.readHeader(o.files); err != nil {
			return err
		}
		if k := len(o.segments); k > 1 && s.replaces == o.segments[k-2].number {
			old := o.segments[k-2]
			o.segments = append(o.segments[:k-2], s)
			if err := o.remove(old); err != nil {
				return err
			}
		}
	}
	return nil
}

// replay lets rows take effect that are where they say.
func (o *Outbox) replay(rows []*row) {
	for _, r := range rows {
		o.put(r.Key, entry{at: r.from, until: r.until}, r.raw == nil)
	}
}

func clone(rows []*row) []*row {
	copies := make([]*row, len(rows))
	for i, r := range rows {
		c := *r
		c.raw = append([]byte(nil), r.raw...)
		copies[i] = &c
	}
	return copies
}

// judgeTail decides whether what lies behind the whole groups can only be a group
// that nobody was told of. A group is written only once the one before it is
// durable, so a later one behind it proves that something is missing.
func (s *segment) judgeTail(end int64, groups uint64, last bool, o *Outbox) error {
	tail, err := io.ReadAll(io.NewSectionReader(s.file, end, math.MaxInt64-end))
	if err != nil {
		return err
	}
	if allZero(tail) {
		return nil
	}
	if !last {
		return s.damaged(end, "it is unreadable, and later files were written")
	}
	for at := 0; at+groupHead <= len(tail); at += alignment {
		index := binary.LittleEndian.Uint64(tail[at+16:])
		if index <= groups {
			continue
		}
		if _, ok := s.readGroup(tail[at:], index, end+int64(at)); ok {
			return s.damaged(end, "it is unreadable, yet a later write stands behind it")
		}
	}
	o.cfg.Log.Warn("outbox: dropped a half-written group that nobody was told of", "file", segmentName(s.number), "offset", end)
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// remove closes a file and takes it off the disk, durably: an older one must not
// outlive one that holds deletions.
func (o *Outbox) remove(s *segment) error {
	if err := errors.Join(s.file.Close(), o.fs.Remove(segmentName(s.number))); err != nil {
		return err
	}
	return o.fs.SyncDir()
}
