package journal

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// anchored is what the network saw of a journal.
func anchored(t testing.TB, j *Journal) Anchored {
	t.Helper()
	n := j.Next()
	return Anchored{Size: n, Root: roots(t, j, n), Epoch: j.Epoch().Number}
}

// TestRollback: a disk put back to an older copy is found out, whatever was done on it
// since; a declared restore is not accused, and what comes after it is watched again.
func TestRollback(t *testing.T) {
	ctx := context.Background()
	disk := disktest.New()
	j := open(t, signed(disk))
	months(t, j, 3)
	old := anchored(t, j)
	j.Close()
	backup := disk.Copy()
	j = open(t, signed(disk))
	months(t, j, 3)
	seen := anchored(t, j)
	if err := j.CheckAnchored(ctx, seen, nil); err != nil {
		t.Fatal(err)
	}
	if err := j.CheckAnchored(ctx, old, nil); err != nil {
		t.Fatal(err)
	}
	j.Close()

	refused := func(what string, j *Journal, a Anchored) {
		t.Helper()
		err := j.CheckAnchored(ctx, a, nil)
		if !errors.Is(err, ErrRolledBack) || !strings.Contains(err.Error(), "restore-declared") {
			t.Errorf("%s: %v", what, err)
		}
	}
	restored := backup.Copy()
	j = open(t, signed(restored))
	refused("restored", j, seen)
	months(t, j, 5) // longer than what was anchored, and another past
	refused("restored and grown", j, seen)
	if err := j.Halt(ErrRolledBack); !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrRolledBack) {
		t.Error(err)
	}
	if _, err := j.Append(ctx, entry(1)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("it goes on: %v", err)
	}
	j.Close()

	restored = backup.Copy()
	j = open(t, signed(restored))
	was := j.Epoch()
	if was.Number != 1 || !was.NotBefore(time.Second, time.Second).IsZero() {
		t.Errorf("first epoch: %+v", was)
	}
	e, err := j.BeginEpoch(ctx, "disk replaced", "operator")
	if err != nil {
		t.Fatal(err)
	}
	if e.Number != 2 || e.ID == was.ID || e.ResumesAt != old.Size {
		t.Errorf("epoch: %+v", e)
	}
	if got, want := e.NotBefore(5*time.Second, time.Second), e.Started.Add(6*time.Second); !got.Equal(want) {
		t.Errorf("clearances from %v, want %v", got, want)
	}
	if err := j.CheckAnchored(ctx, seen, nil); err != nil {
		t.Errorf("declared, and yet: %v", err)
	}
	months(t, j, 1)
	now := anchored(t, j)
	j.Close()
	newer := restored.Copy()
	j = open(t, signed(newer))
	if got := j.Epoch(); got.Number != 2 || got.ID != e.ID {
		t.Errorf("after opening again: %+v", got)
	}
	months(t, j, 1)
	now2 := anchored(t, j)
	j.Close()
	j = open(t, signed(restored)) // rolled back within the second epoch
	if err := j.CheckAnchored(ctx, now, nil); err != nil {
		t.Error(err)
	}
	refused("rolled back in the second epoch", j, now2)
	now.Root[0] ^= 1
	refused("another past", j, now)
	j.Close()
	j = open(t, signed(backup.Copy())) // the backup once more, without a word
	refused("restored to before the declared epoch", j, now2)
	refused("restored to before the declared epoch", j, Anchored{Size: 1, Epoch: 2})

	p, err := OpenEpoch(e.Statement, testSigner.Public().(ed25519.PublicKey))
	if err != nil || p.Number != 2 || string(p.Previous) != string(was.ID[:]) || [32]byte(p.ResumesRoot) != old.Root {
		t.Errorf("statement %v, %v", p, err)
	}
	if _, err := OpenEpoch(e.Statement, make(ed25519.PublicKey, 32)); !errors.Is(err, envelope.ErrBadSignature) {
		t.Error(err)
	}
}

// TestEpochPowerLoss: an epoch that was declared stands, is told in the log, and is
// never half there.
func TestEpochPowerLoss(t *testing.T) {
	ctx := context.Background()
	base := disktest.New()
	j := open(t, signed(base))
	months(t, j, 1)
	j.Close()
	for _, survives := range []disktest.Survival{disktest.Nothing, disktest.Everything, disktest.Random(3)} {
		for at := 0; ; at++ {
			fs := base.Copy()
			j, err := Open(signed(fs))
			if err != nil {
				t.Fatal(err)
			}
			start := fs.Ops()
			fs.FailAfter(at)
			e, err := j.BeginEpoch(ctx, "restored", "operator")
			finished := fs.Ops()-start <= at
			fs.FailAfter(0)
			j.Close()
			fs.Crash(survives)
			k, kerr := Open(signed(fs))
			if kerr != nil {
				t.Fatalf("power lost at %d: %v", at, kerr)
			}
			got, told := k.Epoch(), map[string]bool{}
			found, ferr := k.Find(ctx, Query{})
			for _, s := range found {
				if s.Entry.Event == nodepb.Event_EPOCH_BEGUN {
					p, err := decodeEpoch(s.Entry.Evidence[0])
					if err != nil {
						t.Fatal(err)
					}
					told[string(p.Id)] = true
				}
			}
			if ferr != nil || !told[string(got.ID[:])] || len(told) != int(got.Number) {
				t.Fatalf("power lost at %d: epoch %d, %d told of, %v", at, got.Number, len(told), ferr)
			}
			if err == nil && got.ID != e.ID {
				t.Fatalf("power lost at %d: a declared epoch is gone", at)
			}
			k.Close()
			if finished {
				break
			}
		}
	}
}

// TestEpochForged: whoever has the disk alone makes no epoch.
func TestEpochForged(t *testing.T) {
	a, b := disktest.New(), disktest.New()
	j := open(t, signed(a))
	j.Close()
	cfg := signed(b)
	cfg.Key = make([]byte, KeySize)
	j = open(t, cfg)
	j.Close()
	for _, raw := range [][]byte{b.Bytes("epoch"), []byte("XRJSTM1\n"), make([]byte, 100), nil} {
		fs := a.Copy()
		if err := fs.Remove("epoch"); err != nil {
			t.Fatal(err)
		}
		put(t, fs, "epoch", raw)
		if _, err := Open(signed(fs)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: %v", len(raw), err)
		}
	}
}
