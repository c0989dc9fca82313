package belgium

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/record"
)

// TestAlone loads a small part of the country into one store, restores another from its
// snapshot, and looks every institution's files up. With BELGIUM_PERSONS it does so with
// so many persons, and says how long that took.
func TestAlone(t *testing.T) {
	persons := 1_557
	if n, err := strconv.Atoi(os.Getenv("BELGIUM_PERSONS")); err == nil {
		persons = n
	}
	c := New(persons)
	a, err := openAlone(t.TempDir(), bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.admit(c); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	sent, err := a.load(c, 24)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	n := float64(c.References())
	t.Logf("%d references in %v: %.2f µs and %.1f bytes each", c.References(), took.Round(time.Millisecond), float64(took.Microseconds())/n, float64(sent)/n)
	check := func(v record.View) error {
		counts, err := v.Counts()
		if err != nil {
			return err
		}
		if counts.References != uint64(c.References()) {
			t.Errorf("%d references, want %d", counts.References, c.References())
		}
		known := 0
		for p := range min(persons, 2_000) {
			refs, err := v.References(c.Number(p))
			if err != nil {
				return err
			}
			known += len(refs)
		}
		if mean := float64(known) / float64(min(persons, 2_000)); mean < 7 || mean > 9 {
			t.Errorf("a person is known at %.2f institutions", mean)
		}
		return nil
	}
	if err := a.View(check); err != nil {
		t.Fatal(err)
	}
	b, err := openAlone(t.TempDir(), bytes.Repeat([]byte{2}, 32))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(a.Snapshot(w)) }()
	began = time.Now()
	if err := b.Restore(r); err != nil {
		t.Fatal(err)
	}
	t.Logf("restored in %v: %.2f µs each", time.Since(began).Round(time.Millisecond), float64(time.Since(began).Microseconds())/n)
	if err := b.View(check); err != nil {
		t.Fatal(err)
	}
	one, err := a.Now()
	if err != nil {
		t.Fatal(err)
	}
	if other, err := b.Now(); err != nil || one != other {
		t.Errorf("the restored store has another hash than the one it was made from: %v", err)
	}
}
