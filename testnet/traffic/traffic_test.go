package traffic

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// TestShares: they are a whole day, and a plan divides all of it.
func TestShares(t *testing.T) {
	parts := 0.0
	for _, s := range Shares {
		parts += s.Part
	}
	if math.Abs(parts-1) > 1e-9 {
		t.Errorf("the shares add up to %v", parts)
	}
	all := 0
	for _, n := range (Plan{Fraction: 1}).counts() {
		all += n
	}
	if all != FullDay {
		t.Errorf("a day of %d", all)
	}
	for kind, n := range (Plan{Fraction: 1e-9}).counts() {
		if n != 1 {
			t.Errorf("%d %s", n, kind)
		}
	}
}

// TestChanges: as many deliveries as are wanted come of them, about living persons.
func TestChanges(t *testing.T) {
	w, err := data.New(data.Config{Seed: 1, Persons: 500, Institutions: 7})
	if err != nil {
		t.Fatal(err)
	}
	all := Changes(w, 300, data.Today+100)
	told, sets := 0, map[names.DatasetID]int{}
	for _, c := range all {
		told += c.Told
		sets[c.Request.Dataset]++
		id, err := subject.Belgian().Parse(subject.SSIN, c.Request.Subject.Number)
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := w.Find(id); !ok || !lives(p) {
			t.Errorf("a change about %v", p)
		}
	}
	if told < 300 || told > 310 || len(sets) != 2 {
		t.Errorf("%d deliveries of %v", told, sets)
	}
	few := upTo(all, 10)
	if told = 0; len(few) == 0 || len(few) > 10 {
		t.Errorf("%d changes for 10 deliveries", len(few))
	}
	for _, c := range few {
		told += c.Told
	}
	if told < 10 || told-few[len(few)-1].Told >= 10 {
		t.Errorf("%d deliveries of those for 10", told)
	}
}

// TestSample keeps few of many, and all of few.
func TestSample(t *testing.T) {
	s := newSample(Lots)
	for i := range 5 {
		s.add("a", names.Ticket(rune('a'+i)))
	}
	if len(s.all) != 5 {
		t.Errorf("%d of 5", len(s.all))
	}
	for range 1000 {
		s.add("b", "later")
	}
	late := slices.IndexFunc(s.all, func(t Ticket) bool { return t.Of == "b" })
	if len(s.all) != sampleSize || late < 0 {
		t.Errorf("%d of 1005: %v", len(s.all), s.all)
	}
}

// TestInsist comes back when it is told to, and not otherwise.
func TestInsist(t *testing.T) {
	n := 0
	err := insist(t.Context(), func() error {
		if n++; n < 3 {
			return &api.Problem{Status: http.StatusTooManyRequests}
		}
		return nil
	})
	if err != nil || n != 3 {
		t.Errorf("%v after %d calls", err, n)
	}
	broken := errors.New("broken")
	if err := insist(t.Context(), func() error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestDay plays a hundred exchanges of all kinds, and traces some of each.
func TestDay(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: a network of its own")
	}
	n, err := testnet.Start(t.Context(), testnet.Options{Nodes: 7, Also: []names.InstitutionID{Employer}, Persons: 300})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	c := data.Consultation{
		Requester: "fpd", Purpose: "pension-calculation", Dataset: "wages-quarterly/v1", Scheme: subject.SSIN, Period: names.Period{From: data.Today - 364, Until: data.Today},
	}
	p := Plan{Fraction: 2e-5, Lot: c, Callers: 4, Later: later}
	for person := range n.World().Persons() {
		if lives(person) && works(person) {
			p.Numbers = append(p.Numbers, person.SSIN.Number())
		}
	}
	var turnedAway atomic.Int64
	p.Consult = func(ctx context.Context, i int) (names.InstitutionID, names.Ticket, error) {
		if i == 1 && turnedAway.Add(1) < 3 {
			return "", "", &api.Problem{Status: http.StatusTooManyRequests}
		}
		q := c
		q.Number = p.Numbers[i%len(p.Numbers)]
		got, err := n.Client(c.Requester).Consult(ctx, testnet.Question(q, ""))
		if err == nil && got.Status != "DATA_FOUND" {
			err = errors.New(got.Status + got.Reason)
		}
		return c.Requester, got.Ticket, err
	}
	got, err := Day(t.Context(), n, p)
	if err != nil {
		t.Fatal(err)
	}
	want := p.counts()
	if got.Exchanges[Consultations] != want[Consultations] || got.Exchanges[Lots] != want[Lots] || got.Exchanges[Declarations] != want[Declarations] ||
		got.Exchanges[Notifications] < want[Notifications] || got.CameBack != 2 || got.Lots == 0 {
		t.Errorf("%+v, want %v", got, want)
	}
	whole, complaint, err := Trace(t.Context(), n, got.Tickets)
	kinds := map[Kind]bool{}
	for _, x := range got.Tickets {
		kinds[x.Kind] = true
	}
	if err != nil || whole != len(got.Tickets) || len(kinds) != len(Shares) {
		t.Errorf("%d of %d traces are whole, of %v: %s, %v", whole, len(got.Tickets), kinds, complaint, err)
	}
	if _, err := Day(t.Context(), n, Plan{Fraction: 2}); !errors.Is(err, ErrPlan) {
		t.Errorf("two days: %v", err)
	}
}
