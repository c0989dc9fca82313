package clearing

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	pb "github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestNothingToDecide: what is malformed, or not the sender's, gives an error and
// no trace in the journal.
func TestNothingToDecide(t *testing.T) {
	m := newMesh(t)
	change := func(f func(*pb.Request)) []byte { return m.signed(m.request(known, f)) }
	twice, err := envelope.AddSignature(m.signed(m.request(known)), recordtest.Key("wages"))
	if err != nil {
		t.Fatal(err)
	}
	unsigned := new(certspb.Envelope)
	if err := proto.Unmarshal(m.signed(m.request(known)), unsigned); err != nil {
		t.Fatal(err)
	}
	unsigned.Signatures = nil
	bare, _ := proto.Marshal(unsigned)
	for name, c := range map[string]struct {
		raw  []byte
		want error
	}{
		"nothing":             {nil, ErrMalformed},
		"noise":               {[]byte("noise"), ErrMalformed},
		"large":               {make([]byte, maxMessage+1), ErrMalformed},
		"another kind":        {sign(t, envelope.Clearance, m.request(known), "office"), ErrMalformed},
		"unsigned":            {bare, ErrMalformed},
		"two signatures":      {twice, ErrMalformed},
		"another mesh":        {change(func(r *pb.Request) { r.Mesh = "other.mesh" }), ErrMalformed},
		"nonce":               {change(func(r *pb.Request) { r.Nonce = nil }), ErrMalformed},
		"no subject":          {change(func(r *pb.Request) { r.Subject = nil }), ErrMalformed},
		"no period":           {change(func(r *pb.Request) { r.Period = nil }), ErrMalformed},
		"backward period":     {change(func(r *pb.Request) { r.Period.Until = 0 }), ErrMalformed},
		"no requester":        {change(func(r *pb.Request) { r.Requester = nil }), ErrMalformed},
		"no user":             {change(func(r *pb.Request) { r.User = "" }), ErrMalformed},
		"bad field":           {change(func(r *pb.Request) { r.Fields = []string{"a b"} }), ErrMalformed},
		"bad dataset":         {change(func(r *pb.Request) { r.Dataset = "x\x00y/v1" }), ErrMalformed},
		"many fields":         {change(func(r *pb.Request) { r.Fields = make([]string, 300) }), ErrMalformed},
		"unknown content":     {change(func(r *pb.Request) { r.ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 1}) }), ErrMalformed},
		"of another node":     {change(func(r *pb.Request) { r.Requester.Node = "n2" }), ErrNotRequester},
		"of another":          {change(func(r *pb.Request) { r.Requester = ref("wages") }), ErrNotRequester},
		"signed by another":   {sign(t, envelope.Request, m.request(known), "wages"), ErrBadSignature},
		"signed by a stray":   {sign(t, envelope.Request, m.request(known), "stray"), ErrBadSignature},
		"signed by operators": {sign(t, envelope.Request, m.request(known), "operator1"), ErrBadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := m.service("alpha").Clear(t.Context(), node("office"), &pb.ClearRequest{Request: c.raw})
			if !errors.Is(err, c.want) || resp != nil {
				t.Errorf("%v, %v; want %v", resp, err, c.want)
			}
		})
	}
	if _, err := m.service("alpha").Clear(t.Context(), node("office"), &pb.ClearRequest{Request: m.signed(m.request(known)), Cleared: make([]string, 2000)}); !errors.Is(err, ErrMalformed) {
		t.Errorf("a long list of cleared suppliers: %v", err)
	}
	if _, err := m.service("fund").Clear(t.Context(), node("office"), &pb.ClearRequest{Request: m.signed(m.request(known))}); !errors.Is(err, ErrNotMember) {
		t.Errorf("cleared by no member: %v", err)
	}
	m.retire("office")
	if _, err := m.service("alpha").Clear(t.Context(), node("office"), &pb.ClearRequest{Request: m.signed(m.request(known))}); !errors.Is(err, ErrBadSignature) {
		t.Errorf("signed with a retired key: %v", err)
	}
	if len(m.journal) > 0 {
		t.Errorf("journal %+v", m.journal)
	}
}

func TestFreshness(t *testing.T) {
	m := newMesh(t)
	for age, want := range map[time.Duration]pb.Outcome{
		0: pb.Outcome_PERMIT, -bounds.Skew: pb.Outcome_PERMIT, bounds.Skew + RequestLife: pb.Outcome_PERMIT,
		-bounds.Skew - time.Millisecond: pb.Outcome_DENY, bounds.Skew + RequestLife + time.Millisecond: pb.Outcome_DENY, 24 * time.Hour: pb.Outcome_DENY,
	} {
		resp := m.clear("alpha", m.request(known, func(r *pb.Request) { r.TimeUnixMs = m.now.Add(-age).UnixMilli() }))
		if resp.Outcome != want || (want == pb.Outcome_DENY) != (resp.Reason == pb.Reason_STALE_REQUEST) {
			t.Errorf("request %s old: %v", age, resp)
		}
	}
}

// TestNoStanding: without a grant nothing is decided, and one that ends at any
// moment before the answer leaves no answer.
func TestNoStanding(t *testing.T) {
	m := newMesh(t)
	raw := m.signed(m.request(known))
	for after := range 4 {
		m.journal, m.standing = nil, nil
		asked := 0
		m.lapse = func() {
			if asked++; asked > after {
				m.standing = lease.ErrStale
			}
		}
		resp, err := m.service("alpha").Clear(t.Context(), node("office"), &pb.ClearRequest{Request: raw})
		if !errors.Is(err, lease.ErrStale) || resp != nil {
			t.Errorf("grant gone after %d looks: %v, %v", after, resp, err)
		}
		if after < 3 && len(m.journal) > 0 {
			t.Errorf("grant gone after %d looks, and a permit is journaled", after)
		}
	}
	m.lapse, m.standing = nil, nil
	ahead := ahead{m}
	s := New(Config{Self: node("alpha"), Mesh: recordtest.Mesh, Signer: recordtest.Key("alpha"), Registry: ahead, Journal: m, Bounds: bounds, Schemes: m.w.Rules.Schemes})
	if _, err := s.Clear(t.Context(), node("office"), &pb.ClearRequest{Request: raw}); !errors.Is(err, lease.ErrStale) {
		t.Errorf("decided on a view behind the grant: %v", err)
	}
}

// ahead is a registry whose grant is of an index that is not applied yet.
type ahead struct{ *mesh }

func (a ahead) Standing() (lease.Standing, error) {
	s, err := a.mesh.Standing()
	s.Index++
	return s, err
}

// TestJournalFails: permits and refusals alike are not given.
func TestJournalFails(t *testing.T) {
	m := newMesh(t)
	m.broken = errDisk
	for _, person := range []string{known, foreign, "nonsense"} {
		resp, err := m.service("alpha").Clear(t.Context(), node("office"), &pb.ClearRequest{Request: m.signed(m.request(person))})
		if !errors.Is(err, ErrJournal) || !errors.Is(err, errDisk) || resp != nil {
			t.Errorf("%v, %v", resp, err)
		}
	}
}

// TestSameRequestSameTicket: asking again changes nothing but the clearances' ids.
func TestSameRequestSameTicket(t *testing.T) {
	m := newMesh(t)
	raw := m.signed(m.request(known))
	ask := func(self string) *pb.ClearResponse {
		resp, err := m.service(self).Clear(t.Context(), node("office"), &pb.ClearRequest{Request: raw})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	a, b := ask("alpha"), ask("gamma")
	if a.Ticket != b.Ticket || a.Ticket == m.clear("alpha", m.request(known, func(r *pb.Request) { r.Nonce[0]++ })).Ticket {
		t.Error("the ticket is not the request's")
	}
	if string(m.open(a.Clearances[0]).Id) == string(m.open(b.Clearances[0]).Id) {
		t.Error("two clearances of one id")
	}
}

func FuzzOpenRequest(f *testing.F) {
	m := newMesh(f)
	f.Add(m.signed(m.request(known)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		req, opened, err := openRequest(recordtest.Mesh, raw)
		if err != nil {
			return
		}
		if _, err := Decide(m.view(), Case{Self: "alpha", Schemes: m.w.Rules.Schemes, Request: req, At: m.now}); err != nil {
			t.Fatal(err)
		}
		if _, err := signedBy(m.view(), nil, opened, record.NodeID(req.Requester).Institution); err != nil {
			t.Fatal(err)
		}
	})
}
