package outbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
)

var key = bytes.Repeat([]byte{7}, 32)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.UnixMilli(1_800_000_000_000)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func open(t *testing.T, dir string, c *clock) *Outbox {
	t.Helper()
	o, err := Open(Config{Dir: dir, StorageKey: key, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func put(t *testing.T, o *Outbox, changes ...Change) {
	t.Helper()
	if err := o.Write(changes...); err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, o *Outbox, k Key, want string, wantErr error) {
	t.Helper()
	got, err := o.Get(k)
	if !errors.Is(err, wantErr) || string(got) != want {
		t.Fatalf("%v: %q, %v; want %q, %v", k, got, err, want, wantErr)
	}
}

func TestRowsSurviveReopening(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	o := open(t, dir, c)
	large := string(bytes.Repeat([]byte("large"), 600<<10)) // beyond what Badger keeps beside its keys
	put(t, o, Change{Key: Key{1, "a"}, Value: []byte("one")}, Change{Key: Key{2, "a"}, Value: []byte(large)})
	put(t, o, Change{Key: Key{1, "b"}, Value: []byte("two")}, Change{Key: Key{1, "a"}, Delete: true})
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Get(Key{1, "b"}); !errors.Is(err, ErrClosed) {
		t.Fatalf("read after close: %v", err)
	}
	o = open(t, dir, c)
	wants(t, o, Key{1, "a"}, "", ErrNotFound)
	wants(t, o, Key{1, "b"}, "two", nil)
	wants(t, o, Key{2, "a"}, large, nil)
}

func TestRowsEnd(t *testing.T) {
	c := newClock()
	o := open(t, "", c)
	put(t, o,
		Change{Key: Key{1, "short"}, Value: []byte("x"), Until: c.Now().Add(time.Second)},
		Change{Key: Key{1, "long"}, Value: []byte("x"), Until: c.Now().Add(time.Hour)},
		Change{Key: Key{1, "kept"}, Value: []byte("x")})
	c.Add(time.Second)
	wants(t, o, Key{1, "short"}, "x", nil) // the end itself is included
	c.Add(time.Millisecond)
	wants(t, o, Key{1, "short"}, "", ErrNotFound)
	var ids []string
	if err := o.Each(1, func(id string, _ []byte) error { ids = append(ids, id); return nil }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(ids) != "[kept long]" {
		t.Fatalf("rows left: %v", ids)
	}
	if n, err := o.Sweep(); n != 1 || err != nil {
		t.Fatalf("swept %d, %v", n, err)
	}
	if n, err := o.Sweep(); n != 0 || err != nil {
		t.Fatalf("swept %d again, %v", n, err)
	}
	wants(t, o, Key{1, "long"}, "x", nil)
	wants(t, o, Key{1, "kept"}, "x", nil)
}

// TestSweepSparesWhatWasWrittenAnew lets a row be renewed between being found
// ended and being deleted.
func TestSweepSparesWhatWasWrittenAnew(t *testing.T) {
	c := newClock()
	o := open(t, "", c)
	k := Key{1, "a"}
	put(t, o, Change{Key: k, Value: []byte("old"), Until: c.Now().Add(-time.Second)})
	put(t, o, Change{Key: k, Value: []byte("new"), Until: c.Now().Add(time.Hour)})
	if n, err := o.sweep([][]byte{k.row()}); n != 0 || err != nil {
		t.Fatalf("swept %d, %v", n, err)
	}
	wants(t, o, k, "new", nil)
}

func TestWrongKey(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir, newClock())
	put(t, o, Change{Key: Key{1, "a"}, Value: []byte("x")})
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, StorageKey: bytes.Repeat([]byte{8}, 32)}); !errors.Is(err, ErrWrongKey) {
		t.Fatalf("another key: %v", err)
	}
	for _, k := range [][]byte{nil, key[:16]} {
		if _, err := Open(Config{Dir: dir, StorageKey: k}); err == nil {
			t.Fatalf("a key of %d bytes passed", len(k))
		}
	}
}

// TestTamper changes what is stored below the sealing: every byte of a value, its
// row, its end.
func TestTamper(t *testing.T) {
	c := newClock()
	o := open(t, t.TempDir(), c)
	k := Key{1, "a"}
	put(t, o, Change{Key: k, Value: []byte("secret"), Until: c.Now().Add(time.Second)})
	raw := rawValue(t, o, k)
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		setRaw(t, o, k, bad)
		if v, err := o.Get(k); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d changed: %q, %v", i, v, err)
		}
	}
	for n := range raw {
		setRaw(t, o, k, raw[:n])
		wants(t, o, k, "", ErrDamaged)
	}
	setRaw(t, o, k, raw)
	wants(t, o, k, "secret", nil)
	for _, other := range []Key{{1, "b"}, {2, "a"}, {1, ""}} {
		setRaw(t, o, other, raw)
		wants(t, o, other, "", ErrDamaged)
	}
	var ids []string
	err := o.Each(1, func(id string, _ []byte) error { ids = append(ids, id); return nil })
	if !errors.Is(err, ErrDamaged) || fmt.Sprint(ids) != "[a]" {
		t.Fatalf("walk over damaged rows: %v, %v", ids, err)
	}
}

func rawValue(t *testing.T, o *Outbox, k Key) []byte {
	t.Helper()
	raw, err := o.raw(k)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func setRaw(t *testing.T, o *Outbox, k Key, raw []byte) {
	t.Helper()
	w := &write{rows: []*row{{Key: k, raw: append([]byte{}, raw...)}}, done: make(chan error, 1)}
	if err := o.enqueue(w); err != nil {
		t.Fatal(err)
	}
}

// TestNothingShowsOnDisk looks for value and row name in every file.
func TestNothingShowsOnDisk(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir, newClock())
	put(t, o, Change{Key: Key{1, "portal-client-77"}, Value: []byte("insured-person-secret")},
		Change{Key: Key{1, "large"}, Value: bytes.Repeat([]byte("insured-person-secret"), 10000)})
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"insured-person-secret", "portal-client-77"} {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s holds %q in clear", filepath.Base(f), s)
			}
		}
	}
}

// TestAllOrNothing writes rows that do not fit together.
func TestAllOrNothing(t *testing.T) {
	o := open(t, "", newClock())
	changes := []Change{{Key: Key{1, "first"}, Value: []byte("x")}}
	for i := range 40 {
		changes = append(changes, Change{Key: Key{1, fmt.Sprint(i)}, Value: make([]byte, 600<<10)})
	}
	if err := o.Write(changes...); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	wants(t, o, Key{1, "first"}, "", ErrNotFound)
	put(t, o, changes[0]) // too large is no failure of the disk
}

// TestFailedWriteStays makes the disk fail once: afterwards nobody knows what it
// holds, so the outbox must not go on as if it did.
func TestFailedWriteStays(t *testing.T) {
	d, c := disktest.New(), newClock()
	o, err := Open(Config{FS: d, StorageKey: key, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	put(t, o, Change{Key: Key{1, "a"}, Value: []byte("x")})
	d.Fail(disktest.Sync, errors.New("boom"))
	if err := o.Write(Change{Key: Key{1, "b"}, Value: []byte("x")}); err == nil {
		t.Fatal("a write to a failing disk passed")
	}
	d.Fail(disktest.Sync, nil)
	if err := o.Write(Change{Key: Key{1, "b"}, Value: []byte("x")}); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	wants(t, o, Key{1, "a"}, "", ErrFailed)
	if _, err := o.Sweep(); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
}

// TestAgainstMap runs random writes, ends and reopenings against a Go map.
func TestAgainstMap(t *testing.T) {
	type kept struct {
		value string
		until time.Time
	}
	dirs := 0
	base := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		dirs++
		dir, c := filepath.Join(base, fmt.Sprint(dirs)), newClock()
		o, err := Open(Config{Dir: dir, StorageKey: key, Now: c.Now})
		if err != nil {
			r.Fatal(err)
		}
		defer func() { _ = o.Close() }()
		model := map[Key]kept{}
		for range rapid.IntRange(1, 8).Draw(r, "steps") {
			switch rapid.IntRange(0, 5).Draw(r, "step") {
			case 0:
				c.Add(time.Duration(rapid.IntRange(0, 3000).Draw(r, "ms")) * time.Millisecond)
			case 1:
				if _, err := o.Sweep(); err != nil {
					r.Fatal(err)
				}
			case 2:
				_ = o.Close()
				if o, err = Open(Config{Dir: dir, StorageKey: key, Now: c.Now}); err != nil {
					r.Fatal(err)
				}
			default:
				var changes []Change
				for range rapid.IntRange(1, 3).Draw(r, "rows") {
					ch := Change{Key: Key{Table(rapid.IntRange(1, 2).Draw(r, "table")), rapid.StringMatching(`[ab]{0,2}`).Draw(r, "id")},
						Value: rapid.SliceOf(rapid.Byte()).Draw(r, "value"), Delete: rapid.IntRange(0, 3).Draw(r, "delete") == 0}
					if ms := rapid.IntRange(0, 4000).Draw(r, "life"); ms > 0 {
						ch.Until = c.Now().Add(time.Duration(ms) * time.Millisecond)
					}
					changes = append(changes, ch)
					if ch.Delete {
						delete(model, ch.Key)
					} else {
						model[ch.Key] = kept{string(ch.Value), ch.Until}
					}
				}
				if err := o.Write(changes...); err != nil {
					r.Fatal(err)
				}
			}
			for k, m := range model {
				got, err := o.Get(k)
				alive := m.until.IsZero() || !c.Now().After(m.until)
				if alive && (err != nil || string(got) != m.value) || !alive && !errors.Is(err, ErrNotFound) {
					r.Fatalf("%v: %q, %v; want %+v alive=%v", k, got, err, m, alive)
				}
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	o := &Outbox{root: key, now: time.Now}
	good, err := o.seal(Key{'r', "ow"}, time.Time{}, []byte("value"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("row"), good)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, row, raw []byte) {
		if len(row) == 0 {
			row = []byte{0}
		}
		v, err := o.open(Key{Table(row[0]), string(row[1:])}, raw)
		if err == nil && (!bytes.Equal(row, []byte("row")) || string(v) != "value") {
			t.Fatalf("opened %q in row %q", v, row)
		}
	})
}

// BenchmarkLazy is a write of two rows that nobody waits for, as a supplier's last ones.
func BenchmarkLazy(b *testing.B) {
	o, err := Open(Config{StorageKey: key})
	if err != nil {
		b.Fatal(err)
	}
	defer o.Close()
	value := make([]byte, 600)
	b.ReportAllocs()
	for b.Loop() {
		if err := o.Write(Change{Key: Key{'a', "one"}, Value: value}, Change{Key: Key{'b', "two"}, Value: value}); err != nil {
			b.Fatal(err)
		}
	}
}
