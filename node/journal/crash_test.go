package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// small makes files and chunks so small that a few entries meet every case.
func small(fs disk.FS) Config {
	return Config{FS: fs, Key: testKey, SegmentSize: 8 << 10, ChunkSize: 2 << 10}
}

// ledger remembers what was handed in and what was acknowledged.
type ledger struct {
	mu     sync.Mutex
	asked  map[string]bool   // details
	acked  map[uint64]string // sequence to detail
	number int
	length uint64 // of the log after the last check; 0: not known
}

func newLedger() *ledger { return &ledger{asked: map[string]bool{}, acked: map[uint64]string{}} }

// fill appends rounds of several entries at once until n are in, or one fails.
func (l *ledger) fill(j *Journal, n int) error {
	for l.count() < n {
		var all sync.WaitGroup
		errs := make(chan error, 3)
		for range 3 {
			e := l.next()
			all.Go(func() {
				seq, err := j.Append(context.Background(), e)
				if err != nil {
					errs <- err
					return
				}
				l.mu.Lock()
				defer l.mu.Unlock()
				l.acked[seq] = e.Detail
			})
		}
		all.Wait()
		select {
		case err := <-errs:
			return err
		default:
		}
	}
	return nil
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.number
}

func (l *ledger) next() *nodepb.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := entry(l.number)
	e.Fields = []string{strings.Repeat("x", 3*sectorSize/2)} // some sectors hold one record alone
	if l.number > 12 {                                       // a new month, so a new key
		e.TimeUnixMs += 31 * 24 * time.Hour.Milliseconds()
	}
	l.number++
	l.asked[e.Detail] = true
	return e
}

// check opens what the disk holds: everything acknowledged must be there in its
// place, and nothing but what was handed in; and the journal must work on.
func (l *ledger) check(fs disk.FS) error {
	j, err := Open(small(fs))
	if err != nil {
		return err
	}
	defer j.Close()
	got, err := j.Find(context.Background(), Query{})
	if err != nil {
		return err
	}
	if uint64(len(got)) != j.Next() {
		return fmt.Errorf("%d entries found, %d in the log", len(got), j.Next())
	}
	if l.length != 0 && j.Next() != l.length {
		return fmt.Errorf("%d entries, there were %d: something came back", j.Next(), l.length)
	}
	details := map[uint64]string{}
	for _, s := range got {
		if !l.asked[s.Entry.Detail] {
			return fmt.Errorf("entry %d was never handed in", s.Sequence)
		}
		details[s.Sequence] = s.Entry.Detail
	}
	for seq, want := range l.acked {
		if details[seq] != want {
			return fmt.Errorf("acknowledged entry %d is %q, want %q", seq, details[seq], want)
		}
	}
	if n, err := j.Verify(context.Background()); err != nil || n != j.Next() {
		return fmt.Errorf("verified %d of %d: %w", n, j.Next(), err)
	}
	next := j.Next()
	if n, err := j.Append(context.Background(), l.next()); err != nil || n != next {
		return fmt.Errorf("append after recovery: %d, %w", n, err)
	}
	l.acked[next] = entry(l.number - 1).Detail
	l.length = next + 1
	return nil
}

// show opens what the disk holds and takes all that is found there for
// acknowledged: whoever looked has seen it.
func (l *ledger) show(fs disk.FS) error {
	j, err := Open(small(fs))
	if err != nil {
		return err
	}
	defer j.Close()
	got, err := j.Find(context.Background(), Query{})
	for _, s := range got {
		l.acked[s.Sequence] = s.Entry.Detail
	}
	return err
}

// TestPowerLossAnywhere takes the power away after each single operation, with
// unsynced sectors lost, kept and tossed for, and once more during the recovery.
func TestPowerLossAnywhere(t *testing.T) {
	const entries = 30
	fs := disktest.New()
	l := newLedger()
	j := open(t, small(fs))
	if err := l.fill(j, entries); err != nil {
		t.Fatal(err)
	}
	j.Close()
	ops := fs.Ops()
	if files, _ := segments(fs); len(files) < 3 || len(j.keys.periods()) != 2 {
		t.Fatalf("the test is too small: %d files", len(files))
	}
	step := 2
	if testing.Short() {
		step = 7
	}
	for n := 0; n <= ops; n += step {
		for name, survival := range map[string]disktest.Survival{
			"nothing survives": disktest.Nothing, "everything survives": disktest.Everything,
			"some": disktest.Random(uint64(n)), "others": disktest.Random(uint64(n) + 1<<32),
		} {
			fs, l := disktest.New(), newLedger()
			fs.FailAfter(n)
			if j, err := Open(small(fs)); err == nil {
				l.fill(j, entries)
				j.Close()
			}
			fs.Crash(survival)
			fs.FailAfter(n % 11)
			if j, err := Open(small(fs)); err == nil {
				j.Close()
			} else if !errors.Is(err, disktest.ErrPower) {
				t.Fatalf("power lost after %d operations, %s, and again: %v", n, name, err)
			}
			fs.Crash(survival)
			if err := l.check(fs); err != nil {
				t.Fatalf("power lost after %d operations, %s: %v", n, name, err)
			}
			if err := l.check(fs); err != nil {
				t.Fatalf("power lost after %d operations, %s, opened again: %v", n, name, err)
			}
		}
	}
}

// TestFailures makes each kind of operation fail at each of its places, done and
// not done. The journal must stop, stay stopped, say why, and lose nothing
// acknowledged, whether the process restarts or the power goes too.
func TestFailures(t *testing.T) {
	io := errors.New("input/output error")
	for _, op := range []disktest.Op{disktest.Write, disktest.Sync, disktest.Open, disktest.Rename, disktest.SyncDir} {
		for _, done := range []bool{false, true} {
			for _, power := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s,done=%t,power=%t", op, done, power), func(t *testing.T) {
					for _, good := range []int{3, 6, 9, 12} { // the next key file comes after 12
						fs, l := disktest.New(), newLedger()
						cfg := small(fs)
						if good%2 == 0 { // so that it is a commit that fails, not the making of room
							cfg.ChunkSize, cfg.SegmentSize = 64<<10, 64<<10
						}
						j := open(t, cfg)
						if err := l.fill(j, good); err != nil {
							t.Fatal(err)
						}
						if done {
							fs.FailDone(op, io)
						} else {
							fs.Fail(op, io)
						}
						err := l.fill(j, good+90)
						if !errors.Is(err, ErrUnavailable) || !errors.Is(err, io) {
							t.Fatalf("append: %v", err)
						}
						fs.Fail(op, nil)
						if _, err := j.Append(context.Background(), entry(1)); !errors.Is(err, ErrUnavailable) {
							t.Fatalf("it went on after a failure: %v", err)
						}
						if err := j.Healthy(); !errors.Is(err, ErrUnavailable) || !errors.Is(err, io) {
							t.Fatalf("healthy: %v", err)
						}
						if got := find(t, j, Query{}); uint64(len(got)) != j.Next() {
							t.Fatalf("%d entries found of %d", len(got), j.Next())
						}
						j.Close()
						if power {
							fs.Crash(disktest.Nothing)
						}
						// What the recovery shows must be on disk, not only in the cache.
						for range 2 {
							if err := l.show(fs); err != nil {
								t.Fatal(err)
							}
							fs.Crash(disktest.Nothing)
							if err := l.check(fs); err != nil {
								t.Fatal(err)
							}
						}
					}
				})
			}
		}
	}
}

func TestFullDisk(t *testing.T) {
	fs, l := disktest.New(), newLedger()
	fs.SetCapacity(16 << 10)
	j := open(t, small(fs))
	err := l.fill(j, 1000)
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("append on a full disk: %v", err)
	}
	if !errors.Is(j.Healthy(), syscall.ENOSPC) {
		t.Fatalf("healthy: %v", j.Healthy())
	}
	j.Close()
	fs.SetCapacity(-1)
	if err := l.check(fs); err != nil {
		t.Fatal(err)
	}
}

// TestRandomLives lets a journal live through many crashes at random places.
func TestRandomLives(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		fs, l := disktest.New(), newLedger()
		for life := range 12 {
			fs.FailAfter(r.IntN(60))
			if j, err := Open(small(fs)); err == nil {
				l.fill(j, l.count()+r.IntN(20))
				j.Close()
			} else if !errors.Is(err, disktest.ErrPower) {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
			fs.Crash(disktest.Random(r.Uint64()))
		}
		if err := l.check(fs); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestEveryBitCounts flips single bits of acknowledged records, also of the last.
// Opening or reading must fail and say where; never may an entry change or vanish.
func TestEveryBitCounts(t *testing.T) {
	fs := disktest.New()
	cfg := small(fs)
	cfg.SegmentSize = 1 << 20
	j := open(t, cfg)
	var want []*nodepb.Entry
	for i := range 4 {
		want = append(want, entry(i))
		add(t, j, want[i])
	}
	end := j.seg.end
	j.Close()
	name := segmentName(0)
	for off := int64(0); off < end; off++ {
		mask := byte(1) << (off % 8)
		fs.Flip(name, off, mask)
		j, err := Open(cfg)
		if err == nil {
			var got []Stored
			if got, err = j.Find(context.Background(), Query{}); err == nil {
				for i := range want {
					if len(got) != len(want) || !proto.Equal(got[i].Entry, want[i]) {
						t.Fatalf("a flip at %d changed the journal and nobody noticed", off)
					}
				}
			}
			j.Close()
		}
		zeroPart := off >= 20 && off < segmentHead // the unused rest of the file's header
		if !errors.Is(err, ErrCorrupt) && !zeroPart {
			t.Fatalf("a flip at %d of %d: %v", off, end, err)
		}
		fs.Flip(name, off, mask)
	}
	j = open(t, cfg)
	if got := find(t, j, Query{}); len(got) != len(want) {
		t.Fatalf("%d entries at the end", len(got))
	}
}

// TestLostSector zeroes a sector of an acknowledged record: that looks like a
// commit that never reached the disk, but for the later one behind it.
func TestLostSector(t *testing.T) {
	fs := disktest.New()
	j := open(t, Config{FS: fs})
	for i := range 3 {
		e := entry(i)
		e.Fields = []string{strings.Repeat("x", 2*sectorSize)}
		add(t, j, e)
	}
	j.Close()
	f, _ := fs.Open(segmentName(0), false)
	f.WriteAt(make([]byte, sectorSize), sectorSize)
	f.Sync()
	if _, err := Open(Config{FS: fs, Key: testKey}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("%v", err)
	}
}

// TestLostLog: the index remembers that more was acknowledged than the log holds.
func TestLostLog(t *testing.T) {
	fs, l := disktest.New(), newLedger()
	cfg := small(fs)
	cfg.Dir = t.TempDir()
	cfg.SegmentSize = 1 << 20
	j := open(t, cfg)
	if err := l.fill(j, 9); err != nil {
		t.Fatal(err)
	}
	find(t, j, Query{})
	end := j.seg.end
	j.Close()
	f, _ := fs.Open(segmentName(0), false)
	f.WriteAt(make([]byte, end-segmentHead), segmentHead) // as if nothing had been written
	if _, err := Open(cfg); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("the whole log is gone: %v", err)
	}
}
