package data

import (
	"slices"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// spells gives all that keeps somebody busy or paid: no two may overlap.
func spells(p *Person) (all []names.Period) {
	for _, s := range p.Jobs {
		all = append(all, s.Period)
	}
	for _, s := range p.SelfEmployed {
		all = append(all, s.Period)
	}
	for _, s := range p.Unemployed {
		all = append(all, s.Period)
	}
	for _, s := range p.Incapacities {
		all = append(all, s.Period)
	}
	for _, s := range p.LivingWages {
		all = append(all, s.Period)
	}
	if p.Pension != nil {
		all = append(all, p.Pension.Period)
	}
	return all
}

func within(inner, outer names.Period) bool {
	return outer.From <= inner.From && inner.From <= inner.Until && inner.Until <= outer.Until
}

// TestLivesAreConsistent walks through many lives looking for what cannot be.
func TestLivesAreConsistent(t *testing.T) {
	w := world(t, Config{Seed: 11, Persons: 20_000, Institutions: 24})
	for p := range w.Persons() {
		wrong := func(what string) { t.Fatalf("person %d: %s", p.Index, what) }
		all := spells(p)
		slices.SortFunc(all, func(a, b names.Period) int { return int(a.From - b.From) })
		for i, s := range all {
			if !within(s, p.Life()) {
				wrong("a spell outside the life")
			}
			if !p.aged(18, s.From) {
				wrong("a career in childhood")
			}
			if i > 0 && all[i-1].Until >= s.From {
				wrong("two spells at once")
			}
			if s.Until > Today && s.Until != p.Death {
				wrong("a spell that ends in the future")
			}
		}
		if p.Birth > Today || p.Death != names.Forever && p.Death >= Today {
			wrong("born or dead in the future")
		}
		for _, b := range p.CareerBreaks {
			if !slices.ContainsFunc(p.Jobs, func(j Job) bool { return within(b.Period, j.Period) }) {
				wrong("a career break without a job")
			}
		}
		for _, a := range p.Accidents {
			if !slices.ContainsFunc(p.Jobs, func(j Job) bool { return j.Contains(a.On) && j.Employer == a.Employer }) {
				wrong("an accident at work without a job")
			}
		}
		for i, r := range p.Reimbursed {
			if !within(r.Period, p.Life()) || slices.ContainsFunc(p.Reimbursed[:i], func(o Reimbursement) bool { return o.Overlaps(r.Period) }) {
				wrong("increased reimbursement twice at once, or outside the life")
			}
		}
		for _, l := range p.LivingWages {
			if !slices.ContainsFunc(p.Reimbursed, func(r Reimbursement) bool { return r.Overlaps(l.Period) }) {
				wrong("a living wage without increased reimbursement")
			}
			if !slices.ContainsFunc(p.Inquiries, func(i names.Period) bool { return i.From < l.From && i.Until >= l.Until }) {
				wrong("a living wage without an inquiry")
			}
		}
		if p.Pension != nil && !p.aged(65, p.Pension.From) {
			wrong("a pension before 65")
		}
		if p.Guarantee != nil && p.Pension == nil {
			wrong("an income guarantee without age")
		}
		if p.ChildBenefit != nil && p.aged(18, Today) {
			wrong("child benefit for an adult")
		}
		checkHousehold(wrong, p)
	}
}

func checkHousehold(wrong func(string), p *Person) {
	h := p.Household
	if !contains(h.Members, p) || p.Relation == "" {
		wrong("not of the own household")
	}
	if head := h.Members[0]; head.Relation != ReferencePerson || !head.aged(18, Today) {
		wrong("a household without a grown reference person")
	}
	if p.Relation == Child && !slices.ContainsFunc(h.Members, func(m *Person) bool { return mayBeParent(m, p) }) {
		wrong("a child too old for anybody here")
	}
	if p.Bis && (p.Energy != nil || len(p.LivingWages) > 0) {
		wrong("a non-resident with a household's rights")
	}
	for i, a := range h.Addresses {
		if a.From > a.Until || i > 0 && a.From != h.Addresses[i-1].Until+1 || i == len(h.Addresses)-1 && a.Until != names.Forever {
			wrong("a gap in the addresses")
		}
	}
}

// TestReferencesFollowTheRecords: where there is a record there is a file in one
// of the dataset's qualities that touches the record's time.
func TestReferencesFollowTheRecords(t *testing.T) {
	w := world(t, Config{Seed: 12, Persons: 5000, Institutions: 24})
	rows := 0
	for p := range w.Persons() {
		refs := w.References(p)
		rows += len(refs)
		for i, r := range refs {
			if slices.Contains(refs[:i], r) {
				t.Fatalf("person %d: the same row twice", p.Index)
			}
			if r.Period.Validate() != nil || r.Quality.Validate() != nil {
				t.Fatalf("person %d: malformed row", p.Index)
			}
		}
		for _, i := range w.Institutions() {
			for _, d := range w.Supplies(i) {
				for _, record := range d.Records(i, p) {
					if !slices.ContainsFunc(refs, func(r Reference) bool {
						return r.Institution == i.ID && slices.Contains(d.Qualities, r.Quality) && r.Period.Overlaps(record.Period)
					}) {
						t.Fatalf("person %d: %s has records of %s without a file", p.Index, i.ID, d.ID)
					}
				}
			}
		}
	}
	if average := float64(rows) / 5000; average < 5 || average > 15 {
		t.Errorf("%.1f references a person", average)
	}
}

// TestReferenceBatches: the lots hold every row, each at its institution.
func TestReferenceBatches(t *testing.T) {
	w := world(t, Config{Seed: 12, Persons: 1000, Institutions: 9})
	want, got := map[names.InstitutionID]int{}, map[names.InstitutionID]int{}
	for p := range w.Persons() {
		for _, r := range w.References(p) {
			want[r.Institution]++
		}
	}
	for b := range w.ReferenceBatches(700) {
		if len(b.References) == 0 || len(b.References) > 700 {
			t.Fatalf("a lot of %d", len(b.References))
		}
		got[b.Institution] += len(b.References)
	}
	for i, n := range want {
		if got[i] != n {
			t.Errorf("%s: %d rows in lots, want %d", i, got[i], n)
		}
	}
}

func TestNumberEvents(t *testing.T) {
	w := world(t, Config{Seed: 12, Persons: 5000, Institutions: 7})
	seen := map[registrypb.NumberEvent_Kind]int{}
	for e := range w.NumberEvents() {
		seen[e.Kind]++
		if (e.Successor != nil) != (e.Kind == registrypb.NumberEvent_REPLACED) {
			t.Fatalf("%v: successor %v", e.Kind, e.Successor != nil)
		}
	}
	if len(seen) != 3 {
		t.Errorf("events: %v", seen)
	}
	if first := w.Institutions()[0]; !slices.Contains(first.NumberSchemes, "ssin") {
		t.Errorf("%s does not keep the numbers", first.ID)
	}
}

// TestAuthorizationsMakeSense: rows name what exists, and no two rows speak of the
// same requester, dataset and purpose.
func TestAuthorizationsMakeSense(t *testing.T) {
	w := world(t, Config{Seed: 1, Persons: 10, Institutions: MaxInstitutions}, "acme-works")
	types := map[string]bool{}
	for _, i := range w.Institutions() {
		types[string(i.Type)] = true
	}
	ids, keys := map[string]bool{}, map[[3]string]bool{}
	for _, a := range w.Authorizations() {
		key := [3]string{a.RequesterType, a.Dataset, a.Purpose}
		if ids[a.Id] || keys[key] {
			t.Errorf("%s: twice", a.Id)
		}
		ids[a.Id], keys[key] = true, true
		if !types[a.RequesterType] || len(a.Fields) == 0 || len(a.RequesterQualities) == 0 || len(a.Modes) == 0 {
			t.Errorf("%s: incomplete, or for a type that nobody has", a.Id)
		}
		if err := names.AuthorizationID(a.Id).Validate(); err != nil {
			t.Error(err)
		}
		if err := names.Deliberation(a.Deliberation).Validate(); err != nil || a.Deliberation[:10] != "DEMO-2024/" {
			t.Errorf("%s: deliberation %q: %v", a.Id, a.Deliberation, err)
		}
	}
	for _, d := range deliberations {
		for _, g := range d.may {
			if columnsOf(g.dataset) == nil {
				t.Errorf("%s: no dataset %s", d.reference, g.dataset)
			}
		}
	}
}

// TestExamples: a world of the usual size has every example, in all numbers of
// institutions from seven on, and they cover every reason the data can bring about.
func TestExamples(t *testing.T) {
	for _, cfg := range []Config{
		{Seed: 1, Persons: 10_000, Institutions: 7}, {Seed: 2, Persons: 10_000, Institutions: 7}, {Seed: 3, Persons: 2_000, Institutions: 24}, {Seed: 4, Persons: 10_000, Institutions: 50},
	} {
		w := world(t, cfg)
		all := w.Examples(Today + 200)
		if len(all) != len(scenarios) {
			t.Errorf("%+v: %d of %d examples", cfg, len(all), len(scenarios))
		}
		reasons := map[registrypb.Reason]bool{}
		for _, e := range all {
			reasons[e.Answer.Reason] = true
			if again := w.Expected(e.Consultation, Today+200); again.Status != e.Answer.Status || again.Reason != e.Answer.Reason {
				t.Errorf("%s: the answer differs when asked again", e.Title)
			}
		}
		for _, r := range []registrypb.Reason{
			registrypb.Reason_UNKNOWN_SUBJECT, registrypb.Reason_REPLACED_NUMBER, registrypb.Reason_MALFORMED_NUMBER, registrypb.Reason_DECEASED_SUBJECT,
			registrypb.Reason_CANCELLED_NUMBER, registrypb.Reason_NOT_INTEGRATED, registrypb.Reason_NOT_ALLOWED, registrypb.Reason_NO_PERMITTED_FIELD,
			registrypb.Reason_AUTH_LEVEL_TOO_LOW, registrypb.Reason_MANDATE_MISSING,
		} {
			if !reasons[r] {
				t.Errorf("%+v: no example of %v", cfg, r)
			}
		}
	}
}

// TestExamplesCanBeCleared: with the first three institutions as members, one at
// least is no party to any permitted example; for most there are two.
func TestExamplesCanBeCleared(t *testing.T) {
	w := world(t, Config{Seed: 1, Persons: 10_000, Institutions: 7})
	spare, cleared := 0, 0
	for _, e := range w.Examples(Today) {
		for _, s := range e.Answer.Suppliers {
			free := 0
			for _, m := range w.Institutions()[:3] {
				free += toInt(m.ID != e.Requester && m.ID != s.Supplier)
			}
			if free < 1 {
				t.Errorf("%s: nobody can clear", e.Title)
			}
			cleared++
			spare += toInt(free > 1)
		}
	}
	if spare*2 < cleared {
		t.Errorf("only %d of %d permitted examples can be cleared with a member down", spare, cleared)
	}
}
