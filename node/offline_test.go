package node

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// body is a managing body's disk: two journals and the keys.
type body struct {
	t      *testing.T
	cfg    *config.Config
	key    []byte
	signer crypto.Signer
	r      *rand.Rand
}

func newBody(t *testing.T) *body {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(file, config.Example(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &body{t: t, r: rand.New(rand.NewPCG(1, 7))}
	var err error
	if b.cfg, err = config.Load(file); err != nil {
		t.Fatal(err)
	}
	b.cfg.Sector = &config.Sector{}
	if b.key, err = certs.NewStorageKey(b.cfg.Data.KeyFile); err != nil {
		t.Fatal(err)
	}
	if b.signer, err = certs.NewSigner(b.cfg.Signing.KeyFile); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *body) outside() string { return filepath.Join(b.cfg.Data.Dir, journalDir) }
func (b *body) inside() string  { return filepath.Join(b.cfg.Data.Dir, sectorDir, journalDir) }

// write appends entries to a journal, in order, and publishes its tree; declare begins an epoch first.
func (b *body) write(dir, origin, declare string, entries []*nodepb.Entry) {
	b.t.Helper()
	ctx := context.Background()
	j, err := journal.Open(journal.Config{Dir: dir, Key: b.key, Signing: &journal.Signing{Mesh: b.cfg.Mesh, Node: b.cfg.Node.ID(), Signer: b.signer}})
	if err != nil {
		b.t.Fatal(err)
	}
	if declare != "" {
		if _, err := j.BeginEpoch(ctx, declare, "operator"); err != nil {
			b.t.Fatal(err)
		}
	}
	for _, e := range entries {
		if _, err := j.Append(ctx, e); err != nil {
			b.t.Fatal(err)
		}
	}
	tree, err := tlog.Open(ctx, tlog.Config{Journal: j, Dir: dir, Origin: origin, Epoch: int64(j.Epoch().Number), Signer: b.signer})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(tree.Publish(ctx), tree.Close(), j.Close()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *body) writeInside(entries []*nodepb.Entry) {
	b.t.Helper()
	b.write(b.inside(), tlog.SectorOrigin(b.cfg.Mesh, b.cfg.Node.ID()), "", entries)
}

func (b *body) writeOutside(declare string, entries []*nodepb.Entry) {
	b.t.Helper()
	b.write(b.outside(), tlog.Origin(b.cfg.Mesh, b.cfg.Node.ID()), declare, entries)
}

// answers makes what is written within and outside of so many exchanges, from a second on.
func (b *body) answers(from, n int) (within, without []*nodepb.Entry) {
	for i := range n {
		at := int64(1_780_000_000_000 + 1000*(from+i)*120)
		salt := make([]byte, 32)
		for k := range salt {
			salt[k] = byte(b.r.Uint32())
		}
		ticket := fmt.Sprintf("t-%d", from+i)
		within = append(within, &nodepb.Entry{TimeUnixMs: at, Role: nodepb.Role_MANAGING_BODY, Event: nodepb.Event_FORWARDED, Ticket: ticket})
		var parts []*nodepb.Entry
		for f := range 1 + b.r.IntN(2) {
			parts = append(parts, &nodepb.Entry{TimeUnixMs: at + 1, Role: nodepb.Role_MANAGING_BODY, Event: nodepb.Event_SECTOR_ANSWERED, Ticket: ticket,
				Member: fmt.Sprint("fund-", f), Status: nodepb.Status_DATA_FOUND, SealSalt: salt})
		}
		outcome := &nodepb.Entry{TimeUnixMs: at + 2, Role: nodepb.Role_MANAGING_BODY, Event: nodepb.Event_RESOLVED, Ticket: ticket,
			Outcome: registrypb.Outcome_PERMIT, Status: nodepb.Status_DATA_FOUND, SealSalt: salt, PermissionHash: sector.RestsOn(parts)}
		within = append(append(within, parts...), outcome)
		without = append(without, &nodepb.Entry{TimeUnixMs: at + 3, Role: nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED, Ticket: ticket, SectorSeal: sector.Seal(outcome)})
	}
	return within, without
}

func (b *body) verify(anchors ...[]byte) *Verified {
	b.t.Helper()
	calls := 0
	v, err := VerifyJournal(context.Background(), b.cfg, anchors, func(int64, int64) { calls++ })
	if err != nil {
		b.t.Fatal(err)
	}
	if calls == 0 {
		b.t.Error("no progress is shown")
	}
	return v
}

func (b *body) clear(dir string) {
	b.t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		b.t.Fatal(err)
	}
}

func (b *body) copy(dir string) (back func()) {
	b.t.Helper()
	kept := filepath.Join(b.t.TempDir(), "copy")
	if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		b.t.Helper()
		b.clear(dir)
		if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
			b.t.Fatal(err)
		}
	}
}

func cloned(all []*nodepb.Entry) (out []*nodepb.Entry) {
	for _, e := range all {
		out = append(out, proto.CloneOf(e))
	}
	return out
}

// tamperings are what may be done to the sector's entries. Of those that touch no outcome
// only what was signed within tells: who holds disk and all keys goes unseen, as is
// documented.
var tamperings = map[string]struct {
	do   func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry
	seen bool // by the seals outside, though everything within was signed anew
}{
	"an outcome deleted": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		i := pickOf(r, l, nodepb.Event_RESOLVED)
		return slices.Delete(l, i, i+1)
	}, true},
	"a part deleted": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		i := pickOf(r, l, nodepb.Event_SECTOR_ANSWERED)
		return slices.Delete(l, i, i+1)
	}, true},
	"an outcome altered": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		l[pickOf(r, l, nodepb.Event_RESOLVED)].Status = nodepb.Status_NO_DATA_FOUND
		return l
	}, true},
	"a part altered": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		l[pickOf(r, l, nodepb.Event_SECTOR_ANSWERED)].Member = "another"
		return l
	}, true},
	"a part inserted": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		i := pickOf(r, l, nodepb.Event_SECTOR_ANSWERED)
		e := proto.CloneOf(l[i])
		e.Member = "another"
		return slices.Insert(l, i, e)
	}, true},
	"salts swapped": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		i, j := pickOf(r, l, nodepb.Event_RESOLVED), pickOf(r, l, nodepb.Event_RESOLVED)
		for i == j {
			j = pickOf(r, l, nodepb.Event_RESOLVED)
		}
		l[i].SealSalt, l[j].SealSalt = l[j].SealSalt, l[i].SealSalt
		return l
	}, true},
	"an outcome before its parts": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		i := pickOf(r, l, nodepb.Event_RESOLVED)
		l[i], l[i-1] = l[i-1], l[i]
		return l
	}, true},
	"cut off": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		return l[:pickOf(r, l, nodepb.Event_RESOLVED)]
	}, true},
	"what is sealed nowhere deleted": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		i := pickOf(r, l, nodepb.Event_FORWARDED)
		return slices.Delete(l, i, i+1)
	}, false},
	"what is sealed nowhere inserted": {func(r *rand.Rand, l []*nodepb.Entry) []*nodepb.Entry {
		i := pickOf(r, l, nodepb.Event_FORWARDED)
		return slices.Insert(l, i, proto.CloneOf(l[i]))
	}, false},
}

func pickOf(r *rand.Rand, l []*nodepb.Entry, event nodepb.Event) int {
	for {
		if i := r.IntN(len(l)); l[i].Event == event {
			return i
		}
	}
}

// TestSectorJournalTampered does everything to a managing body's inner journal, as somebody
// who has the disk and the storage key, and as the holder, who signs it all anew. The first is
// told by what was signed within, the second by what is sealed in the journal that others
// witness; and the evidence is the holder's own signature.
func TestSectorJournalTampered(t *testing.T) {
	b := newBody(t)
	within, without := b.answers(0, 12)
	b.writeInside(within)
	b.writeOutside("", without)
	if v := b.verify(); !v.OK() || v.Sector.Entries < int64(len(within)) || v.Sector.Checkpoints == 0 {
		t.Fatalf("an honest body is accused: %v, %v", v.Findings, v.Sector.Findings)
	}
	genuine := b.copy(b.inside())
	signed, err := os.ReadFile(filepath.Join(b.inside(), "log", "checkpoints"))
	if err != nil {
		t.Fatal(err)
	}
	inner := tlog.SectorOrigin(b.cfg.Mesh, b.cfg.Node.ID())
	for name, attack := range tamperings {
		for _, holder := range []bool{false, true} {
			b.clear(b.inside())
			b.writeInside(attack.do(b.r, cloned(within)))
			if !holder { // who cannot sign leaves what was signed
				if err := os.WriteFile(filepath.Join(b.inside(), "log", "checkpoints"), signed, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			v := b.verify()
			if found := !v.Sector.OK(); found != (attack.seen || !holder) {
				t.Errorf("%s, by the holder %v: found %v", name, holder, found)
			}
			if !v.Report.OK() {
				t.Errorf("%s: the journal outside is accused: %v", name, v.Findings)
			}
			named := 0
			for _, f := range v.Sector.Findings {
				if c := f.Culprit(); c == inner && strings.Contains(f.String(), "culprit   the holder") {
					named++
				} else if c != "" {
					t.Errorf("%s, by the holder %v: wrongly accused: %s", name, holder, f)
				}
			}
			if len(v.Sector.Findings) > 0 && named == 0 {
				t.Errorf("%s, by the holder %v: no culprit in %v", name, holder, v.Sector.Findings)
			}
		}
	}
	genuine()
	if v := b.verify(); !v.OK() {
		t.Fatal(v.Sector.Findings)
	}

	// The inner disk alone is put back to an older copy, checkpoints and all.
	old := b.copy(b.inside())
	more, moreOutside := b.answers(20, 5)
	b.writeInside(more)
	b.writeOutside("", moreOutside)
	if v := b.verify(); !v.OK() {
		t.Fatal(v.Findings, v.Sector.Findings)
	}
	old()
	v := b.verify()
	if v.OK() || len(v.Sector.Findings) != 5 || v.Sector.Findings[0].Culprit() != inner || v.Sector.Findings[0].Kind != tlog.Missing {
		t.Errorf("rolled back: %v", v.Sector.Findings)
	}
}

// TestSectorJournalRestored: a restore that was declared accuses nobody of what was lost, and
// excuses nothing else.
func TestSectorJournalRestored(t *testing.T) {
	b := newBody(t)
	within, without := b.answers(0, 8)
	b.writeInside(within)
	b.writeOutside("", without)
	back := b.copy(b.inside())
	lost, lostOutside := b.answers(20, 3)
	b.writeInside(lost)
	b.writeOutside("", lostOutside)
	back()                             // the inner copy is older than the outer one
	b.writeOutside("disk failed", nil) // and the restore is declared
	after, afterOutside := b.answers(40, 3)
	b.writeInside(after)
	b.writeOutside("", afterOutside)
	v := b.verify()
	if !v.OK() || len(v.Sector.Notes) != 1 || !strings.HasPrefix(v.Sector.Notes[0], "3 outcomes") {
		t.Fatalf("%v, %v, %v", v.Findings, v.Sector.Findings, v.Sector.Notes)
	}
	// An outcome from before the backup is excused by nothing.
	all := slices.Concat(within, after)
	i := slices.IndexFunc(all, func(e *nodepb.Entry) bool { return e.Event == nodepb.Event_RESOLVED })
	b.clear(b.inside())
	b.writeInside(slices.Delete(cloned(all), i, i+1))
	if v := b.verify(); len(v.Sector.Findings) != 1 {
		t.Errorf("%v", v.Sector.Findings)
	}
}

// TestSectorJournalOfFund: a cooperating institution's inner journal is verified by itself.
func TestSectorJournalOfFund(t *testing.T) {
	b := newBody(t)
	b.cfg.Sector.ManagingBody = "nic"
	within, _ := b.answers(0, 4)
	b.writeInside(within)
	b.writeOutside("", nil)
	if v := b.verify(); !v.OK() || v.Sector == nil {
		t.Fatal(v.Sector)
	}
	files, err := filepath.Glob(filepath.Join(b.inside(), "log", "0000*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[700] ^= 1
	if err := os.WriteFile(files[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if v := b.verify(); v.OK() || v.Sector.OK() {
		t.Error("a flipped bit is not found")
	}
	b.clear(filepath.Join(b.cfg.Data.Dir, sectorDir))
	if _, err := VerifyJournal(context.Background(), b.cfg, nil, nil); err == nil || !strings.Contains(err.Error(), "sector") {
		t.Error("its journal is gone:", err)
	}
}
