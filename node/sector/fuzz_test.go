package sector

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// FuzzForeign gives every decoder of what a peer sends whatever there is: nothing
// panics, nothing is answered, and nothing of a source is asked.
func FuzzForeign(f *testing.F) {
	w := newWorld(f)
	id := w.person(1, "fund-a")
	w.node("fund-a").source.set(id, yes)
	for _, seed := range []proto.Message{
		&nodepb.SectorPermission{Mesh: string(mesh), Id: fresh(16), Member: "fund-a", Manager: nodeRef(nid("nic")), Fields: []string{"entitled"},
			Parts: []*nodepb.SectorPart{{Subject: protoSubject(id), Period: protoPeriod(always), Qualities: []string{"insured"}}}},
		&nodepb.SectorLotPermission{Mesh: string(mesh), Id: fresh(16), Member: "fund-a", Manager: nodeRef(nid("nic")), Places: []uint32{0}, Blindings: fresh(16)},
		&nodepb.SectorQuestion{Mesh: string(mesh), Nonce: fresh(16), Member: nodeRef(nid("fund-a")), Subject: protoSubject(id)},
		&nodepb.SectorDelivery{Mesh: string(mesh), Id: "x", Member: "fund-a", Manager: nodeRef(nid("nic")), Subject: protoSubject(id)},
		&nodepb.SectorAnswer{Mesh: string(mesh)}, &nodepb.SectorOutcome{Mesh: string(mesh)}, &nodepb.SectorReceipt{Mesh: string(mesh)},
		&registrypb.Request{Mesh: string(mesh)},
	} {
		raw, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		for i := range byte(8) {
			f.Add(raw, i)
		}
	}
	types := []envelope.Type{envelope.SectorPermission, envelope.SectorQuestion, envelope.SectorDelivery, envelope.SectorAnswer, envelope.SectorOutcome, envelope.SectorReceipt, envelope.SectorLotPermission, envelope.LotOutline}
	f.Fuzz(func(t *testing.T, payload []byte, kind byte) {
		kind %= byte(len(types))
		nic, fund := w.node("nic"), w.node("fund-a")
		// Well signed, so that what is within is read; and as it is.
		for _, signer := range []string{"nic", "fund-a"} {
			signed, err := envelope.Sign(types[kind], payload, w.signers[signer])
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range [][]byte{signed, payload} {
				if resp, err := fund.member.ServeForward(t.Context(), nic.id, &nodepb.Forward{Permission: raw, Request: raw, Clearance: raw}); err == nil {
					t.Fatalf("answered %v", resp)
				}
				if resp, err := fund.member.ServeForwardLot(t.Context(), nic.id, &nodepb.ForwardLot{Permission: raw, Demand: raw, Outline: raw}); err == nil {
					t.Fatalf("answered %v", resp)
				}
				if resp, err := fund.member.ServeDelivery(t.Context(), nic.id, &nodepb.SectorDeliver{Delivery: raw, Content: payload, Blinding: payload}); err == nil {
					t.Fatalf("took %v", resp)
				}
				if resp, err := nic.manager.ServeAsk(t.Context(), fund.id, &nodepb.SectorAsk{Question: raw}); err == nil {
					t.Fatalf("answered %v", resp)
				}
				r := &reply{by: fund.id}
				r.route.Member = "fund-a"
				if _, _, err := nic.manager.verifyFor(r, &nodepb.ForwardResponse{Answer: raw, Content: payload, Blinding: payload}, nil, ""); err == nil {
					t.Fatal("an answer to nothing stands")
				}
				if _, err := fund.asker.verify(nic.id, raw, &nodepb.SectorAskResponse{Outcome: raw, Result: payload, Blinding: payload}); err == nil {
					t.Fatal("an outcome of nothing stands")
				}
			}
		}
		s := &joining{core: nic.manager.core, Story: &Story{}}
		s.take(fund.id, &nodepb.TraceResponse{Entries: []*nodepb.StoredEntry{{Entry: payload, Salt: fresh(32), Commitment: payload}}})
		if len(s.Entries) > 0 {
			t.Fatal("an entry that nobody committed to was taken")
		}
		if n := fund.source.fetched(); n > 0 {
			t.Fatalf("the source was asked %d times", n)
		}
	})
}

// FuzzEvidence lets a trace read whatever stands as evidence in an entry.
func FuzzEvidence(f *testing.F) {
	w := newWorld(f)
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := &joining{core: w.node("nic").manager.core, Story: &Story{}}
		s.Entries = []Told{{nid("nic"), &nodepb.Entry{Event: nodepb.Event_SECTOR_ANSWERED, Evidence: [][]byte{raw, raw}}}}
		s.judge()
		if len(s.Findings) == 0 {
			t.Error("nothing is found wrong with nothing")
		}
	})
}

// FuzzNumbers gives a managing body whatever a member may say of a subject's numbers.
func FuzzNumbers(f *testing.F) {
	good, err := proto.Marshal(&nodepb.SubjectNumbers{Numbers: []*registrypb.Subject{protoSubject(ssin(2)), protoSubject(ssin(1))}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := new(nodepb.SubjectNumbers)
		if proto.Unmarshal(raw, n) != nil {
			return
		}
		family, ok := w.node("nic").manager.family(ssin(1), n)
		if ok && (len(family) > directory.MaxFamily || !slices.Contains(family, ssin(1))) {
			t.Errorf("%d numbers", len(family))
		}
	})
}
