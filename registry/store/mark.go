package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/registry/pace"
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
// something else than commands. It takes some ten seconds of processor for each ten million
// rows, and rests as p says, which counts rows. Until it ends, the runs and rows of the
// moment it began stay on disk; when a snapshot is restored it begins again.
func (s *Store) Verify(ctx context.Context, p *pace.Pace) (differ []int, index uint64, err error) {
	for {
		g, err := s.use()
		if err != nil {
			return nil, 0, err
		}
		differ, index, err = s.verify(ctx, g, p)
		g.users.Done()
		if !errors.Is(err, errReplaced) {
			return differ, index, err
		}
	}
}

func (s *Store) verify(ctx context.Context, g *generation, p *pace.Pace) (differ []int, index uint64, err error) {
	r := g.view()
	defer r.end()
	kept, found := new(statehash.State), new(statehash.State)
	if err := readSums(r.rows, kept); err != nil {
		return nil, 0, err
	}
	if index, err = record.NewView(r.rows).AppliedIndex(); err != nil {
		return nil, 0, err
	}
	step := func(n int) error {
		if !s.uses(g) { // who replaced it, or closes it, waits
			return errReplaced
		}
		return p.Step(ctx, n)
	}
	if err := sumRows(paced{r.rows, step}, new(statehash.Hasher), found); err != nil {
		return nil, 0, err
	}
	for b := range kept {
		if kept[b] != found[b] {
			differ = append(differ, b)
		}
	}
	return differ, index, nil
}

// errReplaced says that a scan ended because nobody uses these tables any more.
var errReplaced = errors.New("these tables were replaced")

// uses reports whether g is the generation in use.
func (s *Store) uses(g *generation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current == g
}

// rowsAtOnce is after how many rows a scan looks whether to rest: a tenth of a
// millisecond's worth.
const rowsAtOnce = 16

// paced calls step now and then while it scans, and ends with its error.
type paced struct {
	record.Getter
	step func(rows int) error
}

func (p paced) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	n := 0
	return p.Getter.Scan(prefix, start, func(k, v []byte) error {
		if n++; n%rowsAtOnce == 0 {
			if err := p.step(rowsAtOnce); err != nil {
				return err
			}
		}
		return fn(k, v)
	})
}
