package clearing

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	pb "github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// attack is what is shown to the supplier wages, and how it looks at it. Every
// field starts as in an honest exchange.
type attack struct {
	*mesh
	request   *pb.Request
	clearance *pb.Clearance
	grant     *pb.Grant
	// Who signs what.
	requestBy, clearanceBy, grantBy string
	self, from                      names.NodeID
	at                              time.Time // the supplier's clock
	keepHash                        bool      // leave the clearance's hash and ticket as they are
}

func honest(t *testing.T) *attack {
	m := newMesh(t)
	a := &attack{mesh: m, requestBy: "office", clearanceBy: "alpha", grantBy: "beta", self: node("wages"), from: node("office"), at: m.now}
	a.request = m.request(known, func(r *pb.Request) { r.Fields, r.Suppliers = []string{"gross", "employer"}, []string{"wages"} })
	resp := m.clear("alpha", a.request)
	a.clearance = m.open(resp.Clearances[0])
	a.grant = new(pb.Grant)
	if _, err := open(envelope.Grant, a.clearance.Grant, a.grant); err != nil {
		t.Fatal(err)
	}
	return a
}

// messages signs what the attack says.
func (a *attack) messages() (request, clearance []byte) {
	request = sign(a.t, envelope.Request, a.request, a.requestBy)
	if !a.keepHash {
		a.clearance.RequestHash, a.clearance.Ticket = hashOf(request), string(names.TicketOf(request))
	}
	if a.grant != nil {
		a.clearance.Grant = sign(a.t, envelope.Grant, a.grant, a.grantBy)
	}
	return request, sign(a.t, envelope.Clearance, a.clearance, a.clearanceBy)
}

func (a *attack) check() (*Checked, *Refusal) {
	request, clearance := a.messages()
	return Check(a.view(), a.at, bounds, recordtest.Mesh, a.self, a.from, request, clearance)
}

func TestCheckHonest(t *testing.T) {
	a := honest(t)
	k, refusal := a.check()
	if refusal != nil {
		t.Fatal(refusal)
	}
	if k.Subject != recordSubject(known) || len(k.Fields) != 1 || k.Fields[0] != "gross" || k.Withheld[0] != "employer" || k.Authorization.Id != "a-1" || k.Clearer != node("alpha") {
		t.Errorf("checked %+v", k)
	}
	if want := a.now.Add(bounds.ReleaseLife + bounds.Skew); !k.ReleaseBy.Equal(want) {
		t.Errorf("release by %s, want %s", k.ReleaseBy, want)
	}
	if r := k.Recheck(a.view(), a.now.Add(bounds.ReleaseLife), recordtest.Mesh); r != nil {
		t.Error(r)
	}
	if r := k.Recheck(a.view(), k.ReleaseBy.Add(time.Millisecond), recordtest.Mesh); r == nil || r.Reason != pb.Reason_CLEARANCE_EXPIRED {
		t.Errorf("released too late: %v", r)
	}
}

// TestCheckAttacks: every field, every signature, every clock. All other parts of
// each attack are honest, and signed as they should be.
func TestCheckAttacks(t *testing.T) {
	const bad, expired = pb.Reason_CLEARANCE_INVALID, pb.Reason_CLEARANCE_EXPIRED
	ms := func(d time.Duration) int64 { return d.Milliseconds() }
	for name, c := range map[string]struct {
		attack func(*attack)
		want   pb.Reason
	}{
		// Forged, or for something else.
		"mesh":                        {func(a *attack) { a.clearance.Mesh = "other.mesh" }, bad},
		"request of another mesh":     {func(a *attack) { a.request.Mesh = "other.mesh" }, bad},
		"id":                          {func(a *attack) { a.clearance.Id = nil }, bad},
		"ticket":                      {func(a *attack) { a.messages(); a.keepHash = true; a.clearance.Ticket = "00000000000000000000000000" }, bad},
		"request hash":                {func(a *attack) { a.messages(); a.keepHash = true; a.clearance.RequestHash[0] ^= 1 }, bad},
		"another request":             {func(a *attack) { a.messages(); a.keepHash = true; a.request.Nonce[0] ^= 1 }, bad},
		"requester's node":            {func(a *attack) { a.clearance.Requester.Node = "n2" }, bad},
		"another requester":           {func(a *attack) { a.clearance.Requester = ref("register") }, bad},
		"another connection":          {func(a *attack) { a.from = node("register") }, bad},
		"another node's connection":   {func(a *attack) { a.from.Node = "n2" }, bad},
		"stolen by another requester": {func(a *attack) { a.from = node("register"); a.clearance.Requester = ref("register") }, bad},
		"another supplier":            {func(a *attack) { a.clearance.Supplier = "fund" }, bad},
		"shown to another":            {func(a *attack) { a.self = node("fund") }, bad},
		"supplier not asked":          {func(a *attack) { a.request.Suppliers = []string{"fund"} }, bad},
		"subject":                     {func(a *attack) { a.clearance.Subject = recordtest.SSIN(foreign) }, bad},
		"no subject":                  {func(a *attack) { a.clearance.Subject = nil }, bad},
		"subject of the request":      {func(a *attack) { a.request.Subject = recordtest.SSIN(foreign) }, bad},
		"dataset":                     {func(a *attack) { a.clearance.Dataset = "wages/v2" }, bad},
		"period":                      {func(a *attack) { a.clearance.Period.Until++ }, bad},
		"no period":                   {func(a *attack) { a.clearance.Period = nil }, bad},
		"purpose":                     {func(a *attack) { a.clearance.Purpose = "curiosity" }, bad},
		"mode":                        {func(a *attack) { a.clearance.Mode = "batch" }, bad},
		"a field more":                {func(a *attack) { a.clearance.Fields = []string{"gross", "employer"} }, bad},
		"a field not asked":           {func(a *attack) { a.clearance.Fields = []string{"gross", "net"} }, bad},
		"a field less":                {func(a *attack) { a.clearance.Fields = nil }, bad},
		"withheld untold":             {func(a *attack) { a.clearance.Withheld = nil }, bad},
		"no such authorization":       {func(a *attack) { a.clearance.Authorization = "a-9" }, bad},
		"no authorization":            {func(a *attack) { a.clearance.Authorization = "" }, bad},
		"authorization for another purpose": {func(a *attack) {
			a.authorize("a-2", func(z *pb.Authorization) { z.Purpose = "audit" })
			a.clearance.Authorization = "a-2"
		}, bad},
		"authorization for another type": {func(a *attack) {
			a.authorize("a-2", func(z *pb.Authorization) { z.RequesterType = "town" })
			a.clearance.Authorization = "a-2"
		}, pb.Reason_REVOKED},
		"level too low": {func(a *attack) {
			a.authorize("a-2", func(z *pb.Authorization) { z.MinAuthLevel = 500 })
			a.clearance.Authorization = "a-2"
		}, bad},
		"mandate": {func(a *attack) {
			a.authorize("a-2", func(z *pb.Authorization) { z.MandateRequired = true })
			a.clearance.Authorization = "a-2"
		}, bad},
		"qualities":          {func(a *attack) { a.clearance.SupplierQualities = nil }, bad},
		"quality":            {func(a *attack) { a.clearance.SupplierQualities = []string{"retired"} }, pb.Reason_REVOKED},
		"unknown content":    {func(a *attack) { a.clearance.ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 1}) }, bad},
		"malformed request":  {func(a *attack) { a.request.User = "" }, bad},
		"request unsigned":   {func(a *attack) { a.requestBy = "stray" }, bad},
		"request by another": {func(a *attack) { a.requestBy = "alpha" }, bad},

		// By who may not.
		"signed by a stray key":   {func(a *attack) { a.clearanceBy = "stray" }, bad},
		"signed by another":       {func(a *attack) { a.clearanceBy = "beta" }, bad},
		"signed by the requester": {func(a *attack) { a.clearanceBy = "office" }, bad},
		"requester clears itself": {func(a *attack) { a.clears("office") }, bad},
		"supplier clears itself":  {func(a *attack) { a.clears("wages") }, bad},
		"by no member":            {func(a *attack) { a.clears("register") }, bad},
		"by another node":         {func(a *attack) { a.clearance.Clearer.Node, a.grant.Holder.Node = "n2", "n2" }, bad},
		"by the requester's sector": {func(a *attack) {
			a.clears("epsilon")
		}, bad},
		"by the supplier's sector": {func(a *attack) {
			a.request.Suppliers, a.self = nil, node("fund")
			a.clearance.Supplier = "fund"
			a.clears("delta")
		}, bad},
		"by a supplier that is a member": {func(a *attack) {
			a.offer("alpha", func(*pb.Offering) {})
			a.request.Suppliers, a.self = nil, node("alpha")
			a.clearance.Supplier = "alpha"
		}, bad},
		"by a suspended member":       {func(a *attack) { a.suspend("alpha") }, bad},
		"with a retired key":          {func(a *attack) { a.retire("alpha") }, bad},
		"by a removed node":           {func(a *attack) { a.remove("alpha") }, bad},
		"by a former member":          {func(a *attack) { a.members("beta", "gamma") }, bad},
		"requester suspended":         {func(a *attack) { a.suspend("office") }, pb.Reason_REVOKED},
		"requester's node removed":    {func(a *attack) { a.mesh.remove("office") }, pb.Reason_REVOKED},
		"requester's key retired":     {func(a *attack) { a.retire("office") }, bad},
		"supplier suspended":          {func(a *attack) { a.suspend("wages") }, pb.Reason_REVOKED},
		"authorization revoked":       {func(a *attack) { a.revoke("a-1") }, pb.Reason_REVOKED},
		"offering withdrawn":          {func(a *attack) { a.offer("wages", func(o *pb.Offering) { o.Withdrawn = true }) }, pb.Reason_REVOKED},
		"offering ended":              {func(a *attack) { a.offer("wages", func(o *pb.Offering) { o.Period.Until = 18899 }) }, pb.Reason_REVOKED},
		"offering of another quality": {func(a *attack) { a.offer("wages", func(o *pb.Offering) { o.Qualities = []string{"retired"} }) }, pb.Reason_REVOKED},

		// Grants.
		"no grant":               {func(a *attack) { a.grant, a.clearance.Grant = nil, nil }, bad},
		"noise for a grant":      {func(a *attack) { a.grant, a.clearance.Grant = nil, []byte("noise") }, bad},
		"grant of another mesh":  {func(a *attack) { a.grant.Mesh = "other.mesh" }, bad},
		"another's grant":        {func(a *attack) { a.grant.Holder = ref("gamma") }, bad},
		"forged grant":           {func(a *attack) { a.grantBy = "stray" }, bad},
		"grant by itself":        {func(a *attack) { a.grantBy = "alpha" }, bad},
		"grant by no member":     {func(a *attack) { a.grant.Leader, a.grantBy = ref("office"), "office" }, bad},
		"grant by a suspended":   {func(a *attack) { a.suspend("beta") }, bad},
		"grant by a retired key": {func(a *attack) { a.retire("beta") }, bad},
		"grant by a former member": {func(a *attack) {
			a.members("alpha", "gamma")
		}, bad},
		"grant newer than the view": {func(a *attack) { a.grant.CommitIndex = a.clearance.RegistryIndex + 1 }, bad},
		"grant ended before":        {func(a *attack) { a.grant.LeaderTimeUnixMs -= ms(bounds.Lease+bounds.Skew) + 1 }, bad},
		"grant from the future":     {func(a *attack) { a.grant.LeaderTimeUnixMs += ms(bounds.Skew) + 1 }, bad},

		// Times.
		"presented late":       {func(a *attack) { a.at = a.now.Add(bounds.PresentLife + bounds.Skew + time.Millisecond) }, expired},
		"from the future":      {func(a *attack) { a.at = a.now.Add(-bounds.Skew - time.Millisecond) }, bad},
		"long to present":      {func(a *attack) { a.clearance.PresentByUnixMs++ }, bad},
		"long to release":      {func(a *attack) { a.clearance.ReleaseByUnixMs++ }, bad},
		"release before":       {func(a *attack) { a.clearance.ReleaseByUnixMs = a.clearance.PresentByUnixMs - 1 }, bad},
		"present before issue": {func(a *attack) { a.clearance.PresentByUnixMs = a.clearance.IssuedUnixMs - 1 }, bad},
		"times overflow": {func(a *attack) {
			a.clearance.IssuedUnixMs, a.clearance.PresentByUnixMs, a.clearance.ReleaseByUnixMs = -1<<63, 1<<63-1, 1<<63-1
		}, bad},
		"old request":    {func(a *attack) { a.request.TimeUnixMs -= ms(RequestLife+bounds.Skew) + 1 }, bad},
		"future request": {func(a *attack) { a.request.TimeUnixMs += ms(bounds.Skew) + 1 }, bad},
	} {
		t.Run(name, func(t *testing.T) {
			a := honest(t)
			c.attack(a)
			k, refusal := a.check()
			if k != nil || refusal == nil {
				t.Fatal("accepted")
			}
			if refusal.Reason != c.want {
				t.Errorf("%v, want %s", refusal, c.want)
			}
			if bytes.Contains([]byte(refusal.Error()), []byte(known)) {
				t.Error("the refusal tells the subject's number")
			}
		})
	}
}

// clears makes inst the clearing peer, with a grant of its own.
func (a *attack) clears(inst string) {
	a.clearance.Clearer, a.grant.Holder, a.clearanceBy = ref(inst), ref(inst), inst
}

func (a *attack) members(list ...string) {
	m := new(pb.Members)
	for _, i := range list {
		m.Voters = append(m.Voters, ref(i))
	}
	a.put(record.Operators, &pb.Command_SetMembers{SetMembers: m})
}

// TestFrozenClearer: a member that stood still between check and signature, and
// then dates its clearance as it likes, is stopped by its grant's time.
func TestFrozenClearer(t *testing.T) {
	a := honest(t)
	// The grant is of now; the member wakes a minute later and signs with its clock.
	shift := time.Minute.Milliseconds()
	a.clearance.IssuedUnixMs += shift
	a.clearance.PresentByUnixMs += shift
	a.clearance.ReleaseByUnixMs += shift
	a.request.TimeUnixMs += shift
	a.at = a.now.Add(time.Minute)
	if _, r := a.check(); r == nil {
		t.Error("accepted long after the grant ended")
	}
	// At the very edge of its grant, data must have left by the bound of revocation.
	a = honest(t)
	edge := bounds.Lease + bounds.Skew
	a.clearance.IssuedUnixMs += edge.Milliseconds()
	a.clearance.PresentByUnixMs += edge.Milliseconds()
	a.clearance.ReleaseByUnixMs += edge.Milliseconds()
	a.request.TimeUnixMs += edge.Milliseconds()
	a.at = a.now.Add(edge)
	k, r := a.check()
	if r != nil {
		t.Fatal(r)
	}
	if want := a.now.Add(bounds.Lease + bounds.ReleaseLife + bounds.Skew); k.ReleaseBy.After(want) {
		t.Errorf("data may leave until %s, a revocation waits until %s", k.ReleaseBy, want)
	}
}

// TestRecheck: whatever falls away between presentation and release is seen.
func TestRecheck(t *testing.T) {
	for name, fall := range map[string]func(*mesh){
		"revoked":           func(m *mesh) { m.revoke("a-1") },
		"requester":         func(m *mesh) { m.suspend("office") },
		"requester's key":   func(m *mesh) { m.retire("office") },
		"requester's node":  func(m *mesh) { m.remove("office") },
		"clearer":           func(m *mesh) { m.suspend("alpha") },
		"clearer's key":     func(m *mesh) { m.retire("alpha") },
		"leader":            func(m *mesh) { m.suspend("beta") },
		"supplier":          func(m *mesh) { m.suspend("wages") },
		"offering":          func(m *mesh) { m.offer("wages", func(o *pb.Offering) { o.Withdrawn = true }) },
		"requester's type":  func(m *mesh) { m.change("office", "town", "welfare") },
		"requester sectors": func(m *mesh) { m.change("alpha", "member", "welfare") },
	} {
		t.Run(name, func(t *testing.T) {
			a := honest(t)
			k, r := a.check()
			if r != nil {
				t.Fatal(r)
			}
			fall(a.mesh)
			if r := k.Recheck(a.view(), a.now, recordtest.Mesh); r == nil {
				t.Error("data would leave")
			}
		})
	}
}

func (m *mesh) change(inst, typ, sector string) {
	m.put(record.Operators, &pb.Command_SetInstitution{SetInstitution: &pb.Institution{Id: inst, Name: inst, Type: typ, Sector: sector}})
}

func FuzzCheck(f *testing.F) {
	m := newMesh(f)
	req := m.signed(m.request(known))
	resp, err := m.service("alpha").Clear(f.Context(), node("office"), &pb.ClearRequest{Request: req})
	if err != nil {
		f.Fatal(err)
	}
	good := resp.Clearances[1]
	f.Add(req, good)
	f.Add([]byte{}, []byte{})
	c := m.open(good)
	c.Id = nil // differs between the processes of a fuzz run
	f.Fuzz(func(t *testing.T, request, clearance []byte) {
		k, r := Check(m.view(), m.now, bounds, recordtest.Mesh, node("wages"), node("office"), request, clearance)
		if (k == nil) == (r == nil) {
			t.Fatal("neither accepted nor refused")
		}
		if k == nil {
			return
		}
		shown := new(pb.Clearance)
		if _, err := open(envelope.Clearance, clearance, shown); err != nil {
			t.Fatal(err)
		}
		if shown.Id = nil; !proto.Equal(shown, c) {
			t.Fatal("accepted what was not signed")
		}
	})
}
