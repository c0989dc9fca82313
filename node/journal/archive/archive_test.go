package archive

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/journal/forest"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var (
	begin  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	signer = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	pub    = signer.Public().(ed25519.PublicKey)
	self   = names.NodeID{Institution: "pcsa-ghent", Node: "n1"}
)

const mesh = names.MeshID("demo.example")

func trust(keys ...ed25519.PublicKey) func(names.MeshID, names.InstitutionID) []ed25519.PublicKey {
	return func(m names.MeshID, i names.InstitutionID) []ed25519.PublicKey {
		if m != mesh || i != self.Institution {
			return nil
		}
		return keys
	}
}

// world is a journal of 30 entries over three months, the middle one erased, with a
// checkpoint over all.
type world struct {
	log        *journal.Reader
	checkpoint []byte
}

func newWorld(t testing.TB) *world {
	t.Helper()
	fs := disktest.New()
	cfg := journal.Config{
		FS: fs, Key: make([]byte, journal.KeySize), SegmentSize: 4 << 10, ChunkSize: 1 << 10,
		Signing: &journal.Signing{Mesh: mesh, Node: self, Signer: signer, Now: func() time.Time { return begin }},
	}
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for i := range 30 {
		_, err := j.Append(ctx, &nodepb.Entry{
			TimeUnixMs: begin.AddDate(0, -2+i/10, 0).Add(time.Duration(i) * time.Second).UnixMilli(),
			Role:       nodepb.Role_CONSULTANT, Event: nodepb.Event_REQUESTED, Ticket: fmt.Sprint("ticket-", i),
			Subject: &registrypb.Subject{Scheme: "ssin", Number: "74071238186"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Erase(ctx, journal.Erase{Period: "2026-10", Reason: "test", Who: "test", Time: begin}); err != nil {
		t.Fatal(err)
	}
	tree, err := tlog.Open(ctx, tlog.Config{Journal: j, Checkpoints: fs, Tiles: fs, Origin: tlog.Origin(mesh, self), Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	w := new(world)
	w.checkpoint = tree.Checkpoint()
	if err := errors.Join(tree.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	if w.log, err = journal.OpenReader(cfg); err != nil {
		t.Fatal(err)
	}
	last, err := tlog.LastCheckpoint(w.log.FS())
	if err != nil || !bytes.Equal(last, w.checkpoint) {
		t.Fatalf("last checkpoint %q, %v", last, err)
	}
	return w
}

func (w *world) archive(t testing.TB, first, until uint64, checkpoint []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	o := Order{Mesh: mesh, Node: self, Signer: signer, First: first, Until: until, Checkpoint: checkpoint, Time: begin, Who: "operator"}
	if err := Write(context.Background(), &b, w.log, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRoundTrip: every run of entries verifies, with what was erased shown as that.
func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	n := w.log.Next()
	for first := uint64(0); first <= n; first++ {
		for until := first; until <= n; until += 5 {
			for _, checkpoint := range [][]byte{nil, w.checkpoint} {
				b := w.archive(t, first, until, checkpoint)
				var got []uint64
				v, err := Verify(bytes.NewReader(b), trust(pub), func(s *nodepb.StoredEntry) error {
					got = append(got, s.Sequence)
					if e := new(nodepb.Entry); len(s.Entry) > 0 && (proto.Unmarshal(s.Entry, e) != nil || e.TimeUnixMs == 0) {
						t.Errorf("entry %d is none", s.Sequence)
					}
					return nil
				})
				if err != nil {
					t.Fatalf("%d to %d: %v", first, until, err)
				}
				if uint64(len(got)) != until-first || v.First != first || v.Until != until || v.Node != self || v.Size != n || len(v.Tombstones) != 1 {
					t.Fatalf("%d to %d: %+v, %v", first, until, v, got)
				}
				if first == 0 && until == n && v.Erased != 10 {
					t.Errorf("%d erased", v.Erased)
				}
			}
		}
	}
}

// TestSpan: the run for a time begins and ends with entries of that time.
func TestSpan(t *testing.T) {
	w := newWorld(t)
	n := w.log.Next()
	day := func(s string) time.Time {
		d, err := time.Parse(time.DateOnly, s)
		if err != nil && s != "" {
			t.Fatal(err)
		}
		return d
	}
	for _, c := range []struct {
		from, until string
		first, end  uint64
	}{
		{"", "", 0, n},
		{"2026-09-01", "2026-10-01", 1, 11},
		{"2026-10-01", "2026-11-01", 11, 21},
		{"2026-10-25", "2026-10-26", 11, 21}, // erased: the day is not known any more
		{"2026-09-01", "2026-09-02", 0, 0},
		{"2027-01-01", "", 0, 0},
		{"", "2026-01-01", 0, 0},
	} {
		first, end, err := w.log.Span(context.Background(), day(c.from), day(c.until))
		if err != nil || first != c.first || end != c.end {
			t.Errorf("%s to %s: %d to %d, %v; want %d to %d", c.from, c.until, first, end, err, c.first, c.end)
		}
	}
}

// TestEveryByte: an archive of which any one byte was changed does not verify, nor one
// that ends anywhere too early or goes on.
func TestEveryByte(t *testing.T) {
	b := newWorld(t).archive(t, 8, 24, nil)
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 1 << rand.N(8)
		check(t, fmt.Sprintf("byte %d", i), c, trust(pub))
		check(t, fmt.Sprintf("cut at %d", i), b[:i], trust(pub))
	}
	check(t, "longer", append(bytes.Clone(b), 0), trust(pub))
	check(t, "twice", append(bytes.Clone(b), b...), trust(pub))
	check(t, "no key", b, trust())
	other, _, _ := ed25519.GenerateKey(nil)
	check(t, "another key", b, trust(other))
}

func check(t *testing.T, what string, b []byte, trusted func(names.MeshID, names.InstitutionID) []ed25519.PublicKey) {
	t.Helper()
	_, err := Verify(bytes.NewReader(b), trusted, nil)
	if !errors.Is(err, ErrAltered) && !errors.Is(err, ErrMalformed) {
		t.Errorf("%s: %v", what, err)
	}
}

// frames takes an archive apart.
func frames(t *testing.T, b []byte) (list []frame) {
	t.Helper()
	for b = b[len(magic):]; len(b) > 0; {
		n := binary.BigEndian.Uint32(b[1:])
		list = append(list, frame{b[0], bytes.Clone(b[5 : 5+n])})
		b = b[5+n:]
	}
	return list
}

type frame struct {
	kind    byte
	payload []byte
}

// reseal puts frames together and seals them anew, as only the institution itself can,
// with the root that the seal had or the one that would suit the entries.
func reseal(t *testing.T, list []frame, suit bool) []byte {
	t.Helper()
	b := []byte(magic)
	h := new(nodepb.ArchiveHeader)
	var run forest.Forest
	for _, f := range list[:len(list)-1] {
		b = appendFrame(b, f.kind, f.payload)
		switch f.kind {
		case frameHeader:
			if err := proto.Unmarshal(f.payload, h); err != nil {
				t.Fatal(err)
			}
		case frameEntry:
			s := new(nodepb.StoredEntry)
			if err := proto.Unmarshal(f.payload, s); err != nil {
				t.Fatal(err)
			}
			run.Leaf(s.Sequence, journal.LeafHash([32]byte(s.Commitment)))
		}
	}
	opened, err := envelope.Open(envelope.Archive, list[len(list)-1].payload)
	if err != nil {
		t.Fatal(err)
	}
	s := new(nodepb.ArchiveSeal)
	if err := proto.Unmarshal(opened.Payload, s); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	s.Sha256 = sum[:]
	if suit {
		var all forest.Forest
		if errors.Join(all.Cover(0, h.First, s.Left), all.Cover(h.First, h.Until, run.Hashes()), all.Cover(h.Until, h.Size, s.Right)) == nil {
			root := all.Root()
			s.Root = root[:]
		}
	}
	payload, _ := proto.Marshal(s)
	raw, err := envelope.Sign(envelope.Archive, payload, signer)
	if err != nil {
		t.Fatal(err)
	}
	return appendFrame(b, frameSeal, raw)
}

// TestInstitutionLies: what the institution itself alters, leaves out, adds or moves
// does not verify, though it seals anew: the checkpoint that others saw contradicts it.
func TestInstitutionLies(t *testing.T) {
	w := newWorld(t)
	b := w.archive(t, 3, 24, w.checkpoint)
	if _, err := Verify(bytes.NewReader(reseal(t, frames(t, b), true)), trust(pub), nil); err != nil {
		t.Fatal("sealed anew as it was:", err)
	}
	store := func(f *frame, change func(*nodepb.StoredEntry)) {
		s := new(nodepb.StoredEntry)
		if err := proto.Unmarshal(f.payload, s); err != nil {
			t.Fatal(err)
		}
		change(s)
		f.payload, _ = proto.Marshal(s)
	}
	rewrite := func(s *nodepb.StoredEntry) {
		e := new(nodepb.Entry)
		_ = proto.Unmarshal(s.Entry, e)
		e.User = "somebody else"
		s.Entry, _ = proto.Marshal(e)
		c := journal.EntryCommitment([32]byte(s.Salt), s.Entry)
		s.Commitment = c[:]
	}
	const entry, erased, other = 4, 12, 20 // places of frames: header and tombstone come first
	for what, lie := range map[string]func([]frame) []frame{
		"rewritten": func(l []frame) []frame { store(&l[entry], rewrite); return l },
		"hidden as erased": func(l []frame) []frame {
			store(&l[entry], func(s *nodepb.StoredEntry) { s.Entry, s.Salt = nil, nil })
			return l
		},
		"another salt": func(l []frame) []frame {
			store(&l[entry], func(s *nodepb.StoredEntry) { s.Salt[0] ^= 1 })
			return l
		},
		"left out": func(l []frame) []frame { return slices.Delete(l, entry, entry+1) },
		"doubled":  func(l []frame) []frame { return slices.Insert(l, entry, l[entry]) },
		"swapped":  func(l []frame) []frame { l[entry], l[other] = l[other], l[entry]; return l },
		"renumbered": func(l []frame) []frame {
			var a, b uint64
			store(&l[entry], func(s *nodepb.StoredEntry) { a = s.Sequence })
			store(&l[other], func(s *nodepb.StoredEntry) { b, s.Sequence = s.Sequence, a })
			store(&l[entry], func(s *nodepb.StoredEntry) { s.Sequence = b })
			l[entry], l[other] = l[other], l[entry]
			return l
		},
		"no tombstone":            func(l []frame) []frame { return slices.Delete(l, 1, 2) },
		"tombstone of another":    func(l []frame) []frame { l[1].payload = tombstone(t, "other", 0, 99); return l },
		"tombstone of other ones": func(l []frame) []frame { l[1].payload = tombstone(t, "n1", 0, 5); return l },
		"filled in": func(l []frame) []frame {
			store(&l[erased], func(s *nodepb.StoredEntry) {
				s.Entry, s.Salt = []byte{8, 1}, make([]byte, 32)
			})
			return l
		},
		"another header": func(l []frame) []frame {
			h := new(nodepb.ArchiveHeader)
			_ = proto.Unmarshal(l[0].payload, h)
			h.Size--
			l[0].payload, _ = proto.Marshal(h)
			return l
		},
		"no checkpoint of ours": func(l []frame) []frame {
			h := new(nodepb.ArchiveHeader)
			_ = proto.Unmarshal(l[0].payload, h)
			h.Checkpoint[0] ^= 1
			l[0].payload, _ = proto.Marshal(h)
			return l
		},
	} {
		for _, suit := range []bool{false, true} {
			check(t, what, reseal(t, lie(frames(t, b)), suit), trust(pub))
		}
	}
}

func tombstone(t *testing.T, node string, first, last uint64) []byte {
	t.Helper()
	payload, _ := proto.Marshal(&nodepb.Tombstone{
		Mesh: string(mesh), Node: &registrypb.NodeRef{Institution: string(self.Institution), Node: node}, First: first, Last: last,
	})
	raw, err := envelope.Sign(envelope.Tombstone, payload, signer)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestWriteRefuses: what cannot be proven is not written as if it were.
func TestWriteRefuses(t *testing.T) {
	w := newWorld(t)
	n := w.log.Next()
	foreign := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{4}, ed25519.SeedSize))
	for what, o := range map[string]Order{
		"beyond the log":    {Signer: signer, Until: n + 1},
		"backwards":         {Signer: signer, First: 5, Until: 4},
		"foreign key":       {Signer: foreign, Until: n, Checkpoint: w.checkpoint},
		"broken checkpoint": {Signer: signer, Until: n, Checkpoint: w.checkpoint[1:]},
	} {
		o.Mesh, o.Node = mesh, self
		if err := Write(context.Background(), io.Discard, w.log, o); err == nil {
			t.Errorf("%s: written", what)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Write(ctx, io.Discard, w.log, Order{Mesh: mesh, Node: self, Signer: signer, Until: n}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// FuzzVerify: no bytes make the reader panic, or take memory beyond its limits.
func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	b := w.archive(f, 5, 9, w.checkpoint)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte(magic + "E\xff\xff\xff\xff"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Verify(bytes.NewReader(b), trust(pub), nil)
		if err == nil && v.Until-v.First > uint64(len(b)) {
			t.Error("it says more than it holds")
		}
	})
}
