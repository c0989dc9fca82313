package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// Reader reads a journal's log without the index, beside a node that writes it or when
// none does. It takes no lock and changes nothing. It sees what lay there when it was
// opened: what is erased later stays readable to it. It is for one goroutine.
type Reader struct {
	j    *Journal // without index, writer and lock
	next uint64
}

// OpenReader opens the log that lies in cfg.Dir (or cfg.FS) with cfg.Key. Closing is not
// needed. The errors are those of Open.
func OpenReader(cfg Config) (*Reader, error) {
	if len(cfg.Key) != KeySize {
		return nil, fmt.Errorf("journal: the storage key has %d bytes, want %d", len(cfg.Key), KeySize)
	}
	j := &Journal{cfg: cfg, fs: cfg.FS, log: slog.New(slog.DiscardHandler)}
	if j.fs == nil {
		dir := filepath.Join(cfg.Dir, "log")
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("there is no journal: %w", err)
		}
		var err error
		if j.fs, err = disk.OpenDir(dir); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
	}
	if err := j.openKept(); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", cfg.Dir, err)
	}
	r := &Reader{j: j}
	firsts, err := segments(j.fs)
	if err != nil || len(firsts) == 0 {
		return r, err
	}
	// Behind the last valid record lies nothing that anybody was told of, or damage
	// that the node finds when it opens the journal.
	last := firsts[len(firsts)-1]
	f, err := j.fs.Open(segmentName(last), false)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	end, err := scan(f, last, math.MaxUint64, func(location, header, []byte) error { return nil })
	r.next = end.sequence
	return r, err
}

// FS gives the files that the log lies in.
func (r *Reader) FS() disk.FS { return r.j.fs }

// Next gives the number of entries.
func (r *Reader) Next() uint64 { return r.next }

// Erasures gives the erased months, in order.
func (r *Reader) Erasures() []*Erasure { return r.j.Erasures(time.Time{}, time.Time{}) }

// Each gives fn the entries from <= sequence < until, in order. Of an erased one it
// gives Sequence and Commitment alone. The error wraps ErrCorrupt when one is missing
// or cannot be read.
func (r *Reader) Each(ctx context.Context, from, until uint64, fn func(Stored) error) error {
	return r.j.scanAll(from, until, func(at location, h header, b []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s, err := r.j.decrypt(at, h, b)
		if errors.Is(err, ErrErased) {
			s, err = Stored{Sequence: h.sequence, Commitment: h.commitment}, nil
		}
		if err != nil {
			return err
		}
		return fn(s)
	})
}

// Commitments gives fn the commitments to the entries from <= sequence < until.
func (r *Reader) Commitments(ctx context.Context, from, until uint64, fn func(sequence uint64, c [CommitmentSize]byte) error) error {
	return r.j.scanAll(from, until, func(_ location, h header, _ []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fn(h.sequence, h.commitment)
	})
}

// Span gives the shortest run of entries, first <= sequence < end, that holds every entry
// with from <= time < until; others may lie between. A zero time bounds nothing; an
// erased entry counts with its whole month. When there is none, first == end.
func (r *Reader) Span(ctx context.Context, from, until time.Time) (first, end uint64, err error) {
	if from.IsZero() && until.IsZero() {
		return 0, r.next, nil
	}
	found := false
	err = r.j.scanAll(0, r.next, func(at location, h header, b []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		in, err := r.within(at, h, b, from, until)
		if in && !found {
			first, found = h.sequence, true
		}
		if in {
			end = h.sequence + 1
		}
		return err
	})
	return first, end, err
}

// within decrypts only where the month does not decide.
func (r *Reader) within(at location, h header, b []byte, from, until time.Time) (bool, error) {
	afterFrom := from.IsZero() || h.period > periodOf(from)
	beforeUntil := until.IsZero() || h.period < periodOf(until)
	switch {
	case afterFrom && beforeUntil:
		return true, nil
	case !from.IsZero() && h.period < periodOf(from), !until.IsZero() && h.period > periodOf(until):
		return false, nil
	}
	s, err := r.j.decrypt(at, h, b)
	if errors.Is(err, ErrErased) {
		return until.IsZero() || h.period <= periodOf(until.Add(-1)), nil
	}
	if err != nil {
		return false, err
	}
	t := time.UnixMilli(s.Entry.TimeUnixMs)
	return !t.Before(from) && (until.IsZero() || t.Before(until)), nil
}
