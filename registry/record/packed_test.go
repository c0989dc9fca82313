package record_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func declarations(n int) *rapid.Generator[[]record.Declaration] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) record.Declaration {
		from := names.Date(rapid.Int32Range(-40000, 40000).Draw(t, "from"))
		d := record.Declaration{
			Subject: subject.Raw(subject.SSIN, recordtest.Person(rapid.IntRange(0, 30).Draw(t, "person"))),
			Quality: names.Quality(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "quality")),
			Period:  names.Period{From: from, Until: names.Forever},
		}
		if rapid.Bool().Draw(t, "ended") {
			d.Period.Until = from + names.Date(rapid.Int32Range(0, 9000).Draw(t, "days"))
		}
		return d
	}), 1, n)
}

func oneByOne(rows []record.Declaration) *registrypb.References {
	refs := new(registrypb.References)
	for _, d := range rows {
		refs.References = append(refs.References, &registrypb.Reference{
			Subject: recordtest.SSIN(d.Subject.Number()), Quality: string(d.Quality), Withdrawn: d.Withdrawn,
			Period: &registrypb.Period{From: int32(d.Period.From), Until: int32(d.Period.Until)},
		})
	}
	return refs
}

// TestPackedMeansTheSame: whoever packs references, and withdraws some later, leaves the
// same references as who sends them one by one.
func TestPackedMeansTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plain, packed := founded(t), founded(t)
		rows := declarations(40).Draw(rt, "rows")
		send := func(rows []record.Declaration) {
			refs := oneByOne(rows)
			p, err := record.PackReferences(slices.Clone(rows))
			if err != nil {
				rt.Fatal(err)
			}
			plain.ok(plain.w.Command("office", &registrypb.Command_DeclareReferences{DeclareReferences: refs}))
			packed.ok(packed.w.Command("office", &registrypb.Command_DeclarePacked{DeclarePacked: p}))
		}
		send(rows)
		gone := rows[:1]
		gone[0].Withdrawn = true
		send(gone)
		if a, b := plain.counts(), packed.counts(); a != b {
			rt.Fatalf("%+v one by one, %+v packed", a, b)
		}
		for i := range 31 {
			if a, b := plain.references(recordtest.Person(i)), packed.references(recordtest.Person(i)); !slices.Equal(a, b) {
				rt.Fatalf("%v one by one, %v packed", a, b)
			}
		}
	})
}

// TestPackedNumbersOfLetters: identifiers of another country, shared beginnings and all.
func TestPackedNumbersOfLetters(t *testing.T) {
	var rows []record.Declaration
	for _, n := range []string{"RSSMRA80A01H501U", "RSSMRA80A01H501", "VRDLGU75", "0000000001"} {
		rows = append(rows, record.Declaration{Subject: subject.Raw("cf", n), Quality: "x", Period: names.Period{From: 3, Until: 3}})
	}
	p, err := record.PackReferences(rows)
	if err != nil {
		t.Fatal(err)
	}
	back, err := record.UnpackReferences(p)
	if err != nil || len(back) != 4 {
		t.Fatal(back, err)
	}
	for i, want := range []string{"0000000001", "RSSMRA80A01H501", "RSSMRA80A01H501U", "VRDLGU75"} {
		if back[i].Subject.Number != want || back[i].Period.From != 3 || back[i].Period.Until != 3 {
			t.Errorf("row %d: %v", i, back[i])
		}
	}
}

func TestPackedRefusals(t *testing.T) {
	good := func() *registrypb.PackedReferences {
		p, err := record.PackReferences([]record.Declaration{
			{Subject: subject.Raw(subject.SSIN, recordtest.Person(1)), Quality: "x", Period: names.Period{From: 0, Until: 9}},
			{Subject: subject.Raw(subject.SSIN, recordtest.Person(2)), Quality: "x", Period: names.Period{From: 0, Until: 9}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, c := range map[string]struct {
		spoil func(p *registrypb.PackedReferences)
		want  string
	}{
		"no rows":                      {func(p *registrypb.PackedReferences) { p.Rows = nil }, "0 rows"},
		"cut":                          {func(p *registrypb.PackedReferences) { p.Rows = p.Rows[:len(p.Rows)-1] }, "malformed"},
		"check digits":                 {func(p *registrypb.PackedReferences) { p.Rows[0] ^= 1 }, "row 1"},
		"unknown scheme":               {func(p *registrypb.PackedReferences) { p.Scheme = "moon" }, "unknown identifier scheme"},
		"too many digits":              {func(p *registrypb.PackedReferences) { p.Digits = 19 }, "19 digits"},
		"other digits":                 {func(p *registrypb.PackedReferences) { p.Digits = 3 }, "malformed"},
		"no such quality":              {func(p *registrypb.PackedReferences) { p.Qualities = nil }, "malformed"},
		"quality twice":                {func(p *registrypb.PackedReferences) { p.Qualities = []string{"x", "x"} }, "twice"},
		"no quality":                   {func(p *registrypb.PackedReferences) { p.Qualities = []string{"Not A Quality"} }, "quality"},
		"before the beginning of time": {func(p *registrypb.PackedReferences) { p.Base = -1 << 31 }, "period"},
		"after its end":                {func(p *registrypb.PackedReferences) { p.Base = 1<<31 - 1 }, "period"},
		"more than allowed":            {func(p *registrypb.PackedReferences) { p.Rows = append(p.Rows, make([]byte, 4*10_000)...) }, "10001 rows"},
	} {
		r := founded(t)
		p := good()
		c.spoil(p)
		t.Log(name)
		r.refused(r.w.Sign(r.w.Draft("office", &registrypb.Command_DeclarePacked{DeclarePacked: p}), "office"), c.want)
	}
}

// TestPackedIsSmall: a bulk load is bounded by what it weighs.
func TestPackedIsSmall(t *testing.T) {
	var rows []record.Declaration
	for i := range 10_000 {
		rows = append(rows, record.Declaration{
			Subject: subject.Raw(subject.SSIN, recordtest.Person(3*i)), Quality: "employee", Period: names.Period{From: names.Date(i), Until: names.Forever},
		})
	}
	p, err := record.PackReferences(rows)
	if err != nil {
		t.Fatal(err)
	}
	if size := proto.Size(p); size > 70_000 {
		t.Errorf("10,000 references take %d bytes", size)
	}
}

// FuzzPacked: whatever is sent, the decoder ends, in bounds, and what it accepts can be
// packed again.
func FuzzPacked(f *testing.F) {
	f.Add("ssin", uint32(11), int32(0), []byte{1, 0, 0, 0})
	f.Add("x", uint32(0), int32(-5), []byte{0, 1, 'a', 0, 1, 2, 1, 1, 'b', 1, 0, 0})
	f.Fuzz(func(t *testing.T, scheme string, digits uint32, base int32, rows []byte) {
		p := &registrypb.PackedReferences{Scheme: scheme, Digits: digits, Base: base, Qualities: []string{"x", "y"}, Rows: rows}
		refs, err := record.UnpackReferences(p)
		if err != nil || len(refs) == 0 {
			return
		}
		var again []record.Declaration
		for _, r := range refs {
			again = append(again, record.Declaration{
				Subject: subject.Raw(subject.Scheme(scheme), r.Subject.Number), Quality: names.Quality(r.Quality), Period: record.Period(r.Period), Withdrawn: r.Withdrawn,
			})
		}
		packed, err := record.PackReferences(again)
		if err != nil {
			t.Fatal(err)
		}
		back, err := record.UnpackReferences(packed)
		if err != nil || fmt.Sprint(back) != fmt.Sprint(refs) {
			t.Fatalf("%v became %v: %v", refs, back, err)
		}
	})
}
