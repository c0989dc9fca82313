package content

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
)

func numbers(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%011d", i*7919+13))
	}
	return list
}

func some(n int) (items []Item) {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	for range n {
		i := Item{Code: Code(rnd.IntN(6))}
		if i.Code == Records {
			i.Records = fmt.Appendf(nil, `[{"wage":%d}]`, rnd.IntN(1e9))
		}
		items = append(items, i)
	}
	return items
}

func values(list []string) iter.Seq[string] { return slices.Values(list) }

func TestReadAndProve(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 100} {
		list, items, seed := numbers(n), some(n), Seed()
		var raw []byte
		for _, i := range items {
			raw = Append(raw, i)
		}
		got, err := Read(raw, n)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i].Code != items[i].Code || !bytes.Equal(got[i].Records, items[i].Records) {
				t.Fatal("another item")
			}
		}
		if _, err := Read(raw, n+1); err == nil {
			t.Error("one subject more was read")
		}
		if _, err := Read(raw, n-1); err == nil {
			t.Error("one subject fewer was read")
		}
		root, err := Root(seed, values(list), items)
		if err != nil {
			t.Fatal(err)
		}
		for i := range items {
			p, err := Prove(seed, values(list), items, i)
			if err != nil {
				t.Fatal(err)
			}
			if item, err := p.Verify(root[:], list[i]); err != nil || item.Code != items[i].Code {
				t.Fatalf("%d of %d: %v", i, n, err)
			}
			if _, err := p.Verify(root[:], "99999999999"); err == nil {
				t.Fatal("it proves somebody else's")
			}
			for _, lie := range []Code{None, Yes, No, Revoked, Failed} {
				q := *p
				if q.Item = Append(nil, Item{Code: lie}); !bytes.Equal(q.Item, p.Item) {
					if _, err := q.Verify(root[:], list[i]); err == nil {
						t.Fatal("a lie is proven")
					}
				}
			}
		}
	}
}

// Whoever is shown the proof of one subject tries both answers for its neighbour.
func TestNeighbourStaysHidden(t *testing.T) {
	list, seed := numbers(2), Seed()
	items := []Item{{Code: Yes}, {Code: No}}
	p, err := Prove(seed, values(list), items, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, guess := range []Code{Yes, No, None} {
		for _, blinding := range [][]byte{make([]byte, 32), p.Blinding} {
			buf := bytes.Clone(blinding)
			l := newLeaves(make([]byte, SeedSize))
			if h := leafOf(l.sha, &buf, list[1], Item{Code: guess}); bytes.Equal(h[:], p.Path[0]) {
				t.Fatal("the neighbour's answer was guessed")
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{0, 2, 1, 2, '[', ']'}, 3)
	f.Fuzz(func(t *testing.T, raw []byte, n int) {
		if n < 0 || n > 1000 {
			return
		}
		items, err := Read(raw, n)
		if err != nil {
			return
		}
		var again []byte
		for _, i := range items {
			again = Append(again, i)
		}
		if !bytes.Equal(again, raw) {
			t.Fatal("two forms of the same")
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte{2}, 0, 2, []byte("x"))
	f.Fuzz(func(t *testing.T, item []byte, place, size int, path []byte) {
		if size > 1<<20 {
			return
		}
		p := &Proof{Place: place, Size: size, Blinding: make([]byte, 32), Item: item, Path: [][]byte{path}}
		if _, err := p.Verify(make([]byte, 32), "1"); err == nil {
			t.Fatal("proven")
		}
	})
}

func BenchmarkRoot(b *testing.B) {
	list, items := numbers(2048), make([]Item, 2048)
	seed := Seed()
	for b.Loop() {
		if _, err := Root(seed, values(list), items); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2048, "ns/subject")
}
