package clearing

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	pb "github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// pair is a request of office, and the clearances of two peers for it.
type pair struct {
	*mesh
	request       *pb.Request
	first, second *pb.Clearance
	by            [2]string // who signs them
	one           bool      // only the first is shown
	at            time.Time
}

func honestPair(t *testing.T) *pair {
	m := newMesh(t)
	m.revoke("a-1")
	m.authorize("a-2", func(z *pb.Authorization) { z.SecondClearingPeer = true })
	p := &pair{mesh: m, by: [2]string{"alpha", "gamma"}, at: m.now}
	p.request = m.request(known, func(r *pb.Request) { r.Suppliers = []string{"wages"} })
	p.first, p.second = p.cleared("alpha"), p.cleared("gamma")
	return p
}

// cleared is what a member gives for the request, under a grant of its own.
func (p *pair) cleared(member string) *pb.Clearance {
	p.t.Helper()
	c := p.open(p.clear(member, p.request).Clearances[0])
	c.Grant = p.grant(func(g *pb.Grant) { g.Holder = ref(member) }, "beta")
	return c
}

func (p *pair) check() *Refusal {
	p.t.Helper()
	request := p.signed(p.request)
	part, no := ReadPart(recordtest.Mesh, request, sign(p.t, envelope.Clearance, p.first, p.by[0]))
	if no != nil {
		return no
	}
	if !p.one {
		if part.Second, no = ReadPart(recordtest.Mesh, request, sign(p.t, envelope.Clearance, p.second, p.by[1])); no != nil {
			return no
		}
	}
	k, no := new(Checker).CheckPart(p.view(), p.at, bounds, recordtest.Mesh, node("wages"), node("office"), *part)
	if no == nil && k.Second() == nil {
		p.t.Error("it passed, and there is no second")
	}
	return no
}

// TestSecondClearingPeer: what does not show that two members which have nothing to do
// with each other, nor with the parties, both decided for the very same, is refused.
func TestSecondClearingPeer(t *testing.T) {
	if no := honestPair(t).check(); no != nil {
		t.Fatal(no)
	}
	invalid := pb.Reason_CLEARANCE_INVALID
	for what, c := range map[string]struct {
		spoil  func(*pair)
		reason pb.Reason
	}{
		"one alone":      {func(p *pair) { p.one = true }, invalid},
		"the same twice": {func(p *pair) { p.second, p.by[1] = proto.CloneOf(p.first), "alpha" }, invalid},
		"twice by the same peer": {func(p *pair) {
			p.second, p.by[1] = p.cleared("alpha"), "alpha"
		}, invalid},
		"by another node of the same institution": {func(p *pair) {
			p.put("alpha", &pb.Command_SetNode{SetNode: recordtest.Node("alpha", "n2")})
			n2 := &pb.NodeRef{Institution: "alpha", Node: "n2"}
			p.put(record.Operators, &pb.Command_SetMembers{SetMembers: &pb.Members{Voters: []*pb.NodeRef{ref("alpha"), n2, ref("beta"), ref("gamma")}}})
			p.second, p.by[1] = p.cleared("alpha"), "alpha"
			p.second.Clearer, p.second.Grant = n2, p.grant(func(g *pb.Grant) { g.Holder = n2 }, "beta")
		}, invalid},
		"of one sector": {func(p *pair) {
			for _, id := range []string{"alpha", "gamma"} {
				p.put(record.Operators, &pb.Command_SetInstitution{SetInstitution: &pb.Institution{Id: id, Name: id, Type: "member", Sector: "energy"}})
			}
		}, invalid},
		"the second is the requester":       {func(p *pair) { p.second.Clearer, p.by[1] = ref("office"), "office" }, invalid},
		"the second is the supplier":        {func(p *pair) { p.second.Clearer, p.by[1] = ref("wages"), "wages" }, invalid},
		"the second is of a party's sector": {func(p *pair) { p.second.Clearer, p.by[1] = ref("epsilon"), "epsilon" }, invalid},
		"the second is no member":           {func(p *pair) { p.second.Clearer, p.by[1] = ref("register"), "register" }, invalid},
		"the second is forged":              {func(p *pair) { p.by[1] = "stray" }, invalid},
		"signed by the first":               {func(p *pair) { p.by[1] = "alpha" }, invalid},
		"for another request":               {func(p *pair) { p.second.RequestHash = hashOf([]byte("x")) }, invalid},
		"for another supplier":              {func(p *pair) { p.second.Supplier = "fund" }, invalid},
		"for more fields":                   {func(p *pair) { p.second.Fields = []string{"gross", "net"} }, invalid},
		"by other files":                    {func(p *pair) { p.second.SupplierQualities = []string{"retired"} }, pb.Reason_REVOKED},
		"without a grant":                   {func(p *pair) { p.second.Grant = nil }, invalid},
		"under the first one's grant":       {func(p *pair) { p.second.Grant = p.first.Grant }, invalid},
		"under another authorization":       {func(p *pair) { p.authorize("a-3", func(*pb.Authorization) {}); p.second.Authorization = "a-3" }, invalid},
		"the second is late": {func(p *pair) {
			p.second.PresentByUnixMs = p.second.IssuedUnixMs
			p.at = p.at.Add(bounds.Skew + time.Second)
		}, pb.Reason_CLEARANCE_EXPIRED},
		"the second was removed":   {func(p *pair) { p.remove("gamma") }, invalid},
		"the second was suspended": {func(p *pair) { p.suspend("gamma") }, invalid},
		"a second that nobody asks for": {func(p *pair) {
			p.revoke("a-2")
			p.authorize("a-3", func(*pb.Authorization) {})
			p.first, p.second = p.cleared("alpha"), p.cleared("gamma")
		}, invalid},
		"revoked while both had cleared it": {func(p *pair) { p.revoke("a-2") }, pb.Reason_REVOKED},
	} {
		t.Run(what, func(t *testing.T) {
			p := honestPair(t)
			c.spoil(p)
			if no := p.check(); no == nil || no.Reason != c.reason {
				t.Errorf("%v, want %s", no, c.reason)
			}
		})
	}
}

// TestSecondIsLookedAtAgain: just before data leave, the second clearing peer must stand as
// the first does.
func TestSecondIsLookedAtAgain(t *testing.T) {
	p := honestPair(t)
	request := p.signed(p.request)
	part, _ := ReadPart(recordtest.Mesh, request, sign(t, envelope.Clearance, p.first, "alpha"))
	part.Second, _ = ReadPart(recordtest.Mesh, request, sign(t, envelope.Clearance, p.second, "gamma"))
	k, no := new(Checker).CheckPart(p.view(), p.now, bounds, recordtest.Mesh, node("wages"), node("office"), *part)
	if no == nil {
		no = k.Recheck(p.view(), p.now, recordtest.Mesh)
	}
	if no != nil {
		t.Fatal(no)
	}
	p.suspend("gamma")
	if no := k.Recheck(p.view(), p.now, recordtest.Mesh); no == nil {
		t.Error("the second was suspended, and data would leave")
	}
}
