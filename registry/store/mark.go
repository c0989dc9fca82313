package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

// read calls fn with the rows as they stand at one index.
func (s *Store) read(fn func(r rows) error) error {
	g, err := s.use()
	if err != nil {
		return err
	}
	defer g.users.Done()
	r := g.view()
	defer r.end()
	return fn(r.rows)
}

// Marks gives the marks that are kept, of from and later, in order: a few hundred at
// most.
func (s *Store) Marks(from uint64) (marks []Mark, err error) {
	err = s.read(func(r rows) error {
		start := record.StateHashKey(hashMark, binary.BigEndian.AppendUint64(nil, from)...)
		return r.Scan(record.StateHashKey(hashMark), start, func(k, v []byte) error {
			m, err := readMark(k, v)
			marks = append(marks, m)
			return err
		})
	})
	return marks, err
}

func readMark(k, v []byte) (m Mark, err error) {
	if len(k) != 10 || len(v) != 2*len(m.Root) {
		return m, fmt.Errorf("%w: mark", record.ErrCorrupt)
	}
	m.Index = binary.BigEndian.Uint64(k[2:])
	copy(m.Root[:], v)
	copy(m.Public[:], v[len(m.Root):])
	return m, nil
}

// Now gives the hash of the state as it stands. It costs about a tenth of a millisecond.
func (s *Store) Now() (m Mark, err error) {
	err = s.read(func(r rows) error {
		sums := new(statehash.State)
		if err := readSums(r, sums); err != nil {
			return err
		}
		index, err := record.NewView(r).AppliedIndex()
		m = markOf(index, sums.Digests())
		return err
	})
	return m, err
}

// Digests gives the digest of every bucket as of a mark; nil: it is not kept any more.
func (s *Store) Digests(index uint64) (digests []statehash.Digest, err error) {
	err = s.read(func(r rows) error {
		b, err := r.Get(record.StateHashKey(hashDigests, binary.BigEndian.AppendUint64(nil, index)...))
		if err != nil || b == nil {
			return err
		}
		if len(b) != statehash.Buckets*len(statehash.Digest{}) {
			return fmt.Errorf("%w: digests", record.ErrCorrupt)
		}
		for ; len(b) > 0; b = b[len(statehash.Digest{}):] {
			digests = append(digests, statehash.Digest(b))
		}
		return nil
	})
	return digests, err
}

// Verify reads every row and compares the hash made of them with the one that was kept
// while they were written. It gives the buckets that differ: rows there were changed by
// something else than commands. It takes its time, a minute for each ten million rows.
func (s *Store) Verify(ctx context.Context) (differ []int, index uint64, err error) {
	err = s.read(func(r rows) error {
		kept, found := new(statehash.State), new(statehash.State)
		if err := readSums(r, kept); err != nil {
			return err
		}
		if index, err = record.NewView(r).AppliedIndex(); err != nil {
			return err
		}
		if err := sumRows(stoppable{r, ctx, verifyPause}, new(statehash.Hasher), found); err != nil {
			return err
		}
		for b := range kept {
			if kept[b] != found[b] {
				differ = append(differ, b)
			}
		}
		return nil
	})
	return differ, index, err
}

// verifyPause is the pause after each thousand rows that Verify reads, so that it is not in
// the way of those whom a restart kept waiting.
const verifyPause = time.Millisecond

// stoppable ends a scan with its context, and pauses now and then.
type stoppable struct {
	record.Getter
	ctx   context.Context
	pause time.Duration
}

func (s stoppable) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	n := 0
	return s.Getter.Scan(prefix, start, func(k, v []byte) error {
		if n++; n%1024 == 0 {
			if s.ctx.Err() != nil {
				return s.ctx.Err()
			}
			time.Sleep(s.pause)
		}
		return fn(k, v)
	})
}
