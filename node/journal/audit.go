package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// Audit reads a log as it lies on disk, and changes nothing: not even what Open
// would repair. It may run beside the node, which then keeps the lock.
type Audit struct {
	fs     disk.FS
	keys   *keyRing
	firsts []uint64
	lock   io.Closer
	bytes  int64
	epoch  []byte
	erased []*Erasure
}

// Audited is one record as an Audit found it.
type Audited struct {
	Sequence   uint64
	Commitment [CommitmentSize]byte
	Leaf       [32]byte // LeafHash of the commitment
	Where      string   // file and offset
	Erased     *Erasure // by which its entry cannot be read any more; nil: it can
	// Kind and Statement are the event and what the holder signed, if the entry is one
	// in which the journal states something of itself.
	Kind      nodepb.Event
	Statement []byte
	// Entry is the entry as it was committed to; nil: it cannot be read. It is only
	// lent.
	Entry []byte
	// Damage says what is wrong with it. Unless Lost, its commitment can be read all
	// the same.
	Damage error
	Lost   bool  // there is no record that could be read, and nothing follows
	end    int64 // bytes of the log up to here
}

// ErrMissing is wrapped by the damage of an entry of which there is no record.
var ErrMissing = errors.New("there is no record of it")

// OpenAudit opens the log of cfg.Dir, or cfg.FS, for reading. The caller closes it.
func OpenAudit(cfg Config) (_ *Audit, err error) {
	if len(cfg.Key) != KeySize {
		return nil, fmt.Errorf("journal: the storage key has %d bytes, want %d", len(cfg.Key), KeySize)
	}
	a := &Audit{fs: cfg.FS}
	if a.fs == nil {
		dir := filepath.Join(cfg.Dir, "log")
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("there is no journal: %w", err)
		}
		if a.fs, err = disk.OpenDir(dir); err != nil {
			return nil, err
		}
	}
	if a.lock, err = a.fs.Lock("LOCK"); err != nil && !errors.Is(err, disk.ErrLocked) {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	state := statements{a.fs, derive(cfg.Key, "crossroads journal statement v1")}
	erased, tombstones, err := state.tombstones()
	if err != nil {
		return nil, err
	}
	for _, n := range tombstones {
		if !n.pending {
			p, err := parsePeriod(strings.TrimPrefix(n.name, erasedPrefix))
			if err != nil {
				return nil, err
			}
			a.erased = append(a.erased, erased[p])
		}
	}
	epochs, err := state.epochs()
	if err != nil {
		return nil, err
	}
	for _, n := range epochs {
		a.epoch = n.entry.GetEvidence()[0]
	}
	if a.keys, err = openKeys(a.fs, cfg.Key, erased); err != nil {
		return nil, err
	}
	if a.firsts, err = segments(a.fs); err != nil {
		return nil, err
	}
	for _, first := range a.firsts {
		f, err := a.fs.Open(segmentName(first), false)
		if err != nil {
			return nil, err
		}
		size, err := f.Size()
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		a.bytes += size
	}
	return a, nil
}

// Running tells whether a node has the journal open. Then only entries before the
// last checkpoint are sure to be whole.
func (a *Audit) Running() bool { return a.lock == nil }

// Epoch gives the signed statement of the present epoch, nil if there is none. It stands
// in the log too, until its month is erased.
func (a *Audit) Epoch() []byte { return a.epoch }

// Erasures gives the months that were erased, and whose tombstones are in the log.
func (a *Audit) Erasures() []*Erasure { return a.erased }

// Bytes gives the size of the log.
func (a *Audit) Bytes() int64 { return a.bytes }

// FS gives the directory of the log.
func (a *Audit) FS() disk.FS { return a.fs }

// Close lets go of the lock.
func (a *Audit) Close() error {
	if a.lock == nil {
		return nil
	}
	return a.lock.Close()
}

// batch is a run of records on its way through the checks.
type batch struct {
	list []Audited
	raw  [][]byte // nil: of no use
	done chan struct{}
}

const batchRecords = 512

// Read gives fn every record before until, in order, and what is wrong with it, at
// the rate of the disk and of all processors. bytes is how much of the log was read.
// It ends early, without an error, after damage behind which nothing can be told any
// more, or where the log ends.
func (a *Audit) Read(ctx context.Context, until uint64, fn func(r Audited, bytes int64) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	jobs, order := make(chan *batch), make(chan *batch, 4*runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for b := range jobs {
				for i := range b.list {
					a.check(&b.list[i], b.raw[i])
				}
				close(b.done)
			}
		})
	}
	var failed error
	all.Go(func() {
		defer close(order)
		defer close(jobs)
		var b *batch
		flush := func() error {
			if b == nil {
				return nil
			}
			for _, to := range []chan *batch{order, jobs} {
				select {
				case to <- b:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			b = nil
			return nil
		}
		failed = a.scan(ctx, until, func(r Audited, raw []byte) error {
			if b == nil {
				b = &batch{done: make(chan struct{})}
			}
			b.list, b.raw = append(b.list, r), append(b.raw, raw)
			if len(b.list) < batchRecords {
				return nil
			}
			return flush()
		})
		if failed == nil {
			failed = flush()
		}
	})
	for b := range order {
		select {
		case <-b.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for _, r := range b.list {
			if err := fn(r, r.end); err != nil {
				return err
			}
		}
	}
	return failed
}

// check opens a record and computes its leaf.
func (a *Audit) check(r *Audited, raw []byte) {
	r.Leaf = LeafHash(r.Commitment)
	if raw == nil || r.Damage != nil {
		return
	}
	h, err := parseRecord(raw)
	if err != nil {
		r.Damage = err
		return
	}
	key := a.keys.get(h.period)
	if key == nil {
		if e := a.keys.erasure(h.period); e != nil && e.First <= r.Sequence && r.Sequence <= e.Last {
			r.Erased = e
			return
		}
		r.Damage = fmt.Errorf("it is of %s, of which there is no key and no tombstone that covers it", h.period)
		return
	}
	var entry []byte
	if _, entry, r.Damage = openRecord(raw, h, key.aead); r.Damage == nil {
		r.Entry = entry
		r.Kind, r.Statement = statementIn(entry)
	}
}

// scan reads the files in order, without opening what is in the records.
func (a *Audit) scan(ctx context.Context, until uint64, fn func(r Audited, raw []byte) error) error {
	if len(a.firsts) == 0 {
		return nil
	}
	if a.firsts[0] != 0 {
		return fn(Audited{Lost: true, Damage: fmt.Errorf("%w: %s is not there", ErrMissing, segmentName(0))}, nil)
	}
	var read int64
	for i, first := range a.firsts {
		last := i+1 == len(a.firsts)
		stop := until
		if !last {
			stop = min(until, a.firsts[i+1])
		}
		s := auditScan{at: scanned{segmentHead, first, segmentHead}, read: read, fn: fn, ctx: ctx}
		if !last {
			s.next = a.firsts[i+1]
		}
		f, err := a.fs.Open(segmentName(first), false)
		if errors.Is(err, fs.ErrNotExist) {
			return fn(Audited{Sequence: first, Lost: true, Damage: fmt.Errorf("%w: %s is not there", ErrMissing, segmentName(first))}, nil)
		}
		if err != nil {
			return err
		}
		whole, err := s.file(f, first, stop, last)
		size, serr := f.Size()
		if err = errors.Join(err, serr, f.Close()); err != nil || !whole {
			return err
		}
		if read += size; stop >= until {
			return nil
		}
	}
	return nil
}

// auditScan is the reading of one file.
type auditScan struct {
	ctx  context.Context
	at   scanned
	read int64
	fn   func(r Audited, raw []byte) error
	next uint64 // first entry of the next file
	slab []byte
}

// file reads one file up to stop, and tells whether it was whole. The last file may
// end where it likes, if what is behind its end can be of no acknowledged entry.
func (s *auditScan) file(f disk.File, first, stop uint64, last bool) (bool, error) {
	head := make([]byte, segmentHead)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if string(head[:n]) != string(segmentHeader(first)) {
		if last && allZero(head[:n]) {
			return true, nil // begun, and nothing was written yet
		}
		return false, s.damage(first, errors.New("the file's header is wrong"))
	}
	br := bufio.NewReaderSize(io.NewSectionReader(f, s.at.offset, math.MaxInt64-s.at.offset), 1<<20)
	for s.at.sequence < stop {
		if s.at.sequence%batchRecords == 0 && s.ctx.Err() != nil {
			return false, context.Cause(s.ctx)
		}
		b, err := br.Peek(headerSize)
		if ignoreEOF(err) != nil {
			return false, err
		}
		h, err := parseHeader(b)
		if err != nil {
			return s.end(f, first, last && stop == math.MaxUint64, err)
		}
		if h.sequence != s.at.sequence {
			return false, s.damage(first, fmt.Errorf("the record there says that it is entry %d", h.sequence))
		}
		raw := s.room(int(h.size()))
		if n, err := io.ReadFull(br, raw); err != nil {
			if ignoreEOF(err) != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
			return s.end(f, first, last && stop == math.MaxUint64, fmt.Errorf("the file ends %d bytes into it", n))
		}
		if _, err := parseRecord(raw); err != nil && last && stop == math.MaxUint64 {
			if whole, eerr := s.tail(f); eerr != nil || whole {
				return whole, eerr // of a commit that nobody was told of
			}
		}
		r := Audited{
			Sequence: h.sequence, Commitment: h.commitment, Where: location{first, s.at.offset}.String(), end: s.read + s.at.offset,
		}
		if err := s.fn(r, raw); err != nil {
			return false, err
		}
		if h.place == 0 {
			s.at.group = s.at.offset
		}
		s.at.offset += int64(len(raw))
		s.at.sequence++
	}
	if last || stop != s.next {
		return true, nil
	}
	for {
		b, err := br.Peek(headerSize)
		if ignoreEOF(err) != nil {
			return false, err
		}
		if !allZero(b) {
			return false, s.damage(first, errors.New("there is more behind the file's last entry than there should be"))
		}
		if n, _ := br.Discard(len(b)); n == 0 {
			return true, nil
		}
	}
}

// room gives n bytes that nobody else uses.
func (s *auditScan) room(n int) []byte {
	if len(s.slab) < n {
		s.slab = make([]byte, max(n, 256<<10))
	}
	b := s.slab[:n:n]
	s.slab = s.slab[n:]
	return b
}

// end is met where there is no record.
func (s *auditScan) end(f disk.File, first uint64, open bool, why error) (bool, error) {
	if open {
		if whole, err := s.tail(f); err != nil || whole {
			return whole, err
		}
	}
	return false, s.damage(first, fmt.Errorf("%w: %w", ErrMissing, why))
}

// tail tells whether what lies behind can be of no acknowledged entry.
func (s *auditScan) tail(f disk.File) (bool, error) {
	size, err := f.Size()
	if err != nil {
		return false, err
	}
	tail := make([]byte, max(0, size-s.at.offset))
	if _, err := f.ReadAt(tail, s.at.offset); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return unacknowledged(tail, s.at) == nil, nil
}

func (s *auditScan) damage(first uint64, why error) error {
	at := location{first, s.at.offset}
	return s.fn(Audited{Sequence: s.at.sequence, Where: at.String(), Damage: why, Lost: true, end: s.read + s.at.offset}, nil)
}
