package clearing

import (
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	pb "github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// mandated is a mesh in which office may ask for wages only by a mandate.
func mandated(t testing.TB) *mesh {
	m := newMesh(t)
	m.do(m.w.SetProvider())
	m.revoke("a-1")
	m.authorize("a-2", func(z *pb.Authorization) { z.MandateRequired = true })
	return m
}

// give registers a mandate of known's that lets office ask, changed.
func (m *mesh) give(label string, change func(*pb.MandateTerms)) {
	m.t.Helper()
	terms := m.w.Terms("register", label, known, "office", "inquiry", "wages/v1")
	if change != nil {
		change(terms)
	}
	m.put("register", m.w.Mandate("register", terms))
}

func (m *mesh) decide(r *pb.Request) Decision {
	m.t.Helper()
	d, err := Decide(m.view(), Case{Self: "alpha", Schemes: subject.Belgian(), Request: r, At: m.now})
	if err != nil {
		m.t.Fatal(err)
	}
	return d
}

// TestMandateOpens: a mandate opens what it says, to whom it says, and nothing else.
func TestMandateOpens(t *testing.T) {
	day := int32(names.DateOf(time.UnixMilli(1_700_000_000_000).UTC()))
	for what, c := range map[string]struct {
		change func(*pb.MandateTerms)
		after  func(*mesh)
		ask    func(*pb.Request)
		opens  bool
	}{
		"as given":              {nil, nil, nil, true},
		"of another subject":    {func(x *pb.MandateTerms) { x.Giver = recordtest.SSIN(foreign) }, nil, nil, false},
		"to another holder":     {func(x *pb.MandateTerms) { x.Holder = "wages" }, nil, nil, false},
		"for another purpose":   {func(x *pb.MandateTerms) { x.Purpose = "curiosity" }, nil, nil, false},
		"for another dataset":   {func(x *pb.MandateTerms) { x.Datasets = []string{"pensions/v1"} }, nil, nil, false},
		"over":                  {func(x *pb.MandateTerms) { x.Period = &pb.Period{From: day - 10, Until: day - 1} }, nil, nil, false},
		"to come":               {func(x *pb.MandateTerms) { x.Period = &pb.Period{From: day + 1, Until: day + 9} }, nil, nil, false},
		"on its last day":       {func(x *pb.MandateTerms) { x.Period = &pb.Period{From: day - 10, Until: day} }, nil, nil, true},
		"a request dated back":  {func(x *pb.MandateTerms) { x.Period = &pb.Period{From: day - 10, Until: day - 1} }, nil, func(r *pb.Request) { r.TimeUnixMs -= 86_400_000 }, false},
		"revoked by its giver":  {nil, func(m *mesh) { m.put("fund", m.w.Revocation("fund", "register/m-1", known, true)) }, nil, false},
		"given up":              {nil, func(m *mesh) { m.put("office", m.w.Revocation("office", "register/m-1", known, false)) }, nil, false},
		"revoked by a stranger": {nil, func(m *mesh) { m.put("fund", m.w.Revocation("fund", "register/m-1", known, false)) }, nil, true},
		"attested by nobody":    {nil, func(m *mesh) { m.retireProvider() }, nil, false},
		"in a lot": {nil, func(m *mesh) {
			m.authorize("a-3", func(z *pb.Authorization) { z.MandateRequired, z.Modes = true, []string{"batch"} })
		}, func(r *pb.Request) { r.Mode = "batch" }, false},
	} {
		t.Run(what, func(t *testing.T) {
			m := mandated(t)
			if d := m.decide(m.request(known)); d.Reason != pb.Reason_MANDATE_MISSING {
				t.Fatalf("without any: %s %s", d.Outcome, d.Reason)
			}
			m.give("m-1", c.change)
			if c.after != nil {
				c.after(m)
			}
			r := m.request(known)
			if c.ask != nil {
				c.ask(r)
			}
			d := m.decide(r)
			if opened := d.Outcome == pb.Outcome_PERMIT; opened != c.opens || opened != (d.Mandate != nil) || !opened && d.Reason != pb.Reason_MANDATE_MISSING {
				t.Errorf("%s %s, mandate %v", d.Outcome, d.Reason, d.Mandate)
			}
		})
	}
}

func (m *mesh) retireProvider() {
	m.put(record.Operators, &pb.Command_SetIdentityProvider{SetIdentityProvider: &pb.IdentityProvider{
		Id: recordtest.Provider, Name: "Portal", PublicKeys: [][]byte{recordtest.Public(recordtest.Provider)}, Levels: []uint32{1, 2, 3}, Retired: true}})
}

// TestMandateInAClearance: the clearance names the mandate, the supplier holds it to that as
// far as it can know, and whoever decides again finds a lie.
func TestMandateInAClearance(t *testing.T) {
	arrange := func(t *testing.T) (*mesh, []byte, *pb.Clearance) {
		m := mandated(t)
		m.give("m-1", func(x *pb.MandateTerms) { x.OnBehalf = &pb.Subject{Scheme: "cbe", Number: "0412345614"} })
		r := m.request(known, func(r *pb.Request) { r.Suppliers = []string{"wages"} })
		resp := m.clear("alpha", r)
		if len(resp.Clearances) != 1 {
			t.Fatalf("%s %s", resp.Outcome, resp.Reason)
		}
		return m, m.signed(r), m.open(resp.Clearances[0])
	}
	m, request, c := arrange(t)
	if u := c.Mandate; u.GetId() != "register/m-1" || u.Provider != recordtest.Provider || u.AuthLevel != 3 || u.OnBehalf.GetNumber() != "0412345614" {
		t.Fatalf("%v", c.Mandate)
	}
	present := func(m *mesh, self string) *Refusal {
		_, no := Check(m.view(), m.now, bounds, recordtest.Mesh, node(self), node("office"), request, sign(t, envelope.Clearance, c, "alpha"))
		return no
	}
	if no := present(m, "wages"); no != nil {
		t.Fatal(no)
	}
	if d := m.again(request, sign(t, envelope.Clearance, c, "alpha")); d != "" {
		t.Errorf("decided again: %s", d)
	}
	for what, spoil := range map[string]func(*pb.Clearance){
		"none":              func(c *pb.Clearance) { c.Mandate = nil },
		"no name":           func(c *pb.Clearance) { c.Mandate.Id = "" },
		"no provider":       func(c *pb.Clearance) { c.Mandate.Provider = "" },
		"unheard-of":        func(c *pb.Clearance) { c.Mandate.Provider = "other" },
		"a level of no one": func(c *pb.Clearance) { c.Mandate.AuthLevel = 4 },
	} {
		m, request, c = arrange(t)
		spoil(c)
		if no := present(m, "wages"); no == nil {
			t.Errorf("%s: the supplier took it", what)
		}
	}
	// What only a member can know.
	for what, spoil := range map[string]func(*mesh, *pb.Clearance){
		"another's mandate": func(m *mesh, c *pb.Clearance) {
			m.give("m-2", func(x *pb.MandateTerms) { x.Giver = recordtest.SSIN(foreign) })
			c.Mandate = &pb.MandateUse{Id: "register/m-2", Provider: recordtest.Provider, AuthLevel: 3}
		},
		"none there is":      func(_ *mesh, c *pb.Clearance) { c.Mandate.Id = "register/m-9" },
		"another enterprise": func(_ *mesh, c *pb.Clearance) { c.Mandate.OnBehalf = nil },
		"another level":      func(_ *mesh, c *pb.Clearance) { c.Mandate.AuthLevel = 2 },
		"revoked while cleared": func(m *mesh, _ *pb.Clearance) {
			m.put("fund", m.w.Revocation("fund", "register/m-1", known, true))
		},
	} {
		m, request, c = arrange(t)
		m.offer("beta", func(*pb.Offering) {}) // a supplier that is a member
		c.Supplier, c.SupplierQualities = "beta", []string{"employee"}
		r := m.request(known, func(r *pb.Request) { r.Suppliers = []string{"beta"} })
		request = m.signed(r)
		c.RequestHash, c.Ticket = hashOf(request), string(names.TicketOf(request))
		if no := present(m, "beta"); no != nil {
			t.Fatalf("%s: before it was spoilt: %v", what, no)
		}
		spoil(m, c)
		if no := present(m, "beta"); no == nil {
			t.Errorf("%s: a member took it", what)
		}
	}
	// Decided again at its index, a mandate that was none is told, and one that was revoked
	// only later is not.
	m, request, c = arrange(t)
	c.Mandate.Id = "register/m-9"
	if d := m.again(request, sign(t, envelope.Clearance, c, "alpha")); d == "" {
		t.Error("a mandate that is none was not told")
	}
	m, request, c = arrange(t)
	m.put("fund", m.w.Revocation("fund", "register/m-1", known, true))
	if d := m.again(request, sign(t, envelope.Clearance, c, "alpha")); d != "" {
		t.Errorf("revoked since: %s", d)
	}
}
