package journal_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// tamperingsVar sets how many tamperings TestTampering tries, and the seed.
const tamperingsVar = "JOURNAL_TAMPERINGS"

const (
	origin      = "demo.example/journal/pcsa-ghent/n1"
	segmentSize = 8 << 10
)

var (
	storageKey = bytes.Repeat([]byte{7}, journal.KeySize)
	signer     = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	public     = signer.Public().(ed25519.PublicKey)
)

// erasedMonth is the one that some victims have erased entries of.
const erasedMonth = "2026-10"

func anEntry(r *rand.Rand) *nodepb.Entry {
	return entryOf(r, time.November)
}

func entryOf(r *rand.Rand, m time.Month) *nodepb.Entry {
	return &nodepb.Entry{
		TimeUnixMs: time.Date(2026, m, 23, 12, 0, 0, r.IntN(1e9), time.UTC).UnixMilli(),
		Role:       nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED, Ticket: fmt.Sprint("ticket-", r.IntN(1e9)), Detail: strings.Repeat("x", r.IntN(150)),
	}
}

// node is a journal with its tree, on one disk.
type node struct {
	journal *journal.Journal
	tree    *tlog.Log
}

func start(fs *disktest.FS) (*node, error) {
	j, err := journal.Open(journal.Config{FS: fs, Key: storageKey, SegmentSize: segmentSize, ChunkSize: 1 << 10, Signing: signing(signer, "n1")})
	if err != nil {
		return nil, err
	}
	l, err := tlog.Open(context.Background(), tlog.Config{
		Journal: j, Checkpoints: fs, Tiles: fs, Origin: origin, Signer: signer, Every: time.Hour,
	})
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return &node{j, l}, nil
}

func (n *node) stop() error { return errors.Join(n.tree.Close(), n.journal.Close()) }

func (n *node) append(r *rand.Rand, count int) error {
	for range count {
		if _, err := n.journal.Append(context.Background(), anEntry(r)); err != nil {
			return err
		}
	}
	return nil
}

// victim is an honest journal: its disk, older copies of it, and what others kept.
type victim struct {
	disk    *disktest.FS
	older   []*disktest.FS // each with fewer entries than anchor
	anchor  []byte
	size    int
	entries int
}

func newVictim(t testing.TB, r *rand.Rand) *victim {
	t.Helper()
	v := &victim{disk: disktest.New()}
	n, err := start(v.disk)
	if err != nil {
		t.Fatal(err)
	}
	if r.IntN(2) == 0 {
		v.erase(t, r, n)
	}
	for range 3 + r.IntN(5) {
		v.older = append(v.older, v.disk.Copy())
		if err := n.append(r, 1+r.IntN(30)); err != nil {
			t.Fatal(err)
		}
		if err := n.tree.Publish(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	v.anchor, v.size = n.tree.Checkpoint(), int(n.tree.Size())
	if r.IntN(2) == 0 { // some entries that nobody else knows of yet
		if err := n.append(r, r.IntN(10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	v.entries = int(n.journal.Next())
	return v
}

// erase gives the journal a month of which only commitments stand, among entries of the next.
func (v *victim) erase(t testing.TB, r *rand.Rand, n *node) {
	ctx := context.Background()
	for i := range 10 + r.IntN(20) {
		month := time.October
		if i%3 == 1 {
			month = time.November
		}
		if _, err := n.journal.Append(ctx, entryOf(r, month)); err != nil {
			t.Fatal(err)
		}
	}
	order := journal.Erase{Period: erasedMonth, Reason: "its time", Who: "retention", Time: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)}
	if _, err := n.journal.Erase(ctx, order); err != nil {
		t.Fatal(err)
	}
}

func verify(t testing.TB, fs *disktest.FS, anchors ...[]byte) *tlog.Report {
	t.Helper()
	report, err := tlog.Verify(context.Background(), tlog.VerifyConfig{
		Journal: journal.Config{FS: fs, Key: storageKey}, Tiles: fs, Origin: origin, Key: public, Anchors: anchors,
	})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// attack is one tampering under way.
type attack struct {
	*victim
	r    *rand.Rand
	disk *disktest.FS
	at   int // the first entry that is touched
	says string
}

// rewrite changes the records, with every checksum right.
func (a *attack) rewrite(t testing.TB, change func(list []journal.Loose) []journal.Loose) {
	t.Helper()
	list, err := journal.TakeApart(a.disk, storageKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.PutTogether(a.disk, storageKey, change(list), segmentSize); err != nil {
		t.Fatal(err)
	}
}

// readable moves the place of the attack to an entry that was not erased: of one that
// was, only the commitment is left to be touched.
func (a *attack) readable(l []journal.Loose) {
	for l[a.at].Erased || a.at == 0 {
		a.at = (a.at + 1) % a.size
	}
}

// forged makes a record of another entry.
func (a *attack) forged(of journal.Loose) journal.Loose {
	of.Raw = slices.Clone(of.Raw)
	of.Raw = append(of.Raw, 0xA2, 0x06, 1, byte(a.r.IntN(256))) // one more field
	of.Recommit()
	return of
}

// tamperings are what an attacker does to the log. Each gives the least that has to
// be said of the place.
var tamperings = map[string]func(t testing.TB, a *attack){
	"delete": func(t testing.TB, a *attack) {
		a.rewrite(t, func(l []journal.Loose) []journal.Loose { return slices.Delete(l, a.at, a.at+1) })
	},
	"alter": func(t testing.TB, a *attack) {
		a.rewrite(t, func(l []journal.Loose) []journal.Loose { l[a.at] = a.forged(l[a.at]); return l })
	},
	"alter, commitment kept": func(t testing.TB, a *attack) {
		a.rewrite(t, func(l []journal.Loose) []journal.Loose {
			a.readable(l)
			was := l[a.at].Commitment
			l[a.at] = a.forged(l[a.at])
			l[a.at].Commitment = was
			return l
		})
	},
	"insert": func(t testing.TB, a *attack) {
		a.rewrite(t, func(l []journal.Loose) []journal.Loose { return slices.Insert(l, a.at, a.forged(l[a.at])) })
	},
	"reorder": func(t testing.TB, a *attack) {
		a.rewrite(t, func(l []journal.Loose) []journal.Loose {
			other := (a.at + 1 + a.r.IntN(a.size-1)) % a.size
			l[a.at], l[other] = l[other], l[a.at]
			a.at = min(a.at, other)
			return l
		})
	},
	"truncate": func(t testing.TB, a *attack) {
		a.rewrite(t, func(l []journal.Loose) []journal.Loose { return l[:a.at] })
	},
	"swap salts": func(t testing.TB, a *attack) {
		a.rewrite(t, func(l []journal.Loose) []journal.Loose {
			a.readable(l)
			other := (a.at + 1 + a.r.IntN(a.size-1)) % a.size
			for l[other].Erased || other == a.at {
				other = (other + 1) % a.size
			}
			l[a.at].Salt, l[other].Salt = l[other].Salt, l[a.at].Salt
			if a.r.IntN(2) == 0 {
				l[a.at].Recommit()
				l[other].Recommit()
			}
			a.at = min(a.at, other)
			return l
		})
	},
	"fork": func(t testing.TB, a *attack) {
		a.rewrite(t, func(l []journal.Loose) []journal.Loose {
			l = l[:a.at]
			for range a.size - a.at + a.r.IntN(20) {
				l = append(l, a.forged(l[a.r.IntN(len(l))]))
			}
			return l
		})
	},
	"hide among the erased": func(t testing.TB, a *attack) {
		a.rewrite(t, func(l []journal.Loose) []journal.Loose {
			var first, last int // of the erased
			for i, r := range l {
				if r.Erased {
					if last = i; first == 0 {
						first = i
					}
				}
			}
			a.at = first + a.r.IntN(last-first+1)
			for l[a.at].Erased {
				a.at = first + a.r.IntN(last-first+1)
			}
			if err := l[a.at].Bury(erasedMonth); err != nil {
				t.Fatal(err)
			}
			return l
		})
	},
	"roll back": func(t testing.TB, a *attack) {
		a.disk = a.older[a.r.IntN(len(a.older))].Copy()
		a.at = 0
	},
	"flip a bit": func(t testing.TB, a *attack) {
		files := a.segments(t)
		name := files[a.r.IntN(len(files))]
		b := a.disk.Bytes(name)
		end := len(bytes.TrimRight(b, "\x00"))
		a.disk.Flip(name, int64(a.r.IntN(end)), 1<<a.r.IntN(8))
		a.at = -1
	},
	"remove a file": func(t testing.TB, a *attack) {
		files := a.segments(t)
		if err := a.disk.Remove(files[a.r.IntN(len(files))]); err != nil {
			t.Fatal(err)
		}
		a.at = -1
	},
}

func (a *attack) segments(t testing.TB) []string {
	names, err := a.disk.List()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".journal") })
}

// cover is what the attacker does besides, so as not to be found.
func (a *attack) cover(t testing.TB) {
	remove := func(names ...string) {
		for _, n := range names {
			if err := a.disk.Remove(n); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	switch a.r.IntN(4) {
	case 0: // leaves everything else as it is
	case 1:
		remove("level-0", "level-1")
		a.says += ", tiles gone"
	case 2:
		remove("level-0", "level-1", "checkpoints")
		a.says += ", checkpoints gone"
	case 3: // has the signing key too: lets the node sign the new history
		remove("level-0", "level-1", "checkpoints")
		n, err := start(a.disk)
		if err != nil {
			return // the journal itself noticed
		}
		if a.r.IntN(2) == 0 {
			if err := n.append(a.r, a.r.IntN(40)); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		a.says += ", signed again"
	}
}

// TestTampering attacks honest journals at random. Whoever kept the last checkpoint
// must find every tampering, name the journal's holder, and have the evidence.
func TestTampering(t *testing.T) {
	count, seed := 1500, uint64(1)
	if testing.Short() {
		count = 300
	}
	if s := os.Getenv(tamperingsVar); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		count, seed = n, uint64(time.Now().UnixNano())
	}
	r := rand.New(rand.NewPCG(seed, 3))
	var kinds []string
	for k := range tamperings {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	said := map[tlog.Kind]int{}
	var v *victim
	for i := range count {
		if i%50 == 0 {
			v = newVictim(t, r)
			if report := verify(t, v.disk, v.anchor); !report.OK() || int(report.Entries) != v.entries {
				t.Fatalf("an honest journal was accused: %v", report.Findings)
			}
		}
		kind := kinds[i%len(kinds)]
		a := &attack{victim: v, r: r, disk: v.disk.Copy(), says: kind, at: 1 + r.IntN(v.size-1)}
		tamperings[kind](t, a)
		if kind != "flip a bit" && kind != "remove a file" {
			a.cover(t)
		}
		report := verify(t, a.disk, v.anchor)
		if err := a.judge(report, said); err != nil {
			t.Fatalf("seed %d, tampering %d (%s at %d of %d signed, %d in all): %v\n%v", seed, i, a.says, a.at, v.size, v.entries, err, report.Findings)
		}
	}
	t.Logf("%d tamperings, all found: %v", count, said)
}

// judge says what is wrong with the verdict.
func (a *attack) judge(report *tlog.Report, said map[tlog.Kind]int) error {
	if report.OK() {
		if a.at < 0 && a.harmless() {
			return nil
		}
		return errors.New("not found")
	}
	placed, named := false, false
	for _, f := range report.Findings {
		said[f.Kind]++
		if f.From <= int64(a.at) && int64(a.at) < f.Until || a.at <= 0 {
			placed = true
		}
		if f.Culprit() == origin {
			named = true
			if len(f.Statement) > 0 {
				opened, err := envelope.Open(envelope.Tombstone, f.Statement)
				if err != nil || !opened.VerifiedBy(public) || !strings.Contains(f.String(), base64.StdEncoding.EncodeToString(f.Statement)) {
					return fmt.Errorf("the tombstone is no evidence: %v", err)
				}
				continue
			}
			c, err := tlog.OpenCheckpoint(origin, public, f.Checkpoint)
			if err != nil {
				return fmt.Errorf("the evidence does not verify: %w", err)
			}
			if !strings.Contains(f.String(), strings.Split(string(c.Note), "\n")[2]) {
				return errors.New("the evidence is not printed")
			}
		}
	}
	switch {
	case !placed:
		return errors.New("the place is wrong")
	case !named && a.at >= 0:
		return errors.New("nobody is named")
	}
	return nil
}

// harmless tells whether the disk, damaged in the zeros or in entries that nobody was
// told of, still holds all entries.
func (a *attack) harmless() bool {
	list, err := journal.TakeApart(a.disk, storageKey)
	return err == nil && len(list) >= a.size
}

// TestForgedAnchor: who hands in a checkpoint that the journal did not sign accuses
// nobody.
func TestForgedAnchor(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	v := newVictim(t, r)
	_, other, _ := ed25519.GenerateKey(nil)
	fs := disktest.New()
	j, err := journal.Open(journal.Config{FS: fs, Key: storageKey})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	l, err := tlog.Open(context.Background(), tlog.Config{Journal: j, Checkpoints: fs, Tiles: fs, Origin: origin, Signer: other, Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for what, anchor := range map[string][]byte{
		"signed by another key": l.Checkpoint(),
		"another root":          bytes.Replace(v.anchor, []byte("\n"+strconv.Itoa(v.size)+"\n"), []byte("\n"+strconv.Itoa(v.size+1)+"\n"), 1),
		"nothing":               nil,
	} {
		_, err := tlog.Verify(context.Background(), tlog.VerifyConfig{
			Journal: journal.Config{FS: v.disk, Key: storageKey}, Origin: origin, Key: public, Anchors: [][]byte{anchor},
		})
		if !errors.Is(err, tlog.ErrNoCheckpoint) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestHonestCrashes: a journal that lost power at any moment, and holds all that was
// acknowledged, is never accused: neither as the crash left it nor after it was
// opened again, whatever checkpoint somebody kept.
func TestHonestCrashes(t *testing.T) {
	lives := 60
	if testing.Short() {
		lives = 15
	}
	for seed := range uint64(lives) {
		r := rand.New(rand.NewPCG(seed, 4))
		fs := disktest.New()
		var anchors [][]byte
		for life := range 8 {
			fs.FailAfter(r.IntN(120))
			if n, err := start(fs); err == nil {
				for range r.IntN(8) {
					if n.append(r, r.IntN(6)) != nil || n.tree.Publish(context.Background()) != nil {
						break
					}
					anchors = append(anchors, n.tree.Checkpoint())
				}
				n.stop()
			} else if !errors.Is(err, disktest.ErrPower) {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
			survives := disktest.Random(r.Uint64())
			if r.IntN(3) == 0 {
				survives = disktest.Everything // kill -9: what was written is in the cache
			}
			fs.Crash(survives)
			if names, _ := fs.List(); len(names) == 0 {
				continue
			}
			if report := verify(t, fs, anchors...); !report.OK() {
				t.Fatalf("seed %d, life %d: an honest journal was accused: %v", seed, life, report.Findings)
			}
		}
	}
}

// TestVerifyWhileRunning: beside a node, what its last checkpoint covers is verified.
func TestVerifyWhileRunning(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	fs := disktest.New()
	n, err := start(fs)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop()
	for range 3 {
		if err := errors.Join(n.append(r, 40), n.tree.Publish(context.Background()), n.append(r, 5)); err != nil {
			t.Fatal(err)
		}
		report := verify(t, fs, n.tree.Checkpoint())
		if !report.OK() || !report.Running || report.Entries != n.tree.Size() {
			t.Fatalf("%+v", report)
		}
	}
}

// TestEvidence: the text names what was changed, by whom, and holds what proves it.
func TestEvidence(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for kind, says := range map[string]string{
		"delete":  "entry 20 was taken out, and those behind it moved up",
		"insert":  "an entry was put in at 20, and those behind it moved down",
		"alter":   "entry 20 was changed",
		"reorder": "changed places",
		"fork":    "entries were changed",
	} {
		v := newVictim(t, r)
		for v.size < 60 {
			v = newVictim(t, r)
		}
		a := &attack{victim: v, r: r, disk: v.disk.Copy(), at: 20}
		tamperings[kind](t, a)
		report := verify(t, a.disk, v.anchor)
		var text strings.Builder
		for _, f := range report.Findings {
			text.WriteString(f.String())
		}
		for _, want := range []string{says, "what ", "culprit   the holder of this journal", "journal   " + origin, "— " + origin} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("%s: no %q in\n%s", kind, want, text.String())
			}
		}
	}
}
