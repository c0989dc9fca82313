package reading

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var guard = Reader{Application: "security", User: "sam", Officer: true, Oversees: []string{"alice", "desk-*"}}

func asked(user, about string, when time.Time) *nodepb.Entry {
	return &nodepb.Entry{
		TimeUnixMs: when.UnixMilli(), Role: nodepb.Role_CONSULTANT, Event: nodepb.Event_REQUESTED, Requester: ref(office), User: user,
		Subject: recordtest.SSIN(about), Ticket: ticketA, Dataset: "wages/v1", Purpose: "inquiry",
	}
}

func TestOfficerSearch(t *testing.T) {
	m := newMesh(t)
	l := m.logs[office]
	foreign := asked("alice", person, today)
	foreign.Requester = ref(source) // another institution has an alice too
	denied := asked("desk-1", person, today)
	denied.Outcome, denied.Reason = registrypb.Outcome_DENY, registrypb.Reason_NOT_INTEGRATED
	l.entries = []*nodepb.Entry{
		asked("alice", person, today.Add(-time.Hour)), asked("bob", person, today), foreign, denied, asked("desk-2", other, today.Add(-2*time.Hour)),
	}
	s := m.nodes[office]
	users := func(q Search) (all []string) {
		t.Helper()
		if q.Limit == 0 {
			q.Limit = 100
		}
		found, err := s.Search(t.Context(), guard, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range found.Entries {
			if e.Entry.Role != nodepb.Role_READER {
				all = append(all, e.Entry.User)
			}
		}
		return all
	}
	for _, c := range []struct {
		q    Search
		want []string
	}{
		{Search{}, []string{"desk-1", "alice", "desk-2"}},
		{Search{User: "alice"}, []string{"alice"}},
		{Search{Outcome: "DENY"}, []string{"desk-1"}},
		{Search{Outcome: "NOT_INTEGRATED"}, []string{"desk-1"}},
		{Search{From: today.Add(-90 * time.Minute), Until: today}, []string{"alice"}},
		{Search{Dataset: "other/v1"}, nil},
		{Search{Purpose: "inquiry", Limit: 1}, []string{"desk-1"}},
	} {
		if got := users(c.q); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.q, got, c.want)
		}
	}
	if found, _ := s.Search(t.Context(), guard, Search{Limit: 1}); !found.More {
		t.Error("that there are more is not told")
	}
	before := len(l.reads(registrypb.Outcome_DENY))
	for who, user := range map[string]string{"officer": "bob", "desk": "alice"} {
		r := guard
		r.Officer = who == "officer"
		if _, err := s.Search(t.Context(), r, Search{User: "bob", Limit: 1}); !errors.Is(err, ErrNoRight) {
			t.Errorf("%s about %s: %v", who, user, err)
		}
	}
	if got := l.reads(registrypb.Outcome_DENY); len(got) != before+2 || got[0].User != "sam" || got[0].Detail == "" {
		t.Errorf("journaled %v", got)
	}
	l.fail = errDisk
	if _, err := s.Search(t.Context(), guard, Search{Limit: 1}); !errors.Is(err, ErrJournal) {
		t.Errorf("%v", err)
	}
}

// Pages give what one look would, also with many entries in one millisecond.
func TestPages(t *testing.T) {
	m := newMesh(t)
	l := m.logs[office]
	random := rand.New(rand.NewPCG(1, 2))
	for range 3*scanPage + 17 {
		l.entries = append(l.entries, asked("alice", person, today.Add(-time.Duration(random.IntN(5))*time.Millisecond)))
	}
	seen := map[uint64]int{}
	more, err := m.nodes[office].pages(t.Context(), journal.Query{}, func(e journal.Stored) bool { seen[e.Sequence]++; return true })
	if err != nil || more || len(seen) != len(l.entries) {
		t.Fatalf("%d of %d entries, more: %t, %v", len(seen), len(l.entries), more, err)
	}
	for n, times := range seen {
		if times != 1 {
			t.Fatalf("entry %d was given %d times", n, times)
		}
	}
}

func TestReport(t *testing.T) {
	m := newMesh(t)
	l := m.logs[office]
	brussels, err := time.LoadLocation("Europe/Brussels")
	if err != nil {
		t.Fatal(err) // Go brings the time zones along
	}
	monday := time.Date(2026, 5, 18, 9, 0, 0, 0, brussels)
	for i := range 30 {
		l.entries = append(l.entries, asked("desk-busy", recordtest.Person(100+i), monday.Add(time.Duration(i)*time.Minute)))
	}
	for i := range 6 { // the same person on three days
		l.entries = append(l.entries, asked("alice", person, monday.AddDate(0, 0, i/2)))
	}
	for i := range 4 {
		l.entries = append(l.entries, asked(fmt.Sprintf("desk-%d", i), other, monday))
	}
	l.entries = append(l.entries,
		asked("desk-0", other, time.Date(2026, 5, 18, 6, 59, 0, 0, brussels)), // 04:59 UTC
		asked("desk-1", other, time.Date(2026, 5, 18, 19, 0, 0, 0, brussels)),
		asked("desk-2", other, time.Date(2026, 5, 17, 12, 0, 0, 0, brussels)), // Sunday
		asked("bob", other, time.Date(2026, 5, 17, 3, 0, 0, 0, brussels)),     // not overseen
	)
	r, err := m.nodes[office].Report(t.Context(), guard, ReportQuery{Zone: "Europe/Brussels"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Uses != 43 || r.Users != 6 || r.Median != 2 || r.Partial {
		t.Errorf("%+v", r)
	}
	if len(r.OffHours) != 3 || r.OffHours[0].User != "desk-0" || r.OffHours[2].User != "desk-2" {
		t.Errorf("off hours %+v", r.OffHours)
	}
	if len(r.Volume) != 2 || r.Volume[0].User != "desk-busy" || r.Volume[0].Times != 15 || r.Volume[1].User != "alice" {
		t.Errorf("volume %+v", r.Volume)
	}
	if len(r.Repeated) != 1 || r.Repeated[0].User != "alice" || r.Repeated[0].Uses != 6 || r.Repeated[0].Days != 3 || len(r.Repeated[0].Tickets) != 6 {
		t.Errorf("repeated %+v", r.Repeated)
	}
	for _, q := range []ReportQuery{{Zone: "Nowhere/Land"}, {Begins: "25:00"}, {Begins: "19:00", Ends: "07:00"}, {Volume: 0.5}, {Repeated: 1}, {From: today, Until: today}} {
		if _, err := m.nodes[office].Report(t.Context(), guard, q); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if _, err := m.nodes[office].Report(t.Context(), desk, ReportQuery{}); !errors.Is(err, ErrNoRight) {
		t.Errorf("whoever is no officer: %v", err)
	}
}
