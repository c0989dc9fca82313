package journal

import (
	"math"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
)

// TestPostingForms: entries of one second under one term share a row, whatever their
// files, and come out as they went in.
func TestPostingForms(t *testing.T) {
	var p posting
	at := time.UnixMilli(1_780_000_000_000)
	rows := []row{
		{terms{time: at.Add(5 * time.Millisecond)}, 100, location{0, 64}},
		{terms{time: at}, 107, location{105, 1 << 40}},
		{terms{time: at.Add(999 * time.Millisecond)}, 1 << 50, location{1 << 50, 64}},
	}
	for _, r := range rows {
		p.add(r, r.terms.time.UnixMilli()%1000)
	}
	got, err := readPosting(nil, at.Unix(), p.first, p.value)
	if err != nil || len(got) != len(rows) {
		t.Fatal(got, err)
	}
	for i, r := range rows {
		if want := (posted{r.terms.time.UnixMilli(), r.sequence, r.at}); got[i] != want {
			t.Errorf("%v, want %v", got[i], want)
		}
	}
}

func FuzzReadPosting(f *testing.F) {
	f.Add(int64(1_780_000_000), uint64(100), []byte{0, 5, 100, 64, 7, 0, 2, 128, 1})
	f.Fuzz(func(t *testing.T, second int64, first uint64, v []byte) {
		list, err := readPosting(nil, second, first, v)
		if err == nil && len(list) == 0 {
			t.Error("a row of nothing")
		}
		for _, p := range list {
			if p.when/1000 != second || p.at.offset < 0 || p.at.segment > p.sequence {
				t.Errorf("%+v", p)
			}
		}
	})
}

// TestManyInOneSecond: what comes at once and does not fit into one row is found whole.
func TestManyInOneSecond(t *testing.T) {
	j := open(t, Config{FS: disktest.New()})
	var rows []row
	for i := range maxRows {
		rows = append(rows, row{terms{time: epoch.Add(time.Duration(i%1000) * time.Millisecond)}, uint64(i), location{0, int64(i * 400)}})
	}
	add(t, j, entry(0)) // makes the month's key
	find(t, j, Query{})
	made, _ := j.index.postings(rows)
	for _, p := range made {
		if p.before == nil {
			t.Error("the test is too small")
		}
		for ; p != nil; p = p.before {
			if len(p.value) > maxPosting+40 {
				t.Errorf("a row of %d bytes", len(p.value))
			}
		}
	}
	if err := j.index.put(rows); err != nil {
		t.Fatal(err)
	}
	prefix, _ := j.index.prefix(periodOf(epoch), byTime, "")
	n := 0
	err := j.index.each(prefix, 0, math.MaxInt64, true, func(posted) (bool, error) { n++; return true, nil })
	if err != nil || n != maxRows {
		t.Fatal(n, err)
	}
}

// TestIndexOfOldForm: an index of rows of another form is made again.
func TestIndexOfOldForm(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	for i := range 30 {
		add(t, j, entry(i))
	}
	err := j.index.db.Update(func(tx *badger.Txn) error {
		if err := tx.Delete(metaForm); err != nil {
			return err
		}
		prefix, _ := j.index.prefix(periodOf(epoch), byTime, "")
		return tx.Set(append(prefix, make([]byte, tailSize)...), make([]byte, 16))
	})
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	j = open(t, Config{Dir: dir})
	if got := find(t, j, Query{}); len(got) != 30 {
		t.Fatalf("%d entries", len(got))
	}
}

// TestIndexedTwice: after a crash entries go into the index again, in other company;
// each is found once, and in order.
func TestIndexedTwice(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir()})
	for i := range 40 {
		e := entry(i)
		e.TimeUnixMs, e.User = epoch.UnixMilli()+int64(i*37%1500), "alice"
		add(t, j, e)
	}
	find(t, j, Query{})
	var rows []row
	err := j.scanAll(0, 40, func(at location, h header, b []byte) error {
		e, err := j.decrypt(at, h, b)
		rows = append(rows, row{termsOf(e.Entry), h.sequence, at})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{7, 23} {
		if err := j.index.put(rows[cut:]); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range []Query{{}, {User: "alice"}, {User: "alice", NewestFirst: true}} {
		got := find(t, j, q)
		if len(got) != 40 {
			t.Fatalf("%d entries", len(got))
		}
		for i := 1; i < len(got); i++ {
			if a, b := got[i-1].Entry.TimeUnixMs, got[i].Entry.TimeUnixMs; a != b && a > b != q.NewestFirst {
				t.Fatalf("%d before %d", a, b)
			}
		}
	}
	n := 0
	prefix, _ := j.index.prefix(periodOf(epoch), byTime, "")
	err = j.index.each(prefix, 0, math.MaxInt64, false, func(posted) (bool, error) { n++; return true, nil })
	if err != nil || n != 40 {
		t.Fatal(n, err)
	}
}
