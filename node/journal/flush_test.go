package journal

import (
	"os"
	"path/filepath"
	"testing"
)

// After a crash the index is read again from where all of its files were last synced, and
// no further: everything is found, once.
func TestSafeAgainstLossOfPower(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	safe := func() uint64 {
		t.Helper()
		_, safe, _, err := j.index.state()
		if err != nil {
			t.Fatal(err)
		}
		return safe
	}
	add(t, j, entry(0)) // the first rows begin a flush, the next say how far it came
	find(t, j, Query{})
	if got := safe(); got != 0 {
		t.Errorf("safe before %d, and nothing was synced when that was written", got)
	}
	j.Close()

	j = open(t, Config{Dir: dir})
	for i := 1; i < 300; i++ {
		add(t, j, entry(i))
	}
	find(t, j, Query{})
	j.index.flusher.wait() // the writer waits for work, and does not touch it
	flushed := j.index.flusher.safe.Load()
	if flushed == 0 || flushed > 300 {
		t.Fatalf("flushed before %d", flushed)
	}
	add(t, j, entry(300))
	find(t, j, Query{})
	if got := safe(); got != flushed {
		t.Errorf("safe before %d, want %d", got, flushed)
	}
	if _, _, dirty, err := j.index.state(); err != nil || !dirty {
		t.Errorf("dirty %t, %v: it is open", dirty, err)
	}

	// What a killed process leaves is what its files hold.
	crashed := t.TempDir()
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	k := open(t, Config{Dir: crashed})
	if k.index.safe != flushed {
		t.Errorf("indexed again from %d, want %d", k.index.safe, flushed)
	}
	if got := find(t, k, Query{Limit: 1000}); len(got) != 301 {
		t.Errorf("%d entries are found of 301", len(got))
	}
}

// A flush that fails stops the index, and is not tried again as if nothing had been.
func TestFlushThatFails(t *testing.T) {
	f := flusher{dir: filepath.Join(t.TempDir(), "gone")}
	if err := f.begin(1); err != nil {
		t.Fatal(err)
	}
	f.wait()
	for range 2 {
		if err := f.begin(2); err == nil {
			t.Error("it goes on after a sync that failed")
		}
	}
	if got := f.safe.Load(); got != 0 {
		t.Errorf("safe before %d", got)
	}
}
