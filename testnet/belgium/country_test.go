package belgium

import (
	"errors"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func TestCountry(t *testing.T) {
	full := New(FullPersons)
	if n := full.References(); n < 124_000_000 || n > 126_000_000 {
		t.Errorf("%d references", n)
	}
	if n := len(full.Institutions()); n < 2_000 || n > 3_000 {
		t.Errorf("%d institutions", n)
	}
	for _, persons := range []int{1_000, 155_700, FullPersons} {
		c := New(persons)
		last := ""
		for n := range min(persons, 200_000) {
			id := c.Number(n)
			if _, err := subject.Belgian().Parse(subject.SSIN, id.Number()); err != nil {
				t.Fatalf("person %d: %v", n, err)
			}
			if id.Number() <= last {
				t.Fatalf("person %d is out of order", n)
			}
			last = id.Number()
		}
		for _, i := range c.Institutions() {
			before := -1
			for n := range min(i.Count(), 5_000) {
				p := i.Person(n)
				if p <= before || p >= persons {
					t.Fatalf("%s knows person %d after %d", i.ID, p, before)
				}
				before = p
			}
			if p := i.Person(i.Count() - 1); p >= persons {
				t.Fatalf("%s knows person %d of %d", i.ID, p, persons)
			}
		}
	}
}

// TestNational: few institutions, and as many references as were wanted.
func TestNational(t *testing.T) {
	c := National(1_000_000)
	if n := c.References(); n < 990_000 || n > 1_010_000 {
		t.Errorf("%d references", n)
	}
	if n := len(c.Institutions()); n < 10 || n > 20 {
		t.Errorf("%d institutions", n)
	}
}

// TestNothingHeld: a folder that was not filled is no directory.
func TestNothingHeld(t *testing.T) {
	if _, err := Open(t.Context(), Options{Dir: t.TempDir()}); !errors.Is(err, ErrNothingHeld) {
		t.Error(err)
	}
}
