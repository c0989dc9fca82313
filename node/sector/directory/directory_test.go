package directory

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var key = bytes.Repeat([]byte{9}, 32)

func open(t testing.TB, dir string) *Directory {
	t.Helper()
	d, err := Open(Config{Dir: dir, Key: key, Schemes: subject.Belgian()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// ssin makes the n-th of some invented numbers.
func ssin(n int) subject.ID {
	nine := 740712000 + 1 + n
	return subject.Raw(subject.SSIN, fmt.Sprintf("%09d%02d", nine, 97-nine%97))
}

func days(from, until int) names.Period {
	return names.Period{From: names.Date(from), Until: names.Date(until)}
}

func admit(t testing.TB, d *Directory, members ...names.InstitutionID) {
	t.Helper()
	for _, m := range members {
		if err := d.SetMember(Member{m, names.Period{From: names.Always, Until: names.Forever}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestChangedFund(t *testing.T) {
	d := open(t, "")
	admit(t, d, "fund-a", "fund-b")
	old, now := ssin(1), ssin(2)
	whole := Reference{old, "fund-a", "insured", days(100, 400)}
	must(t, d.Change([]Change{{Reference: whole}}))
	// Two on one day are refused, and nothing is changed.
	err := d.Change([]Change{{Reference: Reference{old, "fund-b", "insured", days(300, 500)}}})
	if !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), old.Number()) {
		t.Fatalf("got %v", err)
	}
	must(t, d.Change([]Change{
		{Reference: Reference{old, "fund-b", "insured", days(300, 500)}},
		{Reference: Reference{old, "fund-a", "insured", days(100, 299)}},
		{Reference: whole, Remove: true},
	}))
	must(t, d.Replace(old, now))
	must(t, d.Replace(old, now))
	for _, id := range []subject.ID{old, now} {
		routes, err := d.Route([]subject.ID{id}, []names.Quality{"insured"}, days(250, 350))
		if err != nil {
			t.Fatal(err)
		}
		if len(routes) != 2 || routes[0].Member != "fund-a" || routes[0].Parts[0].Period != days(250, 299) ||
			routes[1].Member != "fund-b" || routes[1].Parts[0].Period != days(300, 350) || routes[1].Parts[0].Subject != old {
			t.Errorf("routes %+v", routes)
		}
	}
	refs, err := d.References(now)
	if err != nil {
		t.Fatal(err)
	}
	// What the mesh is told does not show that anything changed on day 300.
	if out := Outline(refs); len(out) != 1 || out[0].Period != days(100, 500) || out[0].Member != "" {
		t.Errorf("outline %+v", out)
	}
	// Under the new number, too, the subject is with one at a time.
	if err := d.Change([]Change{{Reference: Reference{now, "fund-a", "insured", days(450, 460)}}}); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	d := open(t, "")
	admit(t, d, "fund-a")
	good := Reference{ssin(1), "fund-a", "insured", days(1, 2)}
	for name, c := range map[string]Change{
		"no member":     {Reference: Reference{ssin(1), "fund-x", "insured", days(1, 2)}},
		"bad number":    {Reference: Reference{subject.Raw(subject.SSIN, "74071238187"), "fund-a", "insured", days(1, 2)}},
		"not canonical": {Reference: Reference{subject.Raw(subject.SSIN, "740712-381-86"), "fund-a", "insured", days(1, 2)}},
		"no quality":    {Reference: Reference{ssin(1), "fund-a", "", days(1, 2)}},
		"backwards":     {Reference: Reference{ssin(1), "fund-a", "insured", days(2, 1)}},
		"not there":     {Reference: good, Remove: true},
	} {
		err := d.Change([]Change{{Reference: Reference{ssin(2), "fund-a", "insured", days(1, 2)}}, c})
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "row 2") {
			t.Errorf("%s: %v", name, err)
		}
		if refs, _ := d.References(ssin(2)); len(refs) != 0 {
			t.Fatalf("%s: half a change was made", name)
		}
	}
	for name, pair := range map[string][2]subject.ID{"itself": {ssin(1), ssin(1)}, "malformed": {ssin(1), subject.Raw(subject.SSIN, "1")}} {
		if err := d.Replace(pair[0], pair[1]); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, d.Replace(ssin(1), ssin(2)))
	must(t, d.Replace(ssin(2), ssin(3)))
	for _, pair := range [][2]subject.ID{{ssin(3), ssin(1)}, {ssin(1), ssin(3)}} {
		if err := d.Replace(pair[0], pair[1]); !errors.Is(err, ErrRefused) {
			t.Errorf("a circle, or two successors: %v", err)
		}
	}
}

// model is the same, with nothing clever.
type model struct {
	members map[names.InstitutionID]names.Period
	refs    map[Reference]bool
	next    map[subject.ID]subject.ID
}

func (m *model) family(id subject.ID) map[subject.ID]bool {
	all := map[subject.ID]bool{id: true}
	for range 64 {
		for a, b := range m.next {
			if all[a] || all[b] {
				all[a], all[b] = true, true
			}
		}
	}
	return all
}

func (m *model) sound() bool {
	for a := range m.refs {
		f := m.family(a.Subject)
		for b := range m.refs {
			if f[b.Subject] && a.Member != b.Member && a.Quality == b.Quality && a.Period.Overlaps(b.Period) {
				return false
			}
		}
	}
	return true
}

func (m *model) clone() *model {
	c := &model{m.members, map[Reference]bool{}, map[subject.ID]subject.ID{}}
	for r := range m.refs {
		c.refs[r] = true
	}
	for a, b := range m.next {
		c.next[a] = b
	}
	return c
}

func (m *model) change(changes []Change) *model {
	c := m.clone()
	for _, x := range changes {
		if x.Remove && !c.refs[x.Reference] {
			return nil
		}
		if x.Remove {
			delete(c.refs, x.Reference)
		}
	}
	for _, x := range changes {
		if _, ok := c.members[x.Member]; !ok {
			return nil
		}
		if !x.Remove {
			c.refs[x.Reference] = true
		}
	}
	if !c.sound() {
		return nil
	}
	return c
}

func (m *model) replace(a, b subject.ID) *model {
	c := m.clone()
	if had, ok := m.next[a]; ok && had == b {
		return c
	} else if ok || a == b || m.family(a)[b] {
		return nil
	}
	c.next[a] = b
	if !c.sound() {
		return nil
	}
	return c
}

// with says with whom a subject is on a day: what everything else must agree with.
func (m *model) with(id subject.ID, quality names.Quality, day names.Date) (who names.InstitutionID, under subject.ID) {
	f := m.family(id)
	for r := range m.refs {
		if p := m.members[r.Member]; f[r.Subject] && r.Quality == quality && r.Period.Contains(day) && p.Contains(day) {
			if who == "" || bytes.Compare(r.Subject.Key(), under.Key()) < 0 {
				who, under = r.Member, r.Subject
			}
		}
	}
	return who, under
}

// TestModel plays random changes, restarts among them, and compares with the model.
func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		dice := rand.New(rand.NewPCG(seed, 5))
		dir := t.TempDir()
		d := open(t, dir)
		m := &model{map[names.InstitutionID]names.Period{}, map[Reference]bool{}, map[subject.ID]subject.ID{}}
		funds := []names.InstitutionID{"fund-a", "fund-b", "fund-c"}
		accepted := 0
		for step := range 250 {
			switch throw := dice.IntN(20); {
			case throw == 0:
				f := funds[dice.IntN(3)]
				p := days(dice.IntN(20), 40+dice.IntN(60))
				must(t, d.SetMember(Member{f, p}))
				m.members[f] = p
			case throw < 3:
				a, b := ssin(dice.IntN(8)), ssin(dice.IntN(8))
				next, err := m.replace(a, b), d.Replace(a, b)
				if (next == nil) != (err != nil) {
					t.Fatalf("seed %d step %d: replace: model %v, directory %v", seed, step, next != nil, err)
				}
				if next != nil {
					m = next
				}
			case throw == 3:
				must(t, d.Close())
				d = open(t, dir)
			default:
				var changes []Change
				for range 1 + dice.IntN(3) {
					from := dice.IntN(90)
					c := Change{Reference{ssin(dice.IntN(8)), funds[dice.IntN(3)], []names.Quality{"insured", "incapacity"}[dice.IntN(2)], days(from, from+dice.IntN(20))}, false}
					if all := sorted(m.refs); len(all) > 0 && dice.IntN(3) == 0 {
						c = Change{all[dice.IntN(len(all))], true}
					}
					changes = append(changes, c)
				}
				if twice(changes) { // in which order they count is nobody's business
					continue
				}
				next, err := m.change(changes), d.Change(changes)
				if (next == nil) != (err != nil) {
					t.Fatalf("seed %d step %d: change %+v: model %v, directory %v", seed, step, changes, next != nil, err)
				}
				if next != nil {
					m = next
					accepted++
				}
			}
			compareWith(t, d, m, dice)
		}
		if accepted < 30 {
			t.Errorf("seed %d: only %d changes were accepted: the test tests little", seed, accepted)
		}
		must(t, d.Close())
	}
}

func sorted(refs map[Reference]bool) (all []Reference) {
	for r := range refs {
		all = append(all, r)
	}
	slices.SortFunc(all, compare)
	return all
}

func twice(changes []Change) bool {
	for i, c := range changes {
		for _, o := range changes[:i] {
			if o.Reference == c.Reference {
				return true
			}
		}
	}
	return false
}

func compareWith(t *testing.T, d *Directory, m *model, dice *rand.Rand) {
	t.Helper()
	id, quality := ssin(dice.IntN(8)), []names.Quality{"insured", "incapacity"}[dice.IntN(2)]
	from := dice.IntN(60)
	asked := days(from, from+dice.IntN(50))
	routes, err := d.Route([]subject.ID{id}, []names.Quality{quality}, asked)
	must(t, err)
	for day := asked.From; day <= asked.Until; day++ {
		var got []names.InstitutionID
		for _, r := range routes {
			for _, p := range r.Parts {
				if p.Period.Contains(day) && !slices.Contains(got, r.Member) {
					got = append(got, r.Member)
				}
			}
		}
		want, _ := m.with(id, quality, day)
		if len(got) > 1 || (len(got) == 1) != (want != "") || want != "" && got[0] != want {
			t.Fatalf("day %d: routes to %v, the model says %q", day, got, want)
		}
	}
	refs, err := d.References(id)
	must(t, err)
	f, n := m.family(id), 0
	for r := range m.refs {
		if f[r.Subject] {
			n++
		}
	}
	for _, r := range refs {
		if !m.refs[r] {
			t.Fatal("a reference that the model does not have")
		}
	}
	if n != len(refs) {
		t.Fatalf("%d references, the model has %d", len(refs), n)
	}
}

// TestAtRest looks for a number, or a fund, in the files.
func TestAtRest(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	admit(t, d, "fund-conspicuous")
	for n := range 50 {
		must(t, d.Change([]Change{{Reference: Reference{ssin(n), "fund-conspicuous", "insured", days(1, 2)}}}))
	}
	must(t, d.Close())
	files := 0
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, secret := range []string{"fund-conspicuous", ssin(7).Number()} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds it in the clear", filepath.Base(path))
			}
		}
		return err
	}))
	if files == 0 {
		t.Fatal("no files")
	}
	if _, err := Open(Config{Dir: dir, Key: bytes.Repeat([]byte{1}, 32), Schemes: subject.Belgian()}); err == nil {
		t.Error("opened under another key")
	}
}

func FuzzDecodeRow(f *testing.F) {
	r := &row{references: []Reference{{ssin(1), "fund-a", "insured", days(1, 2)}}, successor: ssin(2), former: []subject.ID{ssin(3)}}
	raw, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeRow(ssin(1), raw)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		same, err := decodeRow(ssin(1), again)
		if err != nil || !slices.Equal(same.references, r.references) || same.successor != r.successor {
			t.Errorf("what was read is not what is written: %v", err)
		}
	})
}
