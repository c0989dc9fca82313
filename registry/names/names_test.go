package names

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestValidate(t *testing.T) {
	type validator interface{ Validate() error }
	for _, c := range []struct {
		name validator
		ok   bool
	}{
		{MeshID("demo.crossroads.test"), true}, {MeshID("Demo"), false}, {MeshID(""), false},
		{InstitutionID("nsso"), true}, {InstitutionID("a/b"), false}, {InstitutionID(strings.Repeat("a", 64)), false},
		{InstitutionID("@operators"), false}, // the threshold groups can be nobody's name
		{SectorID(""), true}, {SectorID("health-insurance"), true}, {SectorID("a b"), false},
		{DatasetID("wages/v1"), true}, {DatasetID("wages"), false}, {DatasetID("wages/v0"), false},
		{DatasetID("wages/v1x"), false}, {DatasetID("/v1"), false}, {DatasetID("wages/v"), false},
		{FieldName("gross_amount"), true}, {FieldName("a.b"), false},
		{Mode("consultation"), true}, {Mode("peek"), false},
		{ClientTicket("A-17"), true}, {ClientTicket(strings.Repeat("x", 37)), false}, {ClientTicket("a\nb"), false},
		{TicketOf([]byte("x")), true}, {Ticket("short"), false}, {Ticket(strings.Repeat("!", 26)), false},
		{UserID("j.doe@nsso"), true}, {UserID("a\x00"), false},
		{NodeID{"nsso", "n1"}, true}, {NodeID{"nsso", ""}, false},
		{Period{10, 10}, true}, {Period{11, 10}, false}, {Period{Always, Forever}, true}, {Period{Always - 1, 0}, false},
	} {
		err := c.name.Validate()
		if (err == nil) != c.ok {
			t.Errorf("%T %v: %v, want ok=%v", c.name, c.name, err, c.ok)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%T %v: %v does not wrap ErrMalformed", c.name, c.name, err)
		}
	}
}

// TestTicketVector freezes how a ticket is derived: two releases that differ here
// would give one transaction two numbers.
func TestTicketVector(t *testing.T) {
	if got, want := TicketOf([]byte("request")), Ticket("22x8bn3mas3wz8we9p7h3cmvjc"); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestDates(t *testing.T) {
	for s, want := range map[string]Date{"1970-01-01": 0, "1969-12-31": -1, "0001-01-01": Always, "9999-12-31": Forever} {
		got, err := ParseDate(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%s: got %d (%s), %v, want %d", s, got, got, err, want)
		}
	}
	if _, err := ParseDate("2023-02-29"); !errors.Is(err, ErrMalformed) {
		t.Errorf("29 February 2023: %v", err)
	}
	brussels := time.FixedZone("CET", 3600)
	if d := DateOf(time.Date(2024, 1, 1, 0, 30, 0, 0, brussels)); d.String() != "2024-01-01" {
		t.Errorf("half past midnight in Brussels is on %s", d)
	}
}

// TestOverlapAgainstCounting compares Overlaps with counting the days.
func TestOverlapAgainstCounting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Period{Date(rapid.IntRange(-20, 20).Draw(t, "a")), Date(rapid.IntRange(-20, 20).Draw(t, "b"))}
		q := Period{Date(rapid.IntRange(-20, 20).Draw(t, "c")), Date(rapid.IntRange(-20, 20).Draw(t, "d"))}
		if p.Validate() != nil || q.Validate() != nil {
			return
		}
		shared := false
		for d := p.From; d <= p.Until; d++ {
			shared = shared || q.Contains(d)
		}
		if p.Overlaps(q) != shared || q.Overlaps(p) != shared {
			t.Fatalf("%v and %v: Overlaps %v, counted %v", p, q, p.Overlaps(q), shared)
		}
	})
}

func FuzzParseNodeID(f *testing.F) {
	f.Add("nsso/n1")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseNodeID(s); err == nil && id.String() != s {
			t.Fatalf("%q reads as %q", s, id)
		}
	})
}
