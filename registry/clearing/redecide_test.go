package clearing

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func (m *mesh) redecider(self string) *Redecider {
	return NewRedecider(RedeciderConfig{Self: node(self), Mesh: recordtest.Mesh, Rules: m.w.Rules, Bounds: bounds, Registry: m})
}

// again has gamma decide again, asked by beta, and says how that differs.
func (m *mesh) again(request, clearance []byte) string {
	m.t.Helper()
	return m.ruledAgain(&registrypb.RedecideRequest{Request: request, Clearance: clearance})
}

func (m *mesh) ruledAgain(rr *registrypb.RedecideRequest) string {
	m.t.Helper()
	resp, err := m.redecider("gamma").Redecide(m.t.Context(), node("beta"), rr)
	if err != nil {
		m.t.Fatal(err)
	}
	was, err := OpenRuling(rr)
	if err != nil {
		m.t.Fatal(err)
	}
	return was.Differs(resp)
}

// lie is a clearance that an honest peer would not have signed.
func (m *mesh) lie(by string, r *registrypb.Request, change func(*registrypb.Clearance)) []byte {
	c := &registrypb.Clearance{
		Mesh: string(recordtest.Mesh), Id: make([]byte, 16), Clearer: ref(by), Requester: r.Requester, Supplier: "wages", RequestHash: hashOf(m.signed(r)),
		Subject: r.Subject, Dataset: r.Dataset, Fields: []string{"gross"}, Period: r.Period, Purpose: r.Purpose, Mode: r.Mode, Authorization: "a-1",
		SupplierQualities: []string{"employee"}, RegistryIndex: m.index, IssuedUnixMs: m.now.UnixMilli(),
	}
	change(c)
	return sign(m.t, envelope.Clearance, c, by)
}

func TestLiesAreTold(t *testing.T) {
	m := newMesh(t)
	same := func(*registrypb.Clearance) {}
	unpermitted := func(r *registrypb.Request) { r.Purpose = "curiosity" }
	for name, tt := range map[string]struct {
		lie       []byte
		request   *registrypb.Request
		different string
	}{
		"the truth":             {m.lie("alpha", m.request(known), same), m.request(known), ""},
		"without authorization": {m.lie("alpha", m.request(known, unpermitted), same), m.request(known, unpermitted), "NOT_ALLOWED"},
		"without integration":   {m.lie("alpha", m.request(foreign), same), m.request(foreign), "NOT_INTEGRATED"},
		"without a route":       {m.lie("alpha", m.request(alone), same), m.request(alone), "UNKNOWN_SUBJECT"},
		"replaced number":       {m.lie("alpha", m.request(replaced), same), m.request(replaced), "REPLACED_NUMBER"},
		"more fields": {m.lie("alpha", m.request(known), func(c *registrypb.Clearance) { c.Fields = []string{"gross", "employer"} }),
			m.request(known), "other fields"},
		"other authorization": {m.lie("alpha", m.request(known), func(c *registrypb.Clearance) { c.Authorization = "a-2" }), m.request(known), "under a-1"},
		"no member":           {m.lie("register", m.request(known), same), m.request(known), "no registry member"},
		"party's sector":      {m.lie("epsilon", m.request(known), same), m.request(known), "itself a party"},
		"supplier's sector": {m.lie("delta", m.request(known), func(c *registrypb.Clearance) { c.Supplier = "fund" }),
			m.request(known), "itself a party"},
		"an institution that supplies nothing": {m.lie("alpha", m.request(known), func(c *registrypb.Clearance) { c.Supplier = "register" }),
			m.request(known), "UNKNOWN_SUBJECT"},
	} {
		got := m.again(m.signed(tt.request), tt.lie)
		if !strings.Contains(got, tt.different) || tt.different == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, tt.different)
		}
	}
}

// TestHonestPeersStandForEver lets the registry change at random, an honest peer clear
// between, and at the end has all of it decided again: nobody is accused, and a lie of
// any of these moments is still told.
func TestHonestPeersStandForEver(t *testing.T) {
	m := newMesh(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	type cleared struct{ request, clearance, lie []byte }
	var all []cleared
	declared := map[string]bool{known: true}
	for step := range 60 {
		person := []string{known, alone, renewed}[rnd.IntN(3)]
		switch rnd.IntN(6) {
		case 0:
			m.offer("wages", func(o *registrypb.Offering) { o.Withdrawn = rnd.IntN(2) == 0 })
		case 1:
			m.authorize(fmt.Sprintf("z-%d", step), func(z *registrypb.Authorization) { z.Fields = []string{"net", "gross", "employer"} })
		case 2:
			r := recordtest.Reference(person, "living-wage")
			if declared[person] {
				r.Withdrawn = true
			}
			if person == known || declared[person] {
				declared[person] = !declared[person]
				m.do(m.w.Declare("office", r))
			}
		case 3:
			m.declare("wages", "employee", recordtest.Person(100+step))
		case 4:
			m.put("wages", &registrypb.Command_SetNode{SetNode: recordtest.Node("wages", "n2")})
		}
		m.now = m.now.Add(time.Second)
		r := m.request([]string{known, renewed}[rnd.IntN(2)])
		resp := m.clear("alpha", r)
		for _, c := range resp.Clearances {
			spoilt := m.open(c)
			spoilt.Fields = append(spoilt.Fields, "secret")
			all = append(all, cleared{m.signed(r), c, sign(t, envelope.Clearance, spoilt, "alpha")})
		}
	}
	m.revoke("a-1")
	m.suspend("office")
	if len(all) < 10 {
		t.Fatalf("only %d were cleared", len(all))
	}
	for i, x := range all {
		if d := m.again(x.request, x.clearance); d != "" {
			t.Fatalf("clearance %d of %d, at index %d: an honest peer is accused: %s", i, len(all), m.open(x.clearance).RegistryIndex, d)
		}
		if d := m.again(x.request, x.lie); d == "" {
			t.Fatalf("clearance %d: a lie passes", i)
		}
	}
}

// TestRedecidedAfterReplacement: numbers that were joined since do not blur what was.
func TestRedecidedAfterReplacement(t *testing.T) {
	m := newMesh(t)
	r := m.request(known)
	cleared := m.clear("alpha", r).Clearances[0]
	m.put("register", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
		{Subject: recordtest.SSIN(known), Kind: registrypb.NumberEvent_REPLACED, Date: 19500, Successor: recordtest.SSIN(recordtest.Person(40))}}}})
	if d := m.again(m.signed(r), cleared); d != "" {
		t.Errorf("an honest peer is accused: %s", d)
	}
	late := m.lie("alpha", r, func(*registrypb.Clearance) {})
	if d := m.again(m.signed(r), late); !strings.Contains(d, "REPLACED_NUMBER") {
		t.Errorf("cleared after the replacement: %q", d)
	}
}

func TestWhoMayAsk(t *testing.T) {
	m := newMesh(t)
	r := m.request(known)
	cleared := m.lie("alpha", r, func(*registrypb.Clearance) {})
	ask := func(from string, request, clearance []byte) error {
		_, err := m.redecider("gamma").Redecide(t.Context(), node(from), &registrypb.RedecideRequest{Request: request, Clearance: clearance})
		return err
	}
	for _, party := range []string{"office", "wages", "beta", "alpha"} {
		if err := ask(party, m.signed(r), cleared); err != nil {
			t.Errorf("%s: %v", party, err)
		}
	}
	if err := ask("fund", m.signed(r), cleared); !errors.Is(err, ErrNotParty) {
		t.Errorf("no party: %v", err)
	}
	c := m.open(cleared)
	if err := ask("office", m.signed(r), sign(t, envelope.Clearance, c, "office")); !errors.Is(err, ErrBadSignature) {
		t.Errorf("never cleared: %v", err)
	}
	if err := ask("office", m.signed(m.request(alone)), cleared); !errors.Is(err, ErrMalformed) {
		t.Errorf("another request: %v", err)
	}
	if err := ask("office", sign(t, envelope.Request, m.request(known), "wages"), m.lie("alpha", r, func(c *registrypb.Clearance) {
		c.RequestHash = hashOf(sign(t, envelope.Request, m.request(known), "wages"))
	})); !errors.Is(err, ErrBadSignature) {
		t.Errorf("a request of another: %v", err)
	}
	future := m.lie("alpha", r, func(c *registrypb.Clearance) { c.RegistryIndex = m.index + 5 })
	if err := ask("beta", m.signed(r), future); !errors.Is(err, record.ErrNotReached) {
		t.Errorf("the future: %v", err)
	}
	if _, err := m.redecider("wages").Redecide(t.Context(), node("beta"), &registrypb.RedecideRequest{Request: m.signed(r), Clearance: cleared}); !errors.Is(err, ErrNotMember) {
		t.Errorf("asked of no member: %v", err)
	}
	m.revoke("a-1")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.redecider("gamma").Redecide(ended, node("beta"), &registrypb.RedecideRequest{Request: m.signed(r), Clearance: cleared}); !errors.Is(err, context.Canceled) {
		t.Errorf("out of time: %v", err)
	}
}

func FuzzRedecide(f *testing.F) {
	m := newMesh(f)
	r := m.request(known)
	good := m.lie("alpha", r, func(*registrypb.Clearance) {})
	f.Add(m.signed(r), good)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, request, clearance []byte) {
		resp, err := m.redecider("gamma").Redecide(t.Context(), node("beta"), &registrypb.RedecideRequest{Request: request, Clearance: clearance})
		c := new(registrypb.Clearance)
		if err == nil {
			if _, err := open(envelope.Clearance, clearance, c); err != nil || !proto.Equal(c.Requester, ref("office")) {
				t.Fatal("decided for another requester: ", resp)
			}
		}
	})
}
