package disktest

import (
	"bytes"
	"errors"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

func put(t *testing.T, d *FS, name string, b []byte) disk.File {
	t.Helper()
	f, err := d.Open(name, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestForgets: what was not synced is gone after a loss of power, name or content.
func TestForgets(t *testing.T) {
	d := New()
	old := bytes.Repeat([]byte{1}, 3*SectorSize)
	f := put(t, d, "kept", old)
	if err := errors.Join(f.Sync(), d.SyncDir()); err != nil {
		t.Fatal(err)
	}
	f.WriteAt(bytes.Repeat([]byte{2}, 5*SectorSize), 0)
	g := put(t, d, "nameless", old)
	g.Sync()
	d.Crash(Nothing)
	if got := d.Bytes("kept"); !bytes.Equal(got, old) {
		t.Errorf("unsynced bytes survived")
	}
	if d.Bytes("nameless") != nil {
		t.Error("an unsynced name survived")
	}
	if _, err := f.WriteAt(old, 0); !errors.Is(err, ErrStale) {
		t.Errorf("a handle outlived the crash: %v", err)
	}
}

// TestSectors: unsynced sectors survive whole or not at all, and in no order.
func TestSectors(t *testing.T) {
	holes := 0
	for seed := range uint64(20) {
		d := New()
		f := put(t, d, "f", make([]byte, 8*SectorSize))
		f.Sync()
		d.SyncDir()
		f.WriteAt(bytes.Repeat([]byte{2}, 8*SectorSize), 0)
		d.Crash(Random(seed))
		b, last := d.Bytes("f"), byte(2)
		for i := 0; i < len(b); i += SectorSize {
			if s := b[i : i+SectorSize]; !bytes.Equal(s, bytes.Repeat(s[:1], SectorSize)) {
				t.Fatal("half a sector")
			}
			if last == 0 && b[i] == 2 {
				holes++
			}
			last = b[i]
		}
	}
	if holes == 0 {
		t.Error("sectors only ever arrived in order")
	}
}

// TestFailedSyncLoses: the cache shows it, the next sync succeeds, the disk never
// gets it.
func TestFailedSyncLoses(t *testing.T) {
	boom := errors.New("boom")
	for _, done := range []bool{false, true} {
		d := New()
		f := put(t, d, "f", []byte("old"))
		f.Sync()
		d.SyncDir()
		f.WriteAt([]byte("new"), 0)
		if done {
			d.FailDone(Sync, boom)
		} else {
			d.Fail(Sync, boom)
		}
		if err := f.Sync(); !errors.Is(err, boom) {
			t.Fatal(err)
		}
		d.Fail(Sync, nil)
		if err := f.Sync(); err != nil || string(d.Bytes("f")) != "new" {
			t.Fatal(err, string(d.Bytes("f")))
		}
		d.Crash(Everything)
		if got, want := string(d.Bytes("f")), map[bool]string{false: "old", true: "new"}[done]; got != want {
			t.Errorf("done=%t: %q on disk, want %q", done, got, want)
		}
	}
}

func TestFailAfter(t *testing.T) {
	d := New()
	f := put(t, d, "f", []byte("one")) // open and write
	d.FailAfter(1)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := d.SyncDir(); !errors.Is(err, ErrPower) {
		t.Fatal(err)
	}
	if d.Ops() != 4 {
		t.Errorf("%d operations counted", d.Ops())
	}
	d.Crash(Nothing)
	if err := d.SyncDir(); err != nil {
		t.Error(err)
	}
}
