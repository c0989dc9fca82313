package clearing

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	pb "github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestSignedDecision: whatever clears nothing is signed, and the journal holds what
// the requester got.
func TestSignedDecision(t *testing.T) {
	for name, c := range map[string]struct {
		self string
		req  func(*pb.Request)
		who  string
	}{
		"denied":         {"alpha", func(*pb.Request) {}, nobody},
		"not applicable": {"alpha", func(r *pb.Request) { r.Purpose = "curiosity" }, known},
		"replaced":       {"alpha", func(*pb.Request) {}, replaced},
		"recused":        {"epsilon", func(*pb.Request) {}, known},
		"stale":          {"alpha", func(r *pb.Request) { r.TimeUnixMs = 1 }, known},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			req := m.request(c.who, c.req)
			resp := m.clear(c.self, req)
			d := new(pb.Decision)
			opened, err := open(envelope.Decision, resp.Decision, d)
			if err != nil || !opened.VerifiedBy(recordtest.Public(c.self)) {
				t.Fatalf("not signed by the clearing peer: %v", err)
			}
			if d.Outcome != resp.Outcome || d.Reason != resp.Reason || d.Recused != resp.Recused || d.Ticket != resp.Ticket ||
				!proto.Equal(d.Successor, resp.Successor) || d.Authorization != resp.Authorization || d.RegistryIndex != resp.RegistryIndex ||
				!bytes.Equal(d.RequestHash, hashOf(m.signed(req))) || !proto.Equal(d.Clearer, ref(c.self)) || d.TimeUnixMs != m.now.UnixMilli() {
				t.Errorf("%v signed, %v told", d, resp)
			}
			if !bytes.Equal(m.journal[0].Signed, resp.Decision) {
				t.Error("the journal holds another decision")
			}
		})
	}
	m := newMesh(t)
	if resp := m.clear("alpha", m.request(known)); resp.Decision != nil {
		t.Error("a clearance speaks for itself")
	}
}

// TestEndedSinceAsked: a request dated yesterday obtains nothing under an
// authorization that ended with yesterday, whoever is asked.
func TestEndedSinceAsked(t *testing.T) {
	a := honest(t)
	m := a.mesh
	midnight := m.now.Truncate(24 * time.Hour)
	end := int32(midnight.Unix()/86400) - 1
	m.revoke("a-1")
	m.authorize("a-2", func(z *pb.Authorization) { z.Period = &pb.Period{From: 1, Until: end} })
	m.now = midnight.Add(-10 * time.Minute)
	req := m.request(known)
	if resp := m.clear("alpha", req); resp.Outcome != pb.Outcome_PERMIT {
		t.Fatalf("while in force: %v", resp)
	}
	m.now = midnight.Add(20 * time.Minute)
	if resp := m.clear("alpha", req); resp.Outcome != pb.Outcome_DENY || resp.Reason != pb.Reason_NOT_ALLOWED {
		t.Errorf("after it ended: %v", resp)
	}
	// A clearing peer that permits it all the same is not believed.
	a.now, a.at = midnight.Add(20*time.Minute), midnight.Add(20*time.Minute)
	a.request, a.clearance.Authorization = req, "a-2"
	a.clearance.Fields, a.clearance.Withheld = []string{"gross"}, nil
	a.clearance.IssuedUnixMs, a.grant.LeaderTimeUnixMs = a.now.UnixMilli(), a.now.UnixMilli()
	a.clearance.PresentByUnixMs, a.clearance.ReleaseByUnixMs = a.now.Add(bounds.PresentLife).UnixMilli(), a.now.Add(bounds.ReleaseLife).UnixMilli()
	if _, no := a.check(); no == nil || no.Reason != pb.Reason_REVOKED {
		t.Errorf("the supplier says %v", no)
	}
}

// TestRefusalsQuoteNothing: what a peer writes where a name belongs reaches neither
// the supplier's log nor its journal.
func TestRefusalsQuoteNothing(t *testing.T) {
	const planted = "74071238186"
	for name, change := range map[string]func(a *attack){
		"requester": func(a *attack) { a.request.Requester.Institution = planted + "!" },
		"user":      func(a *attack) { a.request.User = planted + "\x01" },
		"clearer":   func(a *attack) { a.clearance.Clearer.Institution = planted + "!" },
		"authorization": func(a *attack) {
			a.clearance.Authorization = strings.Repeat(planted+"!", 40)
		},
		"quality": func(a *attack) { a.clearance.SupplierQualities = []string{planted} },
		"grant":   func(a *attack) { a.grant, a.clearance.Grant = nil, []byte(planted) },
		"leader":  func(a *attack) { a.grant.Leader = &pb.NodeRef{Institution: planted + "!", Node: "n1"} },
	} {
		t.Run(name, func(t *testing.T) {
			a := honest(t)
			change(a)
			_, no := a.check()
			if no == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(no.Detail, planted) || len(no.Detail) > 200 {
				t.Errorf("detail of %d bytes: %s", len(no.Detail), no.Detail)
			}
		})
	}
}

func TestGenuine(t *testing.T) {
	a := honest(t)
	request, clearance := a.messages()
	is := func() bool {
		return Genuine(record.NewView(a.state), recordtest.Mesh, node("office"), request, clearance)
	}
	if !is() {
		t.Error("an honest pair is not genuine")
	}
	request = sign(t, envelope.Request, a.mesh.request(known), "wages")
	if is() {
		t.Error("a request that another signed is genuine")
	}
	request = a.signed(a.mesh.request(known))
	clearance = sign(t, envelope.Clearance, a.clearance, "wages")
	if is() {
		t.Error("a clearance that no member signed is genuine")
	}
}
