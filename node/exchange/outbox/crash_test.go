package outbox

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
)

// small lets files roll and be rewritten within a short test.
func small(d *disktest.FS, c *clock) Config {
	return Config{FS: d, StorageKey: key, Now: c.Now, SegmentSize: 4 << 10, ChunkSize: 1 << 10}
}

// TestPowerLoss takes the power away after every operation on the disk in turn,
// also while recovering from the first loss, with every fate of what was not
// synced. What was acknowledged must be there, whole; what was not, whole or not
// at all; what was deleted must not come back.
func TestPowerLoss(t *testing.T) {
	for seed := range uint64(8) {
		d, c := disktest.New(), newClock()
		run(t, d, c, seed, map[Key][]string{})
		total := d.Ops()
		for cut := 1; cut < total; cut += 1 + int(seed%3) {
			d, c := disktest.New(), newClock()
			may := map[Key][]string{}
			d.FailAfter(cut)
			run(t, d, c, seed, may)
			d.Crash(disktest.Random(seed + uint64(cut)))
			d.FailAfter(cut % 17) // the next opening may be cut off as well
			if o, err := Open(small(d, c)); err == nil {
				_ = o.Close()
			}
			d.Crash(disktest.Random(seed ^ uint64(cut)))
			o, err := Open(small(d, c))
			if err != nil {
				t.Fatalf("seed %d, cut %d: %v", seed, cut, err)
			}
			for k, allowed := range may {
				got, err := o.Get(k)
				if err != nil && !errors.Is(err, ErrNotFound) {
					t.Fatalf("seed %d, cut %d: %v: %v", seed, cut, k, err)
				}
				if !strings.Contains("|"+strings.Join(allowed, "|")+"|", "|"+string(got)+"|") {
					t.Fatalf("seed %d, cut %d: %v is %.20q, may be %.80q", seed, cut, k, got, allowed)
				}
			}
			a, aerr := o.Get(Key{1, "left"})
			b, berr := o.Get(Key{1, "right"})
			if string(a) != string(b) || !errors.Is(aerr, berr) {
				t.Fatalf("seed %d, cut %d: half a write: %q, %q", seed, cut, a, b)
			}
			_ = o.Close()
		}
	}
}

// run writes until the disk fails and says in may what each row may hold then: an
// empty text is no row.
func run(t *testing.T, d *disktest.FS, c *clock, seed uint64, may map[Key][]string) {
	t.Helper()
	o, err := Open(small(d, c))
	if err != nil {
		return
	}
	defer o.Close()
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range 40 {
		switch r.IntN(8) {
		case 0:
			if _, err := o.Sweep(); err != nil {
				return
			}
			continue
		case 1: // may be lost, and may have happened
			k := Key{2, fmt.Sprint(r.IntN(4))}
			v := fmt.Sprintf("lazy %d", i)
			may[k] = append(may[k], "", v)
			if err := o.Write(Change{Key: k, Value: []byte(v), Lazy: true}); err != nil {
				return
			}
			continue
		}
		v := fmt.Sprintf("%d %s", i, bytes.Repeat([]byte("x"), r.IntN(900)))
		changes := []Change{{Key: Key{1, "left"}, Value: []byte(v)}, {Key: Key{1, "right"}, Value: []byte(v)}}
		extra := Change{Key: Key{3, fmt.Sprint(r.IntN(6))}, Value: []byte(v), Delete: r.IntN(2) == 0}
		for _, ch := range append(changes, extra) {
			if ch.Delete {
				may[ch.Key] = append(may[ch.Key], "")
				continue
			}
			if len(may[ch.Key]) == 0 {
				may[ch.Key] = []string{""}
			}
			may[ch.Key] = append(may[ch.Key], v)
		}
		if err := o.Write(append(changes, extra)...); err != nil {
			return
		}
		for _, ch := range append(changes, extra) { // acknowledged: nothing else counts
			may[ch.Key] = may[ch.Key][len(may[ch.Key])-1:]
		}
	}
}

// TestFailedSyncIsNotShown: after a sync that failed, the bytes can be read and may
// never reach the disk. They must not be shown after the next opening and be gone
// after the one behind it.
func TestFailedSyncIsNotShown(t *testing.T) {
	d, c := disktest.New(), newClock()
	o, err := Open(small(d, c))
	if err != nil {
		t.Fatal(err)
	}
	put(t, o, Change{Key: Key{1, "a"}, Value: []byte("old")})
	d.Fail(disktest.Sync, errors.New("boom"))
	if err := o.Write(Change{Key: Key{1, "a"}, Value: []byte("new")}); err == nil {
		t.Fatal("passed")
	}
	d.Fail(disktest.Sync, nil)
	_ = o.Close()
	if o, err = Open(small(d, c)); err != nil {
		t.Fatal(err)
	}
	shown, err := o.Get(Key{1, "a"})
	if err != nil {
		t.Fatal(err)
	}
	d.Crash(disktest.Nothing)
	_ = o.Close()
	if o, err = Open(small(d, c)); err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	wants(t, o, Key{1, "a"}, string(shown), nil)
}

// TestLostWriteIsFound damages a group that others stand behind: opening must say
// so rather than go on with less.
func TestLostWriteIsFound(t *testing.T) {
	d, c := disktest.New(), newClock()
	cfg := small(d, c)
	cfg.SegmentSize = 1 << 20
	o, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		put(t, o, Change{Key: Key{1, fmt.Sprint(i)}, Value: []byte("value")})
	}
	_ = o.Close()
	d.Flip(segmentName(1), segmentHead+groupHead+3, 1)
	if _, err := Open(cfg); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
	d.Flip(segmentName(1), segmentHead+groupHead+3, 1)
	if o, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	wants(t, o, Key{1, "2"}, "value", nil)
	_ = o.Close()
}

// TestDiskStaysSmall writes many short-lived rows, and a few that stay.
func TestDiskStaysSmall(t *testing.T) {
	d, c := disktest.New(), newClock()
	cfg := small(d, c)
	o, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		put(t, o, Change{Key: Key{1, fmt.Sprint(i)}, Value: make([]byte, 200), Until: c.Now().Add(time.Second)})
		if i%40 == 0 {
			put(t, o, Change{Key: Key{2, fmt.Sprint(i)}, Value: []byte("stays")})
		}
		c.Add(100 * time.Millisecond)
		if i%20 == 0 {
			if _, err := o.Sweep(); err != nil {
				t.Fatal(err)
			}
			if n := len(o.segments); n > 6 {
				t.Fatalf("%d files after %d rows", n, i)
			}
		}
	}
	_ = o.Close()
	if o, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for i := 0; i < 400; i += 40 {
		wants(t, o, Key{2, fmt.Sprint(i)}, "stays", nil)
	}
}

// TestLazyChanges are seen at once, and durable when the outbox closes.
func TestLazyChanges(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	o := open(t, dir, c)
	put(t, o, Change{Key: Key{1, "a"}, Value: []byte("a")}, Change{Key: Key{1, "b"}, Value: []byte("b")})
	put(t, o, Change{Key: Key{1, "a"}, Delete: true, Lazy: true}, Change{Key: Key{1, "b"}, Value: []byte("B"), Lazy: true})
	wants(t, o, Key{1, "a"}, "", ErrNotFound)
	wants(t, o, Key{1, "b"}, "B", nil)
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	o = open(t, dir, c)
	wants(t, o, Key{1, "a"}, "", ErrNotFound)
	wants(t, o, Key{1, "b"}, "B", nil)
}

// TestWritersTogether has many write, read, sweep and close at once.
func TestWritersTogether(t *testing.T) {
	d, c := disktest.New(), newClock()
	o, err := Open(small(d, c))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 60 {
				k := Key{Table(w % 3), fmt.Sprint(w)}
				v := fmt.Sprint(w, " ", i)
				err := o.Write(Change{Key: k, Value: []byte(v), Lazy: i%3 == 0})
				if errors.Is(err, ErrClosed) {
					return
				}
				got, gerr := o.Get(k)
				if err != nil || gerr != nil && !errors.Is(gerr, ErrClosed) || gerr == nil && string(got) != v {
					t.Errorf("%q, %v, %v; want %q", got, err, gerr, v)
					return
				}
				if w == 0 {
					_, _ = o.Sweep()
				}
				if w == 7 && i == 50 {
					_ = o.Close()
				}
			}
		})
	}
	all.Wait()
	_ = o.Close()
}

// FuzzGroup feeds foreign bytes to what reads a file.
func FuzzGroup(f *testing.F) {
	s := &segment{number: 1}
	if _, err := s.unlock(key, make([]byte, saltSizeFile)); err != nil {
		f.Fatal(err)
	}
	f.Add(s.appendGroup(nil, []*row{{Key: Key{1, "a"}, raw: []byte("value")}, {Key: Key{2, ""}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, ok := s.readGroup(b, 0, 0)
		if ok && (len(rows) != 2 || rows[0].ID != "a" || rows[1].raw != nil) {
			t.Fatalf("read %v", rows)
		}
	})
}
