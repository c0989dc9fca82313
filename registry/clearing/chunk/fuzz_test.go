package chunk

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const testMesh names.MeshID = "test"

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func signed(t testing.TB, kind envelope.Type, payload []byte) []byte {
	t.Helper()
	raw, err := envelope.Sign(kind, payload, key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func anOrder() *registrypb.LotOrder {
	return &registrypb.LotOrder{
		Mesh: string(testMesh), Nonce: make([]byte, idSize), Requester: &registrypb.NodeRef{Institution: "asks", Node: "n1"}, ClientTicket: "c-1",
		User: "jan", Application: "desk", Purpose: "allowance", Dataset: "wages/v1", Period: &registrypb.Period{From: 1, Until: 9},
		Scheme: string(subject.SSIN), TimeUnixMs: 1, Lines: 2, LinesCommitment: make([]byte, 32),
	}
}

var twoNumbers = []string{"85073003328", "17073003384"}

// FuzzOpenRequest: whatever a requester signs as an order and as a chunk of it, reading it
// ends in a request whose subjects keep all limits and stand there once, or in
// ErrMalformed.
func FuzzOpenRequest(f *testing.F) {
	order := encoded(f, anOrder())
	subjects := packed.Of(subject.SSIN, twoNumbers)
	if _, err := OpenRequest(testMesh, chunkOf(f, signed(f, envelope.LotOrder, order), subjects)); err != nil {
		f.Fatal("the seed is not valid: ", err)
	}
	f.Add(order, encoded(f, subjects))
	f.Add(order, encoded(f, packed.Of(subject.SSIN, []string{twoNumbers[0], twoNumbers[0]})))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, order, list []byte) {
		s := new(registrypb.Subjects)
		if proto.Unmarshal(list, s) != nil {
			s = nil
		}
		if len(order) > 1<<16 || len(list) > 1<<16 {
			return
		}
		r, err := OpenRequest(testMesh, chunkOf(t, signed(t, envelope.LotOrder, order), s))
		if err != nil {
			if !errors.Is(err, clearing.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		seen := map[string]bool{}
		for _, n := range packed.All(r.Subjects) {
			if seen[n] {
				t.Fatal("a subject stands in it twice")
			}
			seen[n] = true
		}
		if len(seen) == 0 || len(seen) > MaxSubjects || packed.Size(r.Subjects) > MaxBytes || r.Subjects.Scheme != r.Order.Scheme {
			t.Fatalf("%d subjects, %d bytes", len(seen), packed.Size(r.Subjects))
		}
	})
}

func chunkOf(t testing.TB, order []byte, s *registrypb.Subjects) []byte {
	return signed(t, envelope.LotChunk, encoded(t, &registrypb.ChunkRequest{
		Mesh: string(testMesh), Nonce: make([]byte, idSize), Order: order, Subjects: s, TimeUnixMs: 1,
	}))
}

// FuzzRead: whatever a clearing peer's institution signs as a clearance, a supplier reads
// it as one whose subjects are numbers, within all limits, each once; or refuses it.
func FuzzRead(f *testing.F) {
	order := signed(f, envelope.LotOrder, encoded(f, anOrder()))
	o, err := OpenOrder(testMesh, order)
	if err != nil {
		f.Fatal(err)
	}
	clearance := func(g ...*registrypb.ClearedGroup) *registrypb.ChunkClearance {
		return &registrypb.ChunkClearance{
			Mesh: string(testMesh), Id: make([]byte, idSize), Ticket: string(o.Ticket), OrderHash: o.Hash, RequestHash: make([]byte, 32), Groups: g,
		}
	}
	good := encoded(f, clearance(&registrypb.ClearedGroup{
		Subjects:   packed.Of(subject.SSIN, twoNumbers[:1]),
		FiledUnder: []*registrypb.FiledUnder{{At: 0, Numbers: twoNumbers[1:]}},
	}))
	read := func(t testing.TB, payload []byte) (*Presented, *clearing.Refusal) {
		c := signed(t, envelope.LotClearance, payload)
		demand := signed(t, envelope.LotDemand, encoded(t, &registrypb.ChunkDemand{Mesh: string(testMesh), Order: order, ClearanceHash: sum(c)}))
		return Read(testMesh, subject.Belgian(), demand, c)
	}
	if _, no := read(f, good); no != nil {
		f.Fatal("the seed is not valid: ", no.Detail)
	}
	f.Add(good)
	f.Add(encoded(f, clearance()))
	f.Add(encoded(f, clearance(&registrypb.ClearedGroup{}, nil)))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 1<<16 {
			return
		}
		p, no := read(t, payload)
		if no != nil {
			if no.Reason != registrypb.Reason_CLEARANCE_INVALID {
				t.Fatal(no.Reason)
			}
			return
		}
		seen := map[string]bool{}
		for _, g := range p.Clearance.Groups {
			for _, n := range packed.All(g.Subjects) {
				if _, err := subject.Belgian().Parse(subject.Scheme(p.Order.Scheme), n); err != nil || seen[n] {
					t.Fatal("what is no number, or one that stands there twice: ", err)
				}
				seen[n] = true
			}
		}
		if len(seen) == 0 || len(seen) > MaxSubjects {
			t.Fatalf("%d subjects", len(seen))
		}
	})
}

// FuzzOpenRuling: whatever is shown as a clearing peer's decision on a chunk, it is one on
// the order that is shown with it, or ErrMalformed.
func FuzzOpenRuling(f *testing.F) {
	order := signed(f, envelope.LotOrder, encoded(f, anOrder()))
	good := encoded(f, &registrypb.ChunkDecision{
		Mesh: string(testMesh), Clearer: &registrypb.NodeRef{Institution: "decides", Node: "n1"}, OrderHash: sum(order),
		Groups: []*registrypb.RefusedGroup{{Subjects: packed.Of(subject.SSIN, twoNumbers)}},
	})
	open := func(t testing.TB, payload []byte, clearance bool) (*Ruling, error) {
		if clearance {
			return OpenRuling(testMesh, &registrypb.RedecideChunkRequest{Order: order, Clearance: signed(t, envelope.LotClearance, payload)})
		}
		return OpenRuling(testMesh, &registrypb.RedecideChunkRequest{Order: order, Decision: signed(t, envelope.LotDecision, payload)})
	}
	if w, err := open(f, good, false); err != nil || w.Len() != 2 {
		f.Fatal("the seed is not valid: ", err)
	}
	f.Add(good, false)
	f.Add(good, true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, payload []byte, clearance bool) {
		if len(payload) > 1<<16 {
			return
		}
		w, err := open(t, payload, clearance)
		if err == nil && w.Clearer.Validate() == nil && w.Len() >= 0 {
			return
		}
		if !errors.Is(err, clearing.ErrMalformed) {
			t.Fatal(err)
		}
	})
}
