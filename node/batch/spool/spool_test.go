package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
)

var key = bytes.Repeat([]byte{3}, 32)

func open(t *testing.T, dir disk.FS) *Spool {
	t.Helper()
	s, err := Open(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFrames(t *testing.T) {
	dir := disktest.New()
	s := open(t, dir)
	w, err := s.Create("lot.input")
	if err != nil {
		t.Fatal(err)
	}
	var want [][]byte
	for i := range 20 {
		want = append(want, bytes.Repeat([]byte("74071238186"), i))
		if err := w.Frame(want[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Reader("lot.input"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("it has its name before it is whole: %v", err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	r, err := open(t, dir).Reader("lot.input")
	if err != nil {
		t.Fatal(err)
	}
	if r.Len() != len(want) {
		t.Fatalf("%d frames", r.Len())
	}
	for i := range want {
		if got, err := r.Frame(i); err != nil || !bytes.Equal(got, want[i]) {
			t.Fatalf("frame %d: %v", i, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	// Nobody reads it from the disk, moves it, or changes a byte of it unseen.
	f, _ := dir.Open("lot.input", false)
	size, _ := f.Size()
	raw := make([]byte, size)
	if _, err := f.ReadAt(raw, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("74071238186")) {
		t.Fatal("numbers lie on the disk as they are")
	}
	other, _ := dir.Open("other.input", true)
	_, _ = other.WriteAt(raw, 0)
	if _, err := s.Get("other.input"); !errors.Is(err, ErrDamaged) {
		t.Errorf("moved: %v", err)
	}
	for at := range raw {
		if at%97 != 0 {
			continue
		}
		_, _ = f.WriteAt([]byte{raw[at] ^ 1}, int64(at))
		if intact(s, want) {
			t.Fatalf("byte %d changed unseen", at)
		}
		_, _ = f.WriteAt(raw[at:at+1], int64(at))
	}
	if err := s.Remove("lot."); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reader("lot.input"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
}

func intact(s *Spool, want [][]byte) bool {
	r, err := s.Reader("lot.input")
	if err != nil || r.Len() != len(want) {
		return false
	}
	defer r.Close()
	for i := range want {
		if got, err := r.Frame(i); err != nil || !bytes.Equal(got, want[i]) {
			return false
		}
	}
	return true
}

// Half a file has no name, and is gone with the next opening.
func TestHalf(t *testing.T) {
	dir := disktest.New()
	s := open(t, dir)
	w, err := s.Create("lot.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Frame([]byte("x")); err != nil {
		t.Fatal(err)
	}
	names, err := func() ([]string, error) { open(t, dir); return dir.List() }()
	if err != nil || len(names) != 0 {
		t.Fatalf("left: %v, %v", names, err)
	}
}

func TestTwins(t *testing.T) {
	s := open(t, disktest.New())
	rnd := rand.New(rand.NewPCG(1, 1))
	tw := s.Twins("lot.twins")
	first := map[string]uint32{}
	var want []Twin
	for line := range uint32(20_000) {
		n := fmt.Sprint(rnd.IntN(15_000))
		if f, ok := first[n]; ok {
			want = append(want, Twin{line, f})
		} else {
			first[n] = line
		}
		if err := tw.Add(line, n); err != nil {
			t.Fatal(err)
		}
	}
	got, err := tw.All()
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%d twins, want %d: %v", len(got), len(want), err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := s.List(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}
