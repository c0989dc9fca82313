package clearing

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	pb "github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func suppliers(m *mesh, resp *pb.ClearResponse) (list []string) {
	for _, raw := range resp.Clearances {
		list = append(list, m.open(raw).Supplier)
	}
	return list
}

func TestPermit(t *testing.T) {
	m := newMesh(t)
	resp := m.clear("alpha", m.request(known, func(r *pb.Request) { r.Fields = []string{"employer", "net", "gross", "net"} }))
	if resp.Outcome != pb.Outcome_PERMIT || resp.Recused || resp.Authorization != "a-1" || resp.RegistryIndex != m.index {
		t.Errorf("response %v", resp)
	}
	if !slices.Equal(resp.Withheld, []string{"employer"}) || !slices.Equal(suppliers(m, resp), []string{"fund", "wages"}) {
		t.Errorf("withheld %v, suppliers %v", resp.Withheld, suppliers(m, resp))
	}
	c := m.open(resp.Clearances[1])
	if !slices.Equal(c.Fields, []string{"net", "gross"}) || !slices.Equal(c.SupplierQualities, []string{"employee"}) || c.Ticket != resp.Ticket {
		t.Errorf("clearance %v", c)
	}
	if len(m.journal) != 1 || string(m.journal[0].Ticket) != resp.Ticket || len(m.journal[0].Clearances) != 2 {
		t.Errorf("journal %+v", m.journal)
	}
	if resp := m.clear("alpha", m.request(known, func(r *pb.Request) { r.Fields = nil; r.Suppliers = []string{"wages", "alpha"} })); !slices.Equal(suppliers(m, resp), []string{"wages"}) ||
		!slices.Equal(m.open(resp.Clearances[0]).Fields, []string{"gross", "net"}) {
		t.Errorf("one supplier, all fields: %v", resp)
	}
}

// TestOutcomes has a row for each step of the check, in order: each request fails
// in its step, and in later ones too wherever that is possible.
func TestOutcomes(t *testing.T) {
	badPurpose := func(r *pb.Request) { r.Purpose = "curiosity" }
	for name, c := range map[string]struct {
		prepare func(*mesh)
		person  string
		change  func(*pb.Request)
		outcome pb.Outcome
		reason  pb.Reason
	}{
		"1 suspended":              {func(m *mesh) { m.suspend("office") }, "1", badPurpose, pb.Outcome_DENY, pb.Reason_REQUESTER_NOT_ADMITTED},
		"1 node removed":           {func(m *mesh) { m.remove("office") }, "1", badPurpose, pb.Outcome_DENY, pb.Reason_REQUESTER_NOT_ADMITTED},
		"2 check digits":           {nil, "74071238187", badPurpose, pb.Outcome_DENY, pb.Reason_MALFORMED_NUMBER},
		"2 not canonical":          {nil, known[:6] + " " + known[6:], badPurpose, pb.Outcome_DENY, pb.Reason_MALFORMED_NUMBER},
		"2 unknown scheme":         {nil, known, func(r *pb.Request) { r.Subject.Scheme = "passport" }, pb.Outcome_DENY, pb.Reason_MALFORMED_NUMBER},
		"3 purpose":                {nil, foreign, badPurpose, pb.Outcome_NOT_APPLICABLE, pb.Reason_NOT_ALLOWED},
		"3 mode":                   {nil, foreign, func(r *pb.Request) { r.Mode = "batch" }, pb.Outcome_NOT_APPLICABLE, pb.Reason_NOT_ALLOWED},
		"3 dataset":                {nil, foreign, func(r *pb.Request) { r.Dataset = "wages/v2" }, pb.Outcome_NOT_APPLICABLE, pb.Reason_NOT_ALLOWED},
		"3 revoked":                {func(m *mesh) { m.revoke("a-1") }, foreign, nil, pb.Outcome_DENY, pb.Reason_NOT_ALLOWED},
		"3 scheme of the dataset":  {nil, "0412345614", func(r *pb.Request) { r.Subject.Scheme = "cbe" }, pb.Outcome_DENY, pb.Reason_MALFORMED_NUMBER},
		"4 no reference":           {nil, foreign, func(r *pb.Request) { r.Fields = []string{"employer"} }, pb.Outcome_DENY, pb.Reason_NOT_INTEGRATED},
		"4 nobody":                 {nil, nobody, nil, pb.Outcome_DENY, pb.Reason_NOT_INTEGRATED},
		"4 period":                 {nil, known, func(r *pb.Request) { r.Period = &pb.Period{From: 18000, Until: 18261} }, pb.Outcome_DENY, pb.Reason_NOT_INTEGRATED},
		"4 quality":                {func(m *mesh) { m.declare("office", "debtor", foreign) }, foreign, nil, pb.Outcome_DENY, pb.Reason_NOT_INTEGRATED},
		"4 all that became of it":  {nil, other, nil, pb.Outcome_DENY, pb.Reason_NOT_INTEGRATED},
		"5 replaced":               {nil, replaced, func(r *pb.Request) { r.Fields = []string{"employer"} }, pb.Outcome_DENY, pb.Reason_REPLACED_NUMBER},
		"5 cancelled":              {nil, gone, nil, pb.Outcome_DENY, pb.Reason_CANCELLED_NUMBER},
		"5 dead before the period": {nil, dead, func(r *pb.Request) { r.Period.From = 19001 }, pb.Outcome_DENY, pb.Reason_DECEASED_SUBJECT},
		"5 died in the period":     {nil, dead, func(r *pb.Request) { r.Period.From = 19000 }, pb.Outcome_PERMIT, 0},
		"5 the new number":         {nil, renewed, nil, pb.Outcome_PERMIT, 0},
		"6 no file":                {nil, alone, func(r *pb.Request) { r.Fields = []string{"employer"} }, pb.Outcome_DENY, pb.Reason_UNKNOWN_SUBJECT},
		"6 other supplier":         {nil, known, func(r *pb.Request) { r.Suppliers = []string{"register"} }, pb.Outcome_DENY, pb.Reason_UNKNOWN_SUBJECT},
		"6 asks itself": {func(m *mesh) {
			m.offer("office", func(o *pb.Offering) { o.Qualities = []string{"living-wage"} })
		}, alone, nil, pb.Outcome_DENY, pb.Reason_UNKNOWN_SUBJECT},
		"6 withdrawn":      {func(m *mesh) { m.offer("wages", func(o *pb.Offering) { o.Withdrawn = true }) }, dead, nil, pb.Outcome_DENY, pb.Reason_UNKNOWN_SUBJECT},
		"6 other quality":  {func(m *mesh) { m.offer("wages", func(o *pb.Offering) { o.Qualities = []string{"retired"} }) }, dead, nil, pb.Outcome_DENY, pb.Reason_UNKNOWN_SUBJECT},
		"6 offered before": {func(m *mesh) { m.offer("wages", func(o *pb.Offering) { o.Period.Until = 18899 }) }, dead, nil, pb.Outcome_DENY, pb.Reason_UNKNOWN_SUBJECT},
		"6 suspended":      {func(m *mesh) { m.suspend("wages") }, dead, nil, pb.Outcome_DENY, pb.Reason_UNKNOWN_SUBJECT},
		"8 fields":         {nil, known, func(r *pb.Request) { r.Fields = []string{"employer"} }, pb.Outcome_DENY, pb.Reason_NO_PERMITTED_FIELD},
		"9 mandate": {func(m *mesh) {
			m.revoke("a-1")
			m.authorize("a-2", func(z *pb.Authorization) { z.MandateRequired = true })
		}, known, nil, pb.Outcome_DENY, pb.Reason_MANDATE_MISSING},
		"9 level": {func(m *mesh) {
			m.revoke("a-1")
			m.authorize("a-2", func(z *pb.Authorization) { z.MinAuthLevel = 401 })
		}, known, nil, pb.Outcome_DENY, pb.Reason_AUTH_LEVEL_TOO_LOW},
		"9 second peer, in a lot": {func(m *mesh) {
			m.authorize("a-2", func(z *pb.Authorization) { z.SecondClearingPeer, z.Modes = true, []string{"batch"} })
		}, known, func(r *pb.Request) { r.Mode = "batch" }, pb.Outcome_DENY, pb.Reason_NO_ELIGIBLE_CLEARER},
		"expired": {func(m *mesh) {
			m.revoke("a-1")
			m.authorize("a-2", func(z *pb.Authorization) { z.Period.Until = int32(names.DateOf(m.now.UTC())) - 1 })
		}, known, nil, pb.Outcome_DENY, pb.Reason_NOT_ALLOWED},
		"last day": {func(m *mesh) {
			m.revoke("a-1")
			m.authorize("a-2", func(z *pb.Authorization) { z.Period.Until = int32(names.DateOf(m.now.UTC())) })
		}, known, nil, pb.Outcome_PERMIT, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			if c.prepare != nil {
				c.prepare(m)
			}
			if c.change == nil {
				c.change = func(*pb.Request) {}
			}
			resp := m.clear("alpha", m.request(c.person, c.change))
			if resp.Outcome != c.outcome || resp.Reason != c.reason || resp.Recused {
				t.Errorf("%s %s, recused %t; want %s %s", resp.Outcome, resp.Reason, resp.Recused, c.outcome, c.reason)
			}
			if (resp.Outcome == pb.Outcome_PERMIT) != (len(resp.Clearances) > 0) {
				t.Errorf("%d clearances with %s", len(resp.Clearances), resp.Outcome)
			}
			if (resp.Successor != nil) != (c.reason == pb.Reason_REPLACED_NUMBER) {
				t.Errorf("successor %v", resp.Successor)
			}
			if len(m.journal) != 1 || m.journal[0].Outcome != c.outcome || m.journal[0].Reason != c.reason {
				t.Errorf("journal %+v", m.journal)
			}
		})
	}
}

// withoutTicket leaves out what repeats the request, and the signature.
func withoutTicket(t *testing.T, r *pb.ClearResponse) *pb.ClearResponse {
	t.Helper()
	d := new(pb.Decision)
	if _, err := open(envelope.Decision, r.Decision, d); err != nil {
		t.Fatal(err)
	}
	d.Ticket, d.RequestHash, r.Ticket = "", nil, ""
	var err error
	if r.Decision, err = (proto.MarshalOptions{Deterministic: true}).Marshal(d); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestNothingIsTold: to who is not integrated, a subject that exists elsewhere, was
// replaced, was cancelled or died looks like one that nobody knows, whoever clears.
func TestNothingIsTold(t *testing.T) {
	m := newMesh(t)
	for _, clearer := range []string{"alpha", "delta"} {
		want := withoutTicket(t, m.clear(clearer, m.request(nobody)))
		for _, person := range []string{foreign, other} {
			got := withoutTicket(t, m.clear(clearer, m.request(person)))
			if !proto.Equal(got, want) {
				t.Errorf("%s: %v, want %v", clearer, got, want)
			}
		}
	}
	// A party to a supplier says so only after integration.
	m.declare("fund", "employee", foreign)
	if resp := m.clear("delta", m.request(foreign)); resp.Recused || resp.Reason != pb.Reason_NOT_INTEGRATED {
		t.Errorf("a party tells that its sector holds a file: %v", resp)
	}
}

func TestRecused(t *testing.T) {
	m := newMesh(t)
	// Of the requester's sector: at once, whatever is asked.
	for _, person := range []string{known, nobody, "nonsense"} {
		if resp := m.clear("epsilon", m.request(person)); !resp.Recused || resp.Outcome != 0 || len(resp.Clearances) > 0 {
			t.Errorf("of the requester's sector: %v", resp)
		}
	}
	// Of one supplier's sector: clears the others.
	resp := m.clear("delta", m.request(known))
	if !resp.Recused || resp.Outcome != pb.Outcome_PERMIT || !slices.Equal(suppliers(m, resp), []string{"wages"}) {
		t.Errorf("of one supplier's sector: %v", resp)
	}
	rest := m.clear("alpha", m.request(known), "wages")
	if rest.Recused || !slices.Equal(suppliers(m, rest), []string{"fund"}) {
		t.Errorf("the rest: %v", rest)
	}
	if resp := m.clear("delta", m.request(known), "wages"); !resp.Recused || resp.Outcome != 0 || len(resp.Clearances) > 0 {
		t.Errorf("nothing left that it may clear: %v", resp)
	}
	// A supplier that is a member never clears for itself.
	m.offer("alpha", func(*pb.Offering) {})
	m.declare("alpha", "employee", alone)
	if resp := m.clear("alpha", m.request(alone)); !resp.Recused || resp.Outcome != 0 {
		t.Errorf("a supplier clears itself: %v", resp)
	}
	if resp := m.clear("gamma", m.request(alone)); !slices.Equal(suppliers(m, resp), []string{"alpha"}) {
		t.Errorf("another clears for a member: %v", resp)
	}
}

func TestManyAuthorizations(t *testing.T) {
	m := newMesh(t)
	m.authorize("a-0", func(z *pb.Authorization) { z.Fields = []string{"employer"}; z.MinAuthLevel = 500 })
	m.authorize("a-2", func(z *pb.Authorization) { z.Fields = []string{"gross", "net", "employer"} })
	m.authorize("a-3", func(z *pb.Authorization) { z.RequesterQualities = []string{"debtor"} })
	resp := m.clear("alpha", m.request(known, func(r *pb.Request) { r.Fields = nil }))
	if resp.Authorization != "a-2" {
		t.Errorf("decided by %s, want the widest", resp.Authorization)
	}
	m.declare("office", "debtor", foreign)
	if resp := m.clear("alpha", m.request(foreign)); resp.Authorization != "a-3" {
		t.Errorf("decided by %s, want the one that names the quality", resp.Authorization)
	}
}

func TestManySuppliers(t *testing.T) {
	m := newMesh(t)
	for n := range 70 {
		id := "town-" + string(rune('a'+n/26)) + string(rune('a'+n%26))
		m.do(m.w.Admit(&pb.Institution{Id: id, Type: "town"}))
		m.offer(id, func(*pb.Offering) {})
		m.declare(id, "employee", known)
	}
	first := m.clear("alpha", m.request(known))
	if len(first.Clearances) != MaxSuppliers || !first.Recused {
		t.Fatalf("%d clearances, more to ask: %t", len(first.Clearances), first.Recused)
	}
	rest := m.clear("alpha", m.request(known), suppliers(m, first)...)
	if len(rest.Clearances) != 72-MaxSuppliers || rest.Recused {
		t.Errorf("%d clearances, more to ask: %t", len(rest.Clearances), rest.Recused)
	}
}

func TestRank(t *testing.T) {
	members := []names.NodeID{node("a"), node("b"), node("c"), node("d")}
	backwards := slices.Clone(members)
	slices.Reverse(backwards)
	first := make(map[names.NodeID]int)
	for n := range 1000 {
		hash := hashOf([]byte(recordtest.Person(n)))
		order := Rank(members, hash)
		if !slices.Equal(order, Rank(backwards, hash)) {
			t.Fatal("the order depends on how members were listed")
		}
		// Without its first, the others keep their order.
		if rest := Rank(slices.DeleteFunc(slices.Clone(members), func(n names.NodeID) bool { return n == order[0] }), hash); !slices.Equal(rest, order[1:]) {
			t.Fatal("a member that leaves moves others")
		}
		first[order[0]]++
	}
	for m, n := range first {
		if n < 180 || n > 320 {
			t.Errorf("%s is first for %d of 1000", m, n)
		}
	}
}
