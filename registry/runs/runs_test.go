package runs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var testKey = bytes.Repeat([]byte{9}, 32)

func write(t interface{ Fatal(...any) }, tree *Tree, rows map[string]string) {
	r, err := tree.Write(uint64(len(rows)), func(yield func(k, v []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(rows)) {
			if !yield([]byte(k), []byte(rows[k])) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	v := tree.Current()
	defer v.Release()
	tree.Install(v.With(r))
}

func content(t interface{ Fatal(...any) }, v *Version) map[string]string {
	got := make(map[string]string)
	it, err := v.Iterate([]byte{0})
	if err != nil {
		t.Fatal(err)
	}
	for last := ""; it.Valid(); {
		k, val := it.Row()
		if string(k) <= last {
			t.Fatal("out of order", string(k), last)
		}
		last = string(k)
		if len(val) > 0 {
			got[last] = string(val)
		}
		if err := it.Next(); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

// TestTreeIsAMap: whatever is written, merged and opened again reads as a map would.
func TestTreeIsAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		key := rapid.SampledFrom([][]byte{nil, testKey}).Draw(rt, "key")
		tree, err := Open(dir, key, nil)
		if err != nil {
			rt.Fatal(err)
		}
		want := make(map[string]string)
		name := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("k%03d", rapid.IntRange(0, 300).Draw(t, "n")) })
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			default:
				rows := make(map[string]string)
				for range rapid.IntRange(1, 200).Draw(rt, "rows") {
					k := name.Draw(rt, "k")
					rows[k] = "" // deleted
					delete(want, k)
					if rapid.IntRange(0, 4).Draw(rt, "deleted") > 0 {
						rows[k] = string(bytes.Repeat([]byte{byte(rapid.IntRange(1, 255).Draw(rt, "v"))}, rapid.IntRange(1, 200).Draw(rt, "length")))
						want[k] = rows[k]
					}
				}
				write(rt, tree, rows)
			case 0:
				m := tree.Due()
				if rapid.Bool().Draw(rt, "all") && m == nil {
					m = tree.All()
				}
				if m == nil {
					continue
				}
				by, err := m.Do(context.Background())
				if err != nil {
					rt.Fatal(err)
				}
				v := tree.Current()
				next, err := v.Replace(m, by)
				if err != nil {
					rt.Fatal(err)
				}
				tree.Install(next)
				v.Release()
				m.Release()
			case 1:
				v := tree.Current()
				manifest := v.Manifest()
				v.Release()
				if err := tree.Close(); err != nil {
					rt.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "00000000000000ff.run"), []byte("leftover"), 0o600); err != nil {
					rt.Fatal(err)
				}
				if tree, err = Open(dir, key, manifest); err != nil {
					rt.Fatal(err)
				}
			}
			v := tree.Current()
			if got := content(rt, v); !maps.Equal(got, want) {
				rt.Fatalf("%d rows, want %d", len(got), len(want))
			}
			r := v.Reader()
			for range 40 {
				k := name.Draw(rt, "look")
				got, _, err := r.Get([]byte(k))
				if err != nil || string(got) != want[k] {
					rt.Fatalf("%s is %q, want %q: %v", k, got, want[k], err)
				}
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*.run"))
			if len(files) != len(v.runs) {
				rt.Fatalf("%d files for %d runs", len(files), len(v.runs))
			}
			v.Release()
		}
		if err := tree.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestOldVersionStays: who holds a version reads it, whatever comes of its runs.
func TestOldVersionStays(t *testing.T) {
	tree, err := Open(t.TempDir(), testKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, tree, map[string]string{"a": "1", "b": "1"})
	old := tree.Current()
	write(t, tree, map[string]string{"a": "2", "b": ""})
	m := tree.All()
	by, err := m.Do(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	v := tree.Current()
	next, err := v.Replace(m, by)
	if err != nil {
		t.Fatal(err)
	}
	tree.Install(next)
	v.Release()
	m.Release()
	if got := content(t, old); got["a"] != "1" || got["b"] != "1" {
		t.Error(got)
	}
	if _, ok := tree.Acquire(old.ID()); !ok {
		t.Error("a version in use is gone")
	}
	old.Release()
	old.Release()
	if _, ok := tree.Acquire(old.ID()); ok {
		t.Error("a version that nobody uses is still there")
	}
	now := tree.Current()
	if got := content(t, now); len(got) != 1 || got["a"] != "2" {
		t.Error(got)
	}
	now.Release()
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
}

// FuzzRun: bytes that were not written as a run are an error, or read without harm.
func FuzzRun(f *testing.F) {
	dir := f.TempDir()
	tree, err := Open(dir, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	write(f, tree, map[string]string{"a": "1", "ab": "2", "abc": "", "b": "3"})
	files, _ := filepath.Glob(filepath.Join(dir, "*.run"))
	good, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-5])
	path := filepath.Join(f.TempDir(), "x.run")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := openRun(path, 1, nil)
		if err != nil {
			return
		}
		defer r.f.Close()
		it := merged([]*run{r})
		if err := it.seek([]byte{0}); err != nil {
			return
		}
		for n := 0; it.Valid() && n < 1000; n++ {
			if err := it.Next(); err != nil {
				return
			}
		}
	})
}

func TestOtherKey(t *testing.T) {
	dir := t.TempDir()
	tree, err := Open(dir, testKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, tree, map[string]string{"secret-subject": "row"})
	v := tree.Current()
	manifest := v.Manifest()
	v.Release()
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.run"))
	if b, err := os.ReadFile(files[0]); err != nil || bytes.Contains(b, []byte("secret-subject")) {
		t.Error("a key lies open on disk", err)
	}
	for name, key := range map[string][]byte{"another": bytes.Repeat([]byte{8}, 32), "none": nil} {
		if _, err := Open(dir, key, manifest); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s key: %v", name, err)
		}
	}
}
