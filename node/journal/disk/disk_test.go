package disk_test

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
)

// TestConformance holds the real disk and the one for tests to the same rules.
func TestConformance(t *testing.T) {
	real, err := disk.OpenDir(t.TempDir() + "/a/b")
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]disk.FS{"real": real, "test": disktest.New()} {
		t.Run(name, func(t *testing.T) {
			if _, err := d.Open("absent", false); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("absent: %v", err)
			}
			f, err := d.Open("one", true)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("world"), 6); err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("hello "), 0); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			if n, err := f.Size(); n != 11 || err != nil {
				t.Errorf("size %d, %v", n, err)
			}
			again, err := d.Open("one", true)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			b := make([]byte, 20)
			if n, err := again.ReadAt(b, 0); string(b[:n]) != "hello world" || err != io.EOF {
				t.Errorf("read %q, %v", b[:n], err)
			}
			if n, err := again.ReadAt(b, 50); n != 0 || err != io.EOF {
				t.Errorf("read %d bytes past the end, %v", n, err)
			}
			if err := d.Rename("one", "two"); err != nil {
				t.Fatal(err)
			}
			if err := d.SyncDir(); err != nil {
				t.Fatal(err)
			}
			if names, err := d.List(); !slices.Equal(names, []string{"two"}) || err != nil {
				t.Errorf("names %v, %v", names, err)
			}
			if _, err := d.Open("three", true); err != nil {
				t.Fatal(err)
			}
			if err := d.Remove("three"); err != nil {
				t.Fatal(err)
			}
			if err := d.Remove("three"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("removed twice: %v", err)
			}
			if names, err := d.List(); !slices.Equal(names, []string{"two"}) || err != nil {
				t.Errorf("names %v, %v", names, err)
			}
			l, err := d.Lock("LOCK")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Lock("LOCK"); !errors.Is(err, disk.ErrLocked) {
				t.Errorf("locked twice: %v", err)
			}
			l.Close()
			if l, err = d.Lock("LOCK"); err != nil {
				t.Fatal(err)
			}
			l.Close()
		})
	}
}
