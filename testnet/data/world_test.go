package data

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func world(t testing.TB, cfg Config, also ...names.InstitutionID) *World {
	t.Helper()
	w, err := New(cfg, also...)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// digest sums up everything about one person in one world.
func (w *World) digest(h hash.Hash, p *Person) {
	fmt.Fprintln(h, p.Index, p.SSIN.Number(), p.Birth, p.Death, p.Sex, p.Relation, p.Household.ID, p.Cancelled)
	for _, r := range w.References(p) {
		fmt.Fprintln(h, r.Institution, r.Subject.Number(), r.Quality, r.Period.From, r.Period.Until)
	}
	for _, i := range w.Institutions() {
		for _, d := range w.Supplies(i) {
			for _, r := range d.Records(i, p) {
				fmt.Fprintf(h, "%s %s %s %s %s\n", i.ID, d.ID, r.Period.From, r.Period.Until, d.JSON(r))
			}
		}
	}
}

// TestGolden holds the world still: if it changes, every network made from a seed
// changes with it, and this hash says so.
func TestGolden(t *testing.T) {
	const want = "ad9ee76c1a2675c1b298f0726d45ad934fa3f60318b38ce7cd9de5caa5527840"
	w := world(t, Config{Seed: 1, Persons: 3000, Institutions: 24})
	h := sha256.New()
	for p := range w.Persons() {
		w.digest(h, p)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("the world of seed 1 has changed: %s, was %s", got, want)
	}
}

// TestSeeds: the same seed gives the same persons whatever the size of the world,
// and another seed gives others.
func TestSeeds(t *testing.T) {
	small, large := world(t, Config{Seed: 5, Persons: 200, Institutions: 7}), world(t, Config{Seed: 5, Persons: 5000, Institutions: 7})
	other := world(t, Config{Seed: 6, Persons: 200, Institutions: 7})
	same := 0
	for p := range small.Persons() {
		if q := large.Person(p.Index); q.SSIN != p.SSIN || q.FirstName != p.FirstName || q.Birth != p.Birth {
			t.Fatalf("person %d differs between a small and a large world", p.Index)
		}
		if other.Person(p.Index).SSIN == p.SSIN {
			same++
		}
	}
	if same > 0 {
		t.Errorf("%d of 200 numbers are alike under two seeds", same)
	}
}

func TestConfigLimits(t *testing.T) {
	for _, c := range []Config{
		{Seed: 1, Persons: 0, Institutions: 7}, {Seed: 1, Persons: -1, Institutions: 7}, {Seed: 1, Persons: MaxPersons + 1, Institutions: 7},
		{Seed: 1, Persons: 10, Institutions: 2}, {Seed: 1, Persons: 10, Institutions: 51},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	for n := MinInstitutions; n <= MaxInstitutions; n++ {
		w := world(t, Config{Seed: 1, Persons: 10, Institutions: n})
		seen := map[names.InstitutionID]bool{}
		for _, i := range w.Institutions() {
			if err := i.ID.Validate(); err != nil || seen[i.ID] || i.Type.Validate() != nil || i.Sector.Validate() != nil {
				t.Errorf("institution %q: %v, or twice", i.ID, err)
			}
			if files[i.Type] == nil {
				t.Errorf("%s: nothing says which files a %s has", i.ID, i.Type)
			}
			seen[i.ID] = true
		}
		if len(seen) != n {
			t.Errorf("%d institutions, want %d", len(seen), n)
		}
	}
}

// TestNumbers: every number is valid, nobody shares one, and each leads back to
// its person.
func TestNumbers(t *testing.T) {
	w := world(t, Config{Seed: 2, Persons: 30_000, Institutions: 3})
	seen := map[subject.ID]int{}
	former, bis, cancelled, dead := 0, 0, 0, 0
	check := func(p *Person, id subject.ID) {
		if again, err := subject.Belgian().Parse(id.Scheme(), id.Number()); err != nil || again != id {
			t.Fatalf("person %d: %v", p.Index, err)
		}
		if other, taken := seen[id]; taken {
			t.Fatalf("persons %d and %d share a number", other, p.Index)
		}
		seen[id] = p.Index
		if found, ok := w.Find(id); !ok || found.Index != p.Index {
			t.Fatalf("person %d is not found by number", p.Index)
		}
	}
	for p := range w.Persons() {
		check(p, p.SSIN)
		if p.Former != nil {
			check(p, p.Former.SSIN)
			former++
		}
		if odd := (p.SSIN.Number()[8]-'0')%2 == 1; odd != (p.Sex == Male) {
			t.Fatalf("person %d: the number says another sex", p.Index)
		}
		bis += toInt(p.Bis)
		cancelled += toInt(p.Cancelled != names.Forever)
		dead += toInt(p.Death != names.Forever)
	}
	if former < 50 || bis < 50 || cancelled < 20 || dead < 200 {
		t.Errorf("too few special cases: %d replaced, %d bis, %d cancelled, %d dead", former, bis, cancelled, dead)
	}
	for _, n := range []string{"74071238187", "", "x", "61000000317"} {
		if _, ok := w.Find(subject.Raw(subject.SSIN, n)); ok {
			t.Errorf("%s was found", n)
		}
	}
	if _, ok := w.Find(subject.Raw(subject.CBE, "0412345614")); ok {
		t.Error("an enterprise was found among persons")
	}
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestPlacesAndBack covers blocks far beyond what a test can walk through.
func TestPlacesAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := newNumbers(rapid.Uint64().Draw(t, "seed"))
		i := rapid.IntRange(0, MaxPersons-1).Draw(t, "person")
		day, sequence := ns.birth(i/blockSize, i%blockSize)
		for _, offset := range []int{0, bisSexKnown, bisSexUnknown} {
			if back, ok := ns.place(ssin(day, sequence, offset)); !ok || back != i {
				t.Fatalf("person %d came back as %d, %v", i, back, ok)
			}
		}
	})
}

func TestOtherNumbersAreValid(t *testing.T) {
	schemes := subject.Belgian()
	for i := range 5000 {
		e := employer(3, i)
		_, err := schemes.Parse(subject.CBE, e.Enterprise)
		_, err2 := schemes.Parse(subject.NSSO, e.Number)
		if err != nil || err2 != nil {
			t.Fatalf("employer %d: %v, %v", i, err, err2)
		}
		if m := meterCode(i * 977); len(m) != 18 {
			t.Fatalf("meter code %s", m)
		}
	}
}

// TestRecordsMatchTheirSchemas validates every record of a whole world, and holds
// columns and schemas together.
func TestRecordsMatchTheirSchemas(t *testing.T) {
	w := world(t, Config{Seed: 3, Persons: 1500, Institutions: 24})
	matchSchemas(t, w, w.Datasets())
	if len(w.Datasets()) < 12 {
		t.Error("fewer than a dozen datasets")
	}
}

func matchSchemas(t *testing.T, w *World, datasets []*Dataset) {
	t.Helper()
	for _, d := range datasets {
		fields, err := record.SchemaFields(d.Schema())
		if err != nil {
			t.Fatalf("%s: %v", d.ID, err)
		}
		var columns []names.FieldName
		for _, c := range d.Columns {
			columns = append(columns, c.Field)
		}
		if !slices.Equal(fields, columns) {
			t.Errorf("%s: the schema has %v, the records %v", d.ID, fields, columns)
		}
		if err := d.ID.Validate(); err != nil {
			t.Error(err)
		}
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(d.Schema()))
		if err != nil {
			t.Fatalf("%s: %v", d.ID, err)
		}
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		if err := c.AddResource("schema", doc); err != nil {
			t.Fatal(err)
		}
		schema, err := c.Compile("schema")
		if err != nil {
			t.Fatalf("%s: %v", d.ID, err)
		}
		n := 0
		for p := range w.Persons() {
			for _, i := range w.Institutions() {
				for _, r := range d.Records(i, p) {
					n++
					v, err := jsonschema.UnmarshalJSON(bytes.NewReader(d.JSON(r)))
					if err != nil {
						t.Fatalf("%s: %v", d.ID, err)
					}
					if err := schema.Validate(v); err != nil {
						t.Fatalf("%s: %s: %v", d.ID, d.JSON(r), err)
					}
				}
			}
		}
		if n < 10 {
			t.Errorf("%s: only %d records", d.ID, n)
		}
	}
}

// TestSchemasAreAllUsed: no file lies about.
func TestSchemasAreAllUsed(t *testing.T) {
	entries, err := schemas.ReadDir("schemas")
	if err != nil || len(entries) != len(catalogue) {
		t.Errorf("%d schema files for %d datasets: %v", len(entries), len(catalogue), err)
	}
}

// TestIterationStops: a world of the greatest size is left after a few persons, and
// its last person is had at once.
func TestIterationStops(t *testing.T) {
	w := world(t, Config{Seed: 1, Persons: MaxPersons, Institutions: 50})
	n := 0
	for p := range w.Persons() {
		if n++; n == 25 {
			if p.Index != 24 {
				t.Errorf("the 25th person is %d", p.Index)
			}
			break
		}
	}
	for b := range w.ReferenceBatches(100) {
		if len(b.References) != 100 {
			t.Errorf("a lot of %d", len(b.References))
		}
		break
	}
	for range w.NumberEvents() {
		break
	}
	if p := w.Person(MaxPersons - 1); p.Index != MaxPersons-1 {
		t.Error(p.Index)
	}
}

func BenchmarkPersons(b *testing.B) {
	w := world(b, Config{Seed: 1, Persons: 10_000, Institutions: 7})
	b.ReportAllocs()
	for b.Loop() {
		for range w.Persons() {
		}
	}
}

func BenchmarkReferences(b *testing.B) {
	w := world(b, Config{Seed: 1, Persons: 10_000, Institutions: 7})
	for b.Loop() {
		rows := 0
		for batch := range w.ReferenceBatches(10_000) {
			rows += len(batch.References)
		}
		b.ReportMetric(float64(rows)/10_000, "rows/person")
	}
}

func BenchmarkExpected(b *testing.B) {
	w := world(b, Config{Seed: 1, Persons: 10_000, Institutions: 7})
	e := w.Examples(Today)[0]
	for b.Loop() {
		_ = w.Expected(e.Consultation, Today)
	}
}
