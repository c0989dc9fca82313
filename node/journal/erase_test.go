package journal

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

var (
	testSigner = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	later      = epoch.AddDate(10, 2, 0) // when the months of the tests are over
)

func signed(fs disk.FS) Config {
	cfg := small(fs)
	cfg.Signing = &Signing{
		Mesh: "demo.example", Node: names.NodeID{Institution: "pcsa-ghent", Node: "n1"},
		Signer: testSigner, Now: func() time.Time { return later },
	}
	return cfg
}

func order(month string) Erase {
	return Erase{Period: month, Reason: "journal.retention of 120 months", Who: "retention", Time: later}
}

// months puts n entries into each of three months, in turn.
func months(t testing.TB, j *Journal, n int) {
	t.Helper()
	for i := range 3 * n {
		e := entry(i)
		e.TimeUnixMs = epoch.AddDate(0, -(i % 3), 0).UnixMilli()
		add(t, j, e)
	}
}

func roots(t testing.TB, j *Journal, n uint64) [32]byte {
	t.Helper()
	r, err := j.rootAt(context.Background(), n)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestErase: one month becomes unreadable, in log and index alike; everything else,
// and every leaf, stays; and the journal says what was done.
func TestErase(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	cfg := signed(nil)
	cfg.Dir = dir
	j := open(t, cfg)
	months(t, j, 10)
	n := j.Next()
	before := roots(t, j, n)
	keyFile := filepath.Join(dir, "log", "key-2026-10")
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(keyFile) // who holds the file open still sees its blocks
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	e, err := j.Erase(ctx, order("2026-10"))
	if err != nil {
		t.Fatal(err)
	}
	if e.Entries != 10 || e.First != 2 || e.Last != 29 {
		t.Errorf("erased %d entries, %d to %d", e.Entries, e.First, e.Last)
	}
	left := make([]byte, len(key))
	if _, err := held.ReadAt(left, 0); err != nil || bytes.Equal(left[20:], key[20:]) {
		t.Error("the key's blocks still hold the key")
	}
	check := func(j *Journal) {
		t.Helper()
		if got := find(t, j, Query{}); uint64(len(got)) != j.Next()-10 {
			t.Errorf("found %d of %d", len(got), j.Next())
		}
		if got := find(t, j, Query{Ticket: "ticket-000001"}); len(got) != 0 {
			t.Error("an erased entry is found")
		}
		if got := roots(t, j, n); got != before {
			t.Error("the tree changed")
		}
		if n, err := j.Verify(ctx); err != nil || n != j.Next() {
			t.Errorf("verified %d: %v", n, err)
		}
		if got := j.Erasures(time.Time{}, time.Time{}); len(got) != 1 || !strings.Contains(got[0].String(), "2026-10 was erased on 2037-01-23 under journal.retention") {
			t.Errorf("erasures: %v", got)
		}
		if rows, err := j.index.count(2026*12 + 9); err != nil || rows != 0 {
			t.Errorf("%d rows of the month are left, %v", rows, err)
		}
		old := entry(1)
		old.TimeUnixMs = epoch.AddDate(0, -1, 0).UnixMilli()
		if _, err := j.Append(ctx, old); !errors.Is(err, ErrRefused) {
			t.Errorf("an entry of an erased month: %v", err)
		}
		if err := j.Healthy(); err != nil {
			t.Error(err)
		}
	}
	check(j)
	if again, err := j.Erase(ctx, order("2026-10")); err != nil || again != e {
		t.Errorf("erased twice: %v", err)
	}
	j.Close()
	j = open(t, cfg)
	check(j)
	j.Close()

	// The index rebuilt from the log knows nothing of the month either.
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
		t.Fatal(err)
	}
	j = open(t, cfg)
	check(j)
	// The tombstone is signed, stands in the log, and verifies by itself.
	var stones int
	for _, s := range find(t, j, Query{From: later.Add(-time.Hour)}) {
		if s.Entry.Event != nodepb.Event_ERASED {
			continue
		}
		stones++
		opened, err := envelope.Open(envelope.Tombstone, s.Entry.Evidence[0])
		if err != nil || !opened.VerifiedBy(testSigner.Public().(ed25519.PublicKey)) {
			t.Fatal("the tombstone does not verify", err)
		}
		tomb := new(nodepb.Tombstone)
		if err := proto.Unmarshal(opened.Payload, tomb); err != nil || tomb.Period != "2026-10" || tomb.Node.Institution != "pcsa-ghent" || tomb.Entries != 10 {
			t.Errorf("tombstone %v, %v", tomb, err)
		}
	}
	if stones != 1 {
		t.Errorf("%d tombstones in the log", stones)
	}
}

// TestEraseRefuses: what must not be erased is not, and changes nothing.
func TestEraseRefuses(t *testing.T) {
	ctx := context.Background()
	j := open(t, signed(disktest.New()))
	months(t, j, 1)
	for _, c := range []struct {
		order Erase
		want  error
	}{
		{Erase{Period: "2026-11", Time: epoch}, ErrRefused},
		{Erase{Period: "2026-12", Time: epoch}, ErrRefused},
		{Erase{Period: "2026-1", Time: later}, ErrRefused},
		{Erase{Period: "2026-13", Time: later}, ErrRefused},
		{Erase{Period: "", Time: later}, ErrRefused},
		{Erase{Period: "../key", Time: later}, ErrRefused},
		{order("2020-01"), ErrNothing},
	} {
		if _, err := j.Erase(ctx, c.order); !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.order.Period, err, c.want)
		}
	}
	if got := find(t, j, Query{}); uint64(len(got)) != j.Next() {
		t.Error("something is gone")
	}
	k := open(t, small(disktest.New()))
	months(t, k, 1)
	if _, err := k.Erase(ctx, order("2026-10")); err == nil {
		t.Error("erased without a signature")
	}
}

// TestNoTombstoneNoErasure: a key that is gone is damage unless a tombstone that was
// written under the storage key says otherwise.
func TestNoTombstoneNoErasure(t *testing.T) {
	base := disktest.New()
	j := open(t, signed(base))
	months(t, j, 2)
	j.Close()
	other := disktest.New()
	cfg := signed(other)
	cfg.Key = bytes.Repeat([]byte{8}, KeySize)
	j = open(t, cfg)
	months(t, j, 2)
	if _, err := j.Erase(context.Background(), order("2026-10")); err != nil {
		t.Fatal(err)
	}
	j.Close()
	forged := other.Bytes("erased-2026-10")

	for name, do := range map[string]func(fs *disktest.FS){
		"no tombstone":                 func(fs *disktest.FS) {},
		"tombstone of another journal": func(fs *disktest.FS) { put(t, fs, "erased-2026-10", forged) },
		"empty tombstone":              func(fs *disktest.FS) { put(t, fs, "erased-2026-10", nil) },
		"tombstone of another month": func(fs *disktest.FS) {
			o := base.Copy()
			j := open(t, signed(o))
			if _, err := j.Erase(context.Background(), order("2026-09")); err != nil {
				t.Fatal(err)
			}
			j.Close()
			put(t, fs, "erased-2026-10", o.Bytes("erased-2026-09"))
		},
	} {
		fs := base.Copy()
		if err := fs.Remove("key-2026-10"); err != nil {
			t.Fatal(err)
		}
		do(fs)
		if j, err := Open(signed(fs)); !errors.Is(err, ErrCorrupt) {
			if err == nil {
				j.Close()
			}
			t.Errorf("%s: %v", name, err)
		}
	}
}

func put(t testing.TB, fs disk.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Open(name, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 {
		if _, err := f.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Sync(), fs.SyncDir()); err != nil {
		t.Fatal(err)
	}
}

// TestErasePowerLoss takes the power away after each operation of an erasure, and
// again during the recovery: the month is whole or erased, never neither, and once
// Erase has returned it is erased. With the month gone no trace of its key is left.
func TestErasePowerLoss(t *testing.T) {
	base := disktest.New()
	j := open(t, signed(base))
	months(t, j, 4)
	root, n := roots(t, j, j.Next()), j.Next()
	j.Close()
	key := base.Bytes("key-2026-10")[20:]

	probe := base.Copy()
	j = open(t, signed(probe))
	start := probe.Ops()
	if _, err := j.Erase(context.Background(), order("2026-10")); err != nil {
		t.Fatal(err)
	}
	ops := probe.Ops() - start
	j.Close()
	whole, gone := 0, 0
	for _, survives := range []disktest.Survival{disktest.Nothing, disktest.Everything, disktest.Random(1)} {
		for at := range ops + 1 {
			for _, second := range []int{-1, 0, 2, 5} {
				fs := base.Copy()
				j, err := Open(signed(fs))
				if err != nil {
					t.Fatal(err)
				}
				fs.FailAfter(at)
				_, err = j.Erase(context.Background(), order("2026-10"))
				done := err == nil
				fs.FailAfter(0)
				j.Close()
				fs.Crash(survives)
				if second >= 0 {
					fs.FailAfter(second)
					if j, err := Open(signed(fs)); err == nil {
						j.Close()
					}
					fs.Crash(survives)
				}
				erased, err := state(fs, n, root, key)
				if err != nil || done && !erased {
					t.Fatalf("power lost at %d of %d, again at %d: erased %t, returned %t, %v", at, ops, second, erased, done, err)
				}
				if erased {
					gone++
				} else {
					whole++
				}
			}
		}
	}
	if whole == 0 || gone == 0 {
		t.Errorf("%d whole and %d erased: the test met only one side", whole, gone)
	}
}

// state opens a disk and checks that the month is either whole or erased, all else there.
func state(fs *disktest.FS, n uint64, root [32]byte, key []byte) (erased bool, err error) {
	j, err := Open(signed(fs))
	if err != nil {
		return false, err
	}
	defer j.Close()
	ctx := context.Background()
	got, err := j.Find(ctx, Query{Until: epoch.AddDate(1, 0, 0)})
	if err != nil {
		return false, err
	}
	erased = len(j.Erasures(time.Time{}, time.Time{})) == 1
	want := int(n)
	if erased {
		want -= 4
	}
	if len(got) != want-1 && len(got) != want { // the first epoch's entry is of a later month
		return erased, fmt.Errorf("%d entries found, want %d", len(got), want)
	}
	if r, err := j.rootAt(ctx, n); err != nil || r != root {
		return erased, fmt.Errorf("the tree changed: %w", err)
	}
	if m, err := j.Verify(ctx); err != nil || m != j.Next() {
		return erased, fmt.Errorf("verified %d: %w", m, err)
	}
	names, _ := fs.List()
	for _, name := range names {
		if erased && bytes.Contains(fs.Bytes(name), key) {
			return erased, fmt.Errorf("%s still holds the key", name)
		}
		if strings.HasSuffix(name, pendingSuffix) {
			return erased, fmt.Errorf("%s was not settled", name)
		}
	}
	if !erased {
		return false, nil
	}
	stones, err := j.Find(ctx, Query{From: later.Add(-time.Hour)})
	for _, s := range stones {
		if s.Entry.Event == nodepb.Event_ERASED {
			return true, err
		}
	}
	return true, fmt.Errorf("no entry tells of the erasure: %w", err)
}

// TestEraseWhileWorking: readers and writers go on beside an erasure, and none of
// them fails or gets half an entry.
func TestEraseWhileWorking(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	j := open(t, signed(disktest.New()))
	months(t, j, 200)
	failed := make(chan error, 2)
	go func() {
		for ctx.Err() == nil {
			if _, err := j.Find(context.Background(), Query{}); err != nil {
				failed <- fmt.Errorf("find: %w", err)
				return
			}
		}
		failed <- nil
	}()
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			e := entry(i)
			e.TimeUnixMs = epoch.AddDate(0, -(i % 3), 0).UnixMilli()
			if _, err := j.Append(context.Background(), e); err != nil && !errors.Is(err, ErrRefused) {
				failed <- fmt.Errorf("append: %w", err)
				return
			}
		}
		failed <- nil
	}()
	for _, m := range []string{"2026-09", "2026-10"} {
		e, err := j.Erase(ctx, order(m))
		if err != nil {
			t.Fatal(err)
		}
		if e.Entries < 200 {
			t.Errorf("%s: %d entries", m, e.Entries)
		}
	}
	cancel()
	if err := errors.Join(<-failed, <-failed); err != nil {
		t.Fatal(err)
	}
	if n, err := j.Verify(context.Background()); err != nil || n != j.Next() {
		t.Fatal(n, err)
	}
}

// count gives the rows of a month.
func (x *index) count(p period) (n int, err error) {
	err = x.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{Prefix: binary.BigEndian.AppendUint32(nil, uint32(p))})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			n++
		}
		return nil
	})
	return n, err
}
