package journal

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// place is where the last reading of commitments ended, so that whoever follows
// the log does not begin at the beginning of a file each time.
type place struct {
	mu       sync.Mutex
	sequence uint64 // of the record that lies at offset; 0: nothing is known
	segment  uint64
	offset   int64
}

// Commitments gives fn the commitments to the entries from <= sequence < until, in
// order, as they lie on disk. All must be durable already (see Next). The error
// wraps ErrCorrupt when one cannot be read, and ErrUnavailable when the journal is
// closed.
func (j *Journal) Commitments(ctx context.Context, from, until uint64, fn func([CommitmentSize]byte) error) error {
	j.open.RLock()
	defer j.open.RUnlock()
	if j.closed {
		return errClosed
	}
	if next := j.durable.Load(); until > next {
		return fmt.Errorf("journal: entries before %d were asked for, and the next is %d", until, next)
	}
	return follow(ctx, j.fs, &j.followed, from, until, func(_ location, h header, _ []byte) error {
		return fn(h.commitment)
	})
}

// follow gives fn the records from <= sequence < until, beginning where the last
// reading ended if that is of use.
func follow(ctx context.Context, fs disk.FS, p *place, from, until uint64, fn func(location, header, []byte) error) error {
	if from >= until {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	firsts, err := segments(fs)
	if err != nil {
		return err
	}
	i, found := slices.BinarySearch(firsts, from)
	if !found {
		i--
	}
	if i < 0 {
		return fmt.Errorf("%w: no file holds entry %d: restore it", ErrCorrupt, from)
	}
	for ; i < len(firsts) && from < until; i++ {
		stop := until
		if i+1 < len(firsts) {
			stop = min(until, firsts[i+1])
		}
		begin := scanned{segmentHead, firsts[i], segmentHead}
		if p.segment == firsts[i] && p.sequence > firsts[i] && p.sequence <= from {
			begin = scanned{p.offset, p.sequence, p.offset}
		}
		end, err := scanFile(fs, firsts[i], begin, stop, func(at location, h header, b []byte) error {
			if h.sequence < from {
				return nil
			}
			if h.sequence%batchRecords == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fn(at, h, b)
		})
		if err != nil {
			return err
		}
		p.sequence, p.segment, p.offset = end.sequence, firsts[i], end.offset
		from = stop
	}
	return nil
}
