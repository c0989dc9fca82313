package journal_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// signing is the holder of the journal whose origin is origin.
func signing(key ed25519.PrivateKey, node names.NodeName) *journal.Signing {
	return &journal.Signing{Mesh: "demo.example", Node: names.NodeID{Institution: "pcsa-ghent", Node: node}, Signer: key}
}

// life is one life of a journal that knows whose it is.
type life struct {
	t    *testing.T
	r    *rand.Rand
	disk *disktest.FS
}

// run opens the journal, declares an epoch if there is a reason, appends, publishes,
// and gives the last checkpoint.
func (l *life) run(reason string, s *journal.Signing, entries int) (checkpoint []byte) {
	l.t.Helper()
	ctx := context.Background()
	j, err := journal.Open(journal.Config{FS: l.disk, Key: storageKey, SegmentSize: segmentSize, ChunkSize: 1 << 10, Signing: s})
	if err != nil {
		l.t.Fatal(err)
	}
	if reason != "" {
		if _, err := j.BeginEpoch(ctx, reason, "operator"); err != nil {
			l.t.Fatal(err)
		}
	}
	tree, err := tlog.Open(ctx, tlog.Config{
		Journal: j, Checkpoints: l.disk, Tiles: l.disk, Origin: origin, Epoch: int64(j.Epoch().Number), Signer: signer, Every: time.Hour,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	n := &node{j, tree}
	if err := errors.Join(n.append(l.r, entries), tree.Publish(ctx)); err != nil {
		l.t.Fatal(err)
	}
	checkpoint = tree.Checkpoint()
	if err := n.stop(); err != nil {
		l.t.Fatal(err)
	}
	return checkpoint
}

// restored is a journal whose disk was put back once: the checkpoints that others have
// from before the backup, from what was lost, and from after.
func restored(t *testing.T, r *rand.Rand, declare string, s *journal.Signing) (disk *disktest.FS, before, lost, after []byte) {
	l := &life{t, r, disktest.New()}
	mine := signing(signer, "n1")
	before = l.run("", mine, 3+r.IntN(30))
	l.run("", mine, r.IntN(5))
	backup := l.disk.Copy()
	lost = l.run("", mine, 1+r.IntN(20))
	l.disk = backup
	after = l.run(declare, s, r.IntN(60))
	return l.disk, before, lost, after
}

// TestDeclaredRestore: entries that a restored disk lost are told, and accuse nobody,
// whichever checkpoints others kept, and however often it was restored.
func TestDeclaredRestore(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 8))
		disk, before, lost, after := restored(t, r, "disk replaced", signing(signer, "n1"))
		report := verify(t, disk, before, lost, after)
		if !report.OK() || len(report.Declared) != 1 {
			t.Fatalf("seed %d: %v, declared %+v", seed, report.Findings, report.Declared)
		}
		d := report.Declared[0]
		size := func(note []byte) int64 {
			c, err := tlog.OpenCheckpoint(origin, public, note)
			if err != nil {
				t.Fatal(err)
			}
			return c.Size
		}
		if d.Epoch != 2 || d.Lost != size(lost) || d.Proven != size(before) || d.At < size(before) || d.At >= size(lost) || d.Who != "operator" || !d.Shown {
			t.Fatalf("seed %d: %+v; before %d, lost %d", seed, d, size(before), size(lost))
		}
		var text strings.Builder
		if _, err := d.WriteTo(&text); err != nil || !strings.Contains(text.String(), "were lost with the disk") || !strings.Contains(text.String(), "disk replaced") {
			t.Errorf("%v: %s", err, text.String())
		}

		// Put back a second time, after more was seen of the second epoch.
		l := &life{t, r, disk.Copy()}
		second := l.run("", signing(signer, "n1"), 1+r.IntN(9))
		l.disk = disk
		l.run("again", signing(signer, "n1"), 3)
		report = verify(t, disk, before, lost, after, second)
		if !report.OK() || len(report.Declared) != 2 || report.Declared[1].Lost != size(second) {
			t.Fatalf("seed %d, restored twice: %v, %+v", seed, report.Findings, report.Declared)
		}
	}
}

// TestDeclaringExcusesOnlyTheLoss: without a declaration that fits, a disk that was put
// back is a rollback; and no declaration excuses what a checkpoint from before still
// proves to be altered. What it does excuse is said to rest on the holder's word.
func TestDeclaringExcusesOnlyTheLoss(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]*journal.Signing{
		"signed by another key": signing(stranger, "n1"), "of another node": signing(signer, "n2"),
	} {
		disk, before, lost, _ := restored(t, r, "excuse", s)
		if report := verify(t, disk, before, lost); report.OK() || len(report.Declared) > 0 {
			t.Errorf("a declaration %s excuses: %+v", what, report)
		}
	}
	disk, before, lost, _ := restored(t, r, "", signing(signer, "n1"))
	if report := verify(t, disk, before, lost); report.OK() {
		t.Error("nothing was declared, and nothing is wrong")
	}

	// The declaration does not fit the log: an entry before it was changed since.
	for range 20 {
		disk, before, lost, _ = restored(t, r, "excuse", signing(signer, "n1"))
		a := &attack{victim: &victim{}, r: r, disk: disk}
		a.rewrite(t, func(l []journal.Loose) []journal.Loose {
			report := verify(t, disk, before, lost)
			a.at = r.IntN(int(report.Declared[0].At))
			l[a.at] = a.forged(l[a.at])
			return l
		})
		for _, name := range []string{"level-0", "checkpoints"} {
			_ = disk.Remove(name)
		}
		if report := verify(t, disk, lost); report.OK() {
			t.Fatalf("entry %d was changed after the declaration", a.at)
		}
	}

	// Changed first and declared then: what others proved before is found, the rest is
	// the holder's word, and the report says which that is.
	for range 40 {
		l := &life{t, r, disktest.New()}
		mine := signing(signer, "n1")
		before := l.run("", mine, 10)
		lost := l.run("", mine, 10)
		a := &attack{victim: &victim{}, r: r, disk: l.disk}
		a.rewrite(t, func(list []journal.Loose) []journal.Loose {
			a.at = 1 + r.IntN(18)
			list[a.at] = a.forged(list[a.at])
			return list[:20]
		})
		for _, name := range []string{"level-0", "checkpoints"} {
			if err := l.disk.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		l.run("cover", mine, 5)
		report := verify(t, l.disk, before, lost)
		switch c, _ := tlog.OpenCheckpoint(origin, public, before); {
		case int64(a.at) < c.Size:
			if report.OK() {
				t.Fatalf("entry %d was changed under the cover of an epoch", a.at)
			}
		case len(report.Declared) != 1 || report.Declared[0].Proven > int64(a.at) || report.Declared[0].Lost <= int64(a.at):
			t.Fatalf("entry %d was changed, and %+v says that it is proven", a.at, report.Declared)
		}
	}
}
