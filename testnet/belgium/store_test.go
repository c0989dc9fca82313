package belgium

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

// TestStoreAlone loads part of the country into one store, without consensus: what a
// member spends on applying alone. Set BELGIUM_PERSONS to run it.
func TestStoreAlone(t *testing.T) {
	persons, _ := strconv.Atoi(os.Getenv("BELGIUM_PERSONS"))
	if persons == 0 {
		t.Skip("BELGIUM_PERSONS is not set")
	}
	c := New(persons)
	w := recordtest.New(t, "alpha")
	rules := w.Rules
	dir := os.Getenv("BELGIUM_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	s, err := store.Open(badgerdb.Config{Dir: dir, Key: make([]byte, 32)}, rules)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	index := uint64(0)
	var batch []store.Entry
	var spent time.Duration
	flush := func() {
		began := time.Now()
		res, err := s.ApplyBatch(batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range res {
			if !r.Accepted {
				t.Fatal(r.Refusal)
			}
		}
		spent += time.Since(began)
		batch = batch[:0]
	}
	put := func(raw []byte) {
		index++
		batch = append(batch, store.Entry{Index: index, Envelope: raw})
		if len(batch) == 32 {
			flush()
		}
	}
	for _, i := range c.Institutions() {
		pub := Key(i.ID).Public().(ed25519.PublicKey)
		put(w.Command(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: &registrypb.Institution{Id: string(i.ID), Name: i.Name, Type: i.Type,
			FirstKey: &registrypb.Key{Institution: string(i.ID), Id: string(envelope.KeyID(pub)), PublicKey: pub}}}))
	}
	flush()
	spent = 0
	began := time.Now()
	rows, size := 0, 0
	heads := make([][]byte, len(c.Institutions()))
	next := make([]int, len(c.Institutions()))
	var live []int
	queue := 0
	for len(live) > 0 || queue < len(heads) {
		for len(live) < 16 && queue < len(heads) {
			live = append(live, queue)
			queue++
		}
		kept := live[:0]
		for _, x := range live {
			i := &c.Institutions()[x]
			raw, hash, err := c.Command(recordtest.Mesh, i, next[x], heads[x])
			if err != nil {
				t.Fatal(err)
			}
			heads[x], next[x] = hash, next[x]+1
			size += len(raw)
			put(raw)
			if next[x] < i.Commands() {
				kept = append(kept, x)
			} else {
				rows += i.Count()
			}
		}
		live = kept
	}
	flush()
	t.Logf("%d references in %v (with making them %v): %.2f µs each, %.1f bytes each as sent", rows, spent.Round(time.Millisecond), time.Since(began).Round(time.Millisecond),
		float64(spent.Microseconds())/float64(rows), float64(size)/float64(rows))
	var disk int64
	_ = filepath.Walk(dir, func(_ string, i os.FileInfo, _ error) error {
		if i != nil && !i.IsDir() {
			disk += i.Size()
		}
		return nil
	})
	fmt.Printf("apparent size %d MB\n", disk>>20)
}
