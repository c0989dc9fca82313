package record_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func (r *replica) references(number string) []record.Reference {
	r.t.Helper()
	refs, err := record.NewView(r.state).References(id(number))
	if err != nil {
		r.t.Fatal(err)
	}
	return refs
}

func (r *replica) counts() record.Counts {
	r.t.Helper()
	c, err := record.NewView(r.state).Counts()
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func TestReferences(t *testing.T) {
	r := founded(t)
	w := r.w
	p1, p2 := recordtest.Person(1), recordtest.Person(2)
	limited := recordtest.Reference(p1, "employee")
	limited.Period = &registrypb.Period{From: 18262, Until: 18300}
	res := r.ok(w.Declare("office", recordtest.Reference(p1, "living-wage"), limited, recordtest.Reference(p2, "living-wage")))
	if res.Public || res.RemovesRight || res.Kind != "declare_references" {
		t.Errorf("result %+v", res)
	}
	r.ok(w.Declare("register", recordtest.Reference(p1, "employee")))
	r.ok(w.Declare("register", recordtest.Reference(p1, "employee"))) // says nothing new
	since := record.Period(recordtest.Since())
	filed := subject.Raw(subject.SSIN, p1)
	want := []record.Reference{
		{Institution: "office", Quality: "employee", Period: names.Period{From: 18262, Until: 18300}, Filed: filed},
		{Institution: "office", Quality: "living-wage", Period: since, Filed: filed},
		{Institution: "register", Quality: "employee", Period: since, Filed: filed},
	}
	if got := r.references(p1); !slices.Equal(got, want) {
		t.Errorf("references %v, want %v", got, want)
	}
	if c := r.counts(); c != (record.Counts{Subjects: 2, References: 4}) {
		t.Errorf("counts %+v", c)
	}

	// Exactly the row named is withdrawn, and only one's own.
	gone := recordtest.Reference(p1, "employee")
	gone.Withdrawn = true
	r.refused(w.Sign(w.Draft("office", &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: []*registrypb.Reference{gone}}}), "office"), "not there")
	limited.Withdrawn = true
	lastOf2 := recordtest.Reference(p2, "living-wage")
	lastOf2.Withdrawn = true
	r.ok(w.Declare("office", limited, lastOf2))
	if got := r.references(p1); !slices.Equal(got, want[1:]) {
		t.Errorf("references %v, want %v", got, want[1:])
	}
	if got := r.references(p2); got != nil {
		t.Errorf("references %v, want none", got)
	}
	if c := r.counts(); c != (record.Counts{Subjects: 1, References: 2}) {
		t.Errorf("counts %+v", c)
	}
}

func TestReferencesRefused(t *testing.T) {
	r := founded(t)
	w := r.w
	p := recordtest.Person(1)
	good := recordtest.Reference(p, "employee")
	many := make([]*registrypb.Reference, record.MaxRows+1)
	for i := range many {
		many[i] = good
	}
	var same []*registrypb.Reference
	for i := range 65 {
		same = append(same, recordtest.Reference(p, fmt.Sprintf("q%d", i)))
	}
	spaced := recordtest.Reference(p[:6]+" "+p[6:], "employee")
	backwards := recordtest.Reference(p, "employee")
	backwards.Period = &registrypb.Period{From: 2, Until: 1}
	wide := recordtest.Reference(p, "employee")
	wide.Period = &registrypb.Period{From: -1 << 31, Until: 1<<31 - 1}
	none := recordtest.Reference(p, "employee")
	none.Period = nil
	for name, c := range map[string]struct {
		refs []*registrypb.Reference
		why  string
	}{
		"none":         {nil, "0 rows"},
		"too many":     {many, "10001 rows"},
		"check digits": {[]*registrypb.Reference{good, recordtest.Reference("74071238187", "employee")}, "row 2"},
		"spaces":       {[]*registrypb.Reference{spaced}, "canonical"},
		"scheme":       {[]*registrypb.Reference{{Subject: &registrypb.Subject{Scheme: "x", Number: p}, Quality: "q", Period: recordtest.Since()}}, "unknown identifier scheme"},
		"no subject":   {[]*registrypb.Reference{{Quality: "q", Period: recordtest.Since()}}, "row 1"},
		"quality":      {[]*registrypb.Reference{recordtest.Reference(p, "Bad Quality")}, "row 1"},
		"period":       {[]*registrypb.Reference{backwards}, "before it begins"},
		"wide period":  {[]*registrypb.Reference{wide}, "out of range"},
		"no period":    {[]*registrypb.Reference{none}, "no period"},
		"on one":       {same, "more than 64"},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			c2 := w.Draft("office", &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: c.refs}})
			r.refused(w.Sign(c2, "office"), c.why)
		})
	}
}

func event(kind registrypb.NumberEvent_Kind, number, successor string) *registrypb.NumberEvent {
	e := &registrypb.NumberEvent{Subject: recordtest.SSIN(number), Kind: kind, Date: 19000}
	if successor != "" {
		e.Successor = recordtest.SSIN(successor)
	}
	return e
}

func (r *replica) numbers(events ...*registrypb.NumberEvent) *registrypb.Command {
	return r.w.Draft("register", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: events}})
}

func (r *replica) tell(events ...*registrypb.NumberEvent) {
	r.t.Helper()
	c := r.numbers(events...)
	r.ok(r.w.Sign(c, "register"))
	r.w.Follow(c)
}

func TestNumbers(t *testing.T) {
	const replaced, cancelled, deceased = registrypb.NumberEvent_REPLACED, registrypb.NumberEvent_CANCELLED, registrypb.NumberEvent_DECEASED
	r := founded(t)
	a, b, c, d := recordtest.Person(1), recordtest.Person(2), recordtest.Person(3), recordtest.Person(4)
	r.ok(r.w.Declare("office", recordtest.Reference(a, "living-wage"), recordtest.Reference(c, "living-wage")))
	r.ok(r.w.Declare("register", recordtest.Reference(b, "employee")))
	r.tell(event(replaced, a, b), event(replaced, b, c), event(cancelled, d, ""), event(deceased, a, ""))
	v := record.NewView(r.state)
	for _, old := range []string{a, b} {
		s, err := v.Number(id(old))
		if err != nil || !s.Replaced || s.Successor != id(c) || s.Cancelled {
			t.Errorf("replaced number: %+v, %v", s, err)
		}
	}
	if s, err := v.Number(id(c)); err != nil || s.Replaced || s.DeceasedOn == nil || *s.DeceasedOn != 19000 {
		t.Errorf("a death told of a former number: %+v, %v", s, err)
	}
	if s, err := v.Number(id(d)); err != nil || !s.Cancelled {
		t.Errorf("cancelled number: %+v, %v", s, err)
	}
	// A file is told of under each number that it was declared under.
	if refs := r.references(c); len(refs) != 3 || refs[0].Institution != "office" || refs[0].Filed == refs[1].Filed || refs[2].Institution != "register" {
		t.Errorf("references of all numbers: %v", refs)
	}
	if refs := r.references(a); len(refs) != 1 {
		t.Errorf("references of the first number: %v", refs)
	}
	if now, err := v.Current(id(a)); err != nil || now != id(c) {
		t.Errorf("current number: %v", err)
	}
	other := event(replaced, d, "")
	other.Successor = &registrypb.Subject{Scheme: "cbe", Number: "0412345614"}
	unnamed := event(cancelled, d, b)
	far := event(deceased, d, "")
	far.Date = 1 << 30
	for why, e := range map[string]*registrypb.NumberEvent{
		"replace itself": event(replaced, c, a),
		"by another":     event(replaced, a, d),
		"same scheme":    other,
		"has a succ":     unnamed,
		"row 1":          event(replaced, d, "74071238187"),
		"out of range":   far,
		"unknown kind":   event(9, d, ""),
	} {
		r.refused(r.w.Sign(r.numbers(e), "register"), why)
	}
	r.refused(r.w.Sign(r.numbers(event(replaced, d, d)), "register"), "itself")
	r.refused(r.w.Sign(r.numbers(event(replaced, d, c), event(replaced, c, d)), "register"), "itself")
	r.tell(event(replaced, a, b)) // told once more
}

func TestFamilyIsBounded(t *testing.T) {
	r := founded(t)
	for n := 1; n < 64; n++ {
		r.tell(event(registrypb.NumberEvent_REPLACED, recordtest.Person(n), recordtest.Person(n+1)))
	}
	r.refused(r.w.Sign(r.numbers(event(registrypb.NumberEvent_REPLACED, recordtest.Person(64), recordtest.Person(65))), "register"), "more than 64")
	r.refused(r.w.Sign(r.numbers(event(registrypb.NumberEvent_REPLACED, recordtest.Person(65), recordtest.Person(1))), "register"), "more than 64")
	if s, err := record.NewView(r.state).Number(id(recordtest.Person(1))); err != nil || s.Successor != id(recordtest.Person(64)) {
		t.Errorf("end of the longest line: %v", err)
	}
}

// TestFollower: whoever follows only what it may see reaches the same verdicts.
func TestFollower(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := founded(t)
		w := r.w
		r.ok(w.Admit(&registrypb.Institution{Id: "second", Type: "register", NumberSchemes: []string{"ssin"}}))
		person := rapid.Map(rapid.IntRange(1, 8), recordtest.Person)
		for range rapid.IntRange(1, 30).Draw(rt, "commands") {
			author := rapid.SampledFrom([]string{"register", "second"}).Draw(rt, "author")
			var body any
			if rapid.Bool().Draw(rt, "numbers") {
				body = &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
					event(registrypb.NumberEvent_REPLACED, person.Draw(rt, "old"), person.Draw(rt, "new"))}}}
			} else {
				ref := recordtest.Reference(person.Draw(rt, "person"), rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "quality"))
				ref.Withdrawn = rapid.Bool().Draw(rt, "withdrawn")
				body = &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: []*registrypb.Reference{ref}}}
			}
			c := w.Draft(author, body)
			if r.apply(w.Sign(c, author)).Accepted {
				w.Follow(c)
			}
		}
		follower := &replica{t: t, w: w, state: new(record.MapState)}
		if err := record.Bootstrap(follower.state, w.Rules); err != nil {
			t.Fatal(err)
		}
		for from := uint64(0); ; {
			commands, err := record.NewView(r.state).VisibleTo("second", from, rapid.IntRange(1, 5).Draw(rt, "page"), rapid.IntRange(1, 2000).Draw(rt, "bytes"))
			if err != nil {
				t.Fatal(err)
			}
			if len(commands) == 0 {
				break
			}
			for _, c := range commands {
				if c.Index < from {
					rt.Fatalf("index %d out of order", c.Index)
				}
				from = c.Index + 1
				follower.index = c.Index - 1
				if res := follower.apply(c.Envelope); !res.Accepted {
					rt.Fatalf("follower refuses index %d: %s", c.Index, res.Refusal)
				}
			}
		}
	})
}
