package record_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// attack has a fund that is behind a managing body try to get its name beside a subject, in
// every way there is, and its managing body do what is its own. accepted says of each
// command whether it was.
func attack(t testing.TB, level uint32) (r *replica, accepted map[string]bool) {
	w := recordtest.New(t, "alpha", "beta", "gamma")
	w.Rules.Level = level
	r = &replica{t: t, w: w, state: new(record.MapState)}
	if err := record.Bootstrap(r.state, w.Rules); err != nil {
		t.Fatal(err)
	}
	p := recordtest.Person(1)
	r.ok(w.Admit(&registrypb.Institution{Id: "fund", Type: "fund", Sector: "health"}))
	r.ok(w.Admit(&registrypb.Institution{Id: "bystander", Type: "clinic", Sector: "clinics"}))
	r.ok(w.Command(record.Operators, &registrypb.Command_SetDataset{SetDataset: dataset()}))
	r.ok(w.Declare("fund", recordtest.Reference(p, "insured"))) // before there was a managing body
	r.ok(w.Admit(&registrypb.Institution{Id: "college", Type: "college", Sector: "health", ManagingBody: true}))
	if level >= 2 {
		r.ok(w.SetProvider())
	}
	files := func(refs ...*registrypb.Reference) any {
		return &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: refs}}
	}
	packed := func(refs ...*registrypb.Reference) any {
		var rows []record.Declaration
		for _, ref := range refs {
			rows = append(rows, record.Declaration{Subject: id(ref.Subject.Number), Quality: names.Quality(ref.Quality), Period: record.Period(ref.Period)})
		}
		p, err := record.PackReferences(rows)
		if err != nil {
			t.Fatal(err)
		}
		return &registrypb.Command_DeclarePacked{DeclarePacked: p}
	}
	giving := func(registrar, label, holder string) any {
		return w.Mandate(registrar, w.Terms(registrar, label, p, holder, "inquiry", "wages/v1"))
	}
	gone := recordtest.Reference(p, "insured")
	gone.Withdrawn = true
	accepted = map[string]bool{}
	for _, c := range []struct {
		name   string
		author string
		body   any
	}{
		{"a file", "fund", files(recordtest.Reference(recordtest.Person(2), "insured"))},
		{"a file behind one withdrawn", "fund", files(gone, recordtest.Reference(recordtest.Person(3), "insured"))},
		{"a file, packed", "fund", packed(recordtest.Reference(recordtest.Person(4), "insured"))},
		{"a mandate registered", "fund", giving("fund", "m-1", "bystander")},
		{"a mandate held", "bystander", giving("bystander", "m-2", "fund")},
		{"the sector's file", "college", files(recordtest.Reference(p, "insured"))},
		{"the sector's mandate", "bystander", giving("bystander", "m-3", "college")},
		{"a bystander's file", "bystander", files(recordtest.Reference(p, "patient"))},
		{"a withdrawal", "fund", files(gone)},
	} {
		draft := w.Draft(c.author, c.body)
		res := r.apply(w.Sign(draft, c.author))
		if accepted[c.name] = res.Accepted; res.Accepted {
			w.Follow(draft)
		}
	}
	return r, accepted
}

// The directory holds the sector and never a member of it, whatever the member signs; what
// it wrote before it had a managing body it can take back.
func TestCooperatingInstitutionStaysUnnamed(t *testing.T) {
	r, accepted := attack(t, 2)
	for name, want := range map[string]bool{
		"a file": false, "a file behind one withdrawn": false, "a file, packed": false, "a mandate registered": false, "a mandate held": false,
		"the sector's file": true, "the sector's mandate": true, "a bystander's file": true, "a withdrawal": true,
	} {
		if accepted[name] != want {
			t.Errorf("%s: accepted %t", name, accepted[name])
		}
	}
	for n := 1; n < 5; n++ {
		for _, ref := range r.references(recordtest.Person(n)) {
			if ref.Institution == "fund" {
				t.Errorf("the directory says that person %d is with the fund", n)
			}
		}
	}
	// The same log gives the same state, also in a replica that saw it later.
	again, _ := attack(t, 2)
	if !maps.Equal(dump(t, r.state), dump(t, again.state)) {
		t.Error("two replicas differ")
	}
}

// Logs of before that rule are judged as they were.
func TestCooperatingInstitutionAtFirstLevel(t *testing.T) {
	r, accepted := attack(t, 1)
	for _, name := range []string{"a file", "the sector's file", "a bystander's file"} {
		if !accepted[name] {
			t.Errorf("%s is refused at level 1", name)
		}
	}
	if refs := r.references(recordtest.Person(2)); len(refs) != 1 || refs[0].Institution != "fund" {
		t.Errorf("references %v", refs)
	}
}

// BenchmarkDeclareInSector measures the look for a managing body among 3,000 institutions.
func BenchmarkDeclareInSector(b *testing.B) {
	for _, sector := range []string{"", "clinics"} {
		b.Run(fmt.Sprintf("sector=%q", sector), func(b *testing.B) {
			r := founded(b)
			for i := range 3000 {
				r.ok(r.w.Admit(&registrypb.Institution{Id: fmt.Sprintf("i-%d", i), Type: "clinic", Sector: sector}))
			}
			b.ResetTimer()
			for range b.N {
				r.ok(r.w.Declare("i-7", recordtest.Reference(recordtest.Person(1), "patient")))
			}
		})
	}
}
