package clearing

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// newTelling is a mesh whose office is told of changes at wages.
func newTelling(t testing.TB) *mesh {
	m := newMesh(t)
	m.authorize("n-1", func(z *registrypb.Authorization) { z.Purpose, z.Modes = "follow-up", []string{"notification"} })
	m.subscribe(func(*registrypb.Subscription) {})
	return m
}

func (m *mesh) subscribe(change func(*registrypb.Subscription)) {
	s := &registrypb.Subscription{Institution: "office", Dataset: "wages/v1", Purpose: "follow-up", Qualities: []string{"living-wage"}, Period: recordtest.Since()}
	change(s)
	m.put("office", &registrypb.Command_SetSubscription{SetSubscription: s})
}

func (m *mesh) publication(person string, change ...func(*registrypb.Publication)) []byte {
	p := &registrypb.Publication{
		Mesh: string(recordtest.Mesh), Nonce: make([]byte, 16), Publisher: ref("wages"), User: "u-2", Application: "payroll", Dataset: "wages/v1",
		Fields: []string{"gross", "net"}, Subject: recordtest.SSIN(person), Period: &registrypb.Period{From: 18900, Until: 19100},
		Change: registrypb.Change_CHANGED, TimeUnixMs: m.now.UnixMilli(),
	}
	for _, c := range change {
		c(p)
	}
	return sign(m.t, envelope.Publication, p, "wages")
}

type tellings struct{ m *mesh }

func (tellings) RecordNotifications(context.Context, []Notified) error { return nil }

// tell has a peer clear a publication.
func (m *mesh) tell(self string, c *registrypb.NotificationCase) *registrypb.NotificationOutcome {
	m.t.Helper()
	s := NewNotificationService(NotificationConfig{
		Self: node(self), Mesh: recordtest.Mesh, Signer: recordtest.Key(self), Registry: m, Journal: tellings{m}, Bounds: bounds,
		Schemes: subject.Belgian(), Now: func() time.Time { return m.now },
	})
	resp, err := s.Clear(m.t.Context(), node("wages"), &registrypb.ClearNotificationsRequest{Cases: []*registrypb.NotificationCase{c}})
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.Outcomes[0]
}

func (m *mesh) openTold(raw []byte) *registrypb.NotificationClearance {
	m.t.Helper()
	c := new(registrypb.NotificationClearance)
	if _, err := open(envelope.NotificationClearance, raw, c); err != nil {
		m.t.Fatal(err)
	}
	return c
}

// lieTold is the clearance of a notification that an honest peer would not have signed.
func (m *mesh) lieTold(by string, publication []byte, change func(*registrypb.NotificationClearance)) []byte {
	p, _, err := OpenPublication(recordtest.Mesh, publication)
	if err != nil {
		m.t.Fatal(err)
	}
	c := &registrypb.NotificationClearance{
		Mesh: string(recordtest.Mesh), Id: make([]byte, 16), Ticket: string(names.TicketOf(publication)), Clearer: ref(by), Publisher: p.Publisher, Recipient: "office",
		PublicationHash: hashOf(publication), Subject: p.Subject, Dataset: p.Dataset, Fields: []string{"gross", "net"}, Period: p.Period, Purpose: "follow-up",
		Authorization: "n-1", Qualities: []string{"living-wage"}, PublisherQualities: []string{"employee"}, RegistryIndex: m.index, IssuedUnixMs: m.now.UnixMilli(),
	}
	change(c)
	return sign(m.t, envelope.NotificationClearance, c, by)
}

// A peer that had somebody told who must not be, or something, is named.
func TestLiesAboutNotificationsAreTold(t *testing.T) {
	m := newTelling(t)
	same := func(*registrypb.NotificationClearance) {}
	pub := m.publication(known)
	early := m.publication(known, func(p *registrypb.Publication) { p.TimeUnixMs = m.now.Add(time.Hour).UnixMilli() })
	for name, tt := range map[string]struct {
		publication, lie []byte
		different        string
	}{
		"the truth":            {pub, m.lieTold("alpha", pub, same), ""},
		"more fields":          {pub, m.lieTold("alpha", pub, func(c *registrypb.NotificationClearance) { c.Fields = []string{"employer", "gross", "net"} }), "other fields"},
		"another right":        {pub, m.lieTold("alpha", pub, func(c *registrypb.NotificationClearance) { c.Authorization = "a-1" }), "under n-1"},
		"not subscribed":       {pub, m.lieTold("alpha", pub, func(c *registrypb.NotificationClearance) { c.Recipient = "fund" }), "fund was not to be told"},
		"for another purpose":  {pub, m.lieTold("alpha", pub, func(c *registrypb.NotificationClearance) { c.Purpose = "inquiry" }), "for inquiry"},
		"by other files":       {pub, m.lieTold("alpha", pub, func(c *registrypb.NotificationClearance) { c.Qualities = []string{"client"} }), "of the recipient"},
		"by a party's sector":  {pub, m.lieTold("epsilon", pub, same), "itself a party"},
		"by no member":         {pub, m.lieTold("register", pub, same), "no registry member"},
		"no file there":        {m.publication(foreign), m.lieTold("alpha", m.publication(foreign), same), "office was not to be told"},
		"publisher has none":   {m.publication(nobody), m.lieTold("alpha", m.publication(nobody), same), "NOT_INTEGRATED"},
		"from the future":      {early, m.lieTold("alpha", early, same), "STALE_REQUEST"},
		"publisher's own file": {pub, m.lieTold("alpha", pub, func(c *registrypb.NotificationClearance) { c.PublisherQualities = nil }), "of the publisher"},
	} {
		got := m.again(tt.publication, tt.lie)
		if !strings.Contains(got, tt.different) || tt.different == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, tt.different)
		}
	}
}

// A peer that says that nobody is to be told is held to that too, and one that did not
// tell again whom others had told, or stood aside, is not accused.
func TestSilenceAboutNotificationsIsTold(t *testing.T) {
	m := newTelling(t)
	pub := m.publication(known)
	decision := func(by string, c *registrypb.NotificationCase, change func(*registrypb.Decision)) *registrypb.RedecideRequest {
		raw := m.tell(by, c).Decision
		d := new(registrypb.Decision)
		if _, err := open(envelope.NotificationDecision, raw, d); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(d)
			raw = sign(t, envelope.NotificationDecision, d, by)
		}
		return &registrypb.RedecideRequest{Request: c.Publication, Decision: raw}
	}
	cleared := &registrypb.NotificationCase{Publication: pub, Cleared: []string{"office/follow-up"}}
	for name, tt := range map[string]struct {
		shown     *registrypb.RedecideRequest
		different string
	}{
		"told already":        {decision("alpha", cleared, nil), ""},
		"nobody else asked":   {decision("alpha", &registrypb.NotificationCase{Publication: pub, Only: []string{"fund/follow-up"}}, nil), ""},
		"nobody has a file":   {decision("alpha", &registrypb.NotificationCase{Publication: m.publication(foreign)}, nil), ""},
		"not the publisher's": {decision("alpha", &registrypb.NotificationCase{Publication: m.publication(nobody)}, nil), ""},
		"stood aside":         {decision("epsilon", &registrypb.NotificationCase{Publication: pub}, nil), ""},
		"kept silent":         {decision("alpha", cleared, func(d *registrypb.Decision) { d.Cleared = nil }), "somebody was"},
		"another reason":      {decision("alpha", &registrypb.NotificationCase{Publication: m.publication(nobody)}, func(d *registrypb.Decision) { d.Reason = registrypb.Reason_NOT_ALLOWED }), "NOT_INTEGRATED"},
		"aside without cause": {decision("alpha", cleared, func(d *registrypb.Decision) { d.Recused = true }), "was no party"},
		"no member":           {decision("alpha", cleared, func(d *registrypb.Decision) { d.Clearer = ref("register") }), "x"},
	} {
		if name == "no member" { // signed by alpha in another's name
			if _, err := m.redecider("gamma").Redecide(t.Context(), node("beta"), tt.shown); !errors.Is(err, ErrBadSignature) {
				t.Error(name, err)
			}
			continue
		}
		got := m.ruledAgain(tt.shown)
		if !strings.Contains(got, tt.different) || tt.different == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, tt.different)
		}
	}
}

// The registry changes at random, an honest peer clears between, and at the end all is
// decided again: nobody is accused, and a lie of any of these moments is told.
func TestHonestPeersStandForEverWhenTelling(t *testing.T) {
	m := newTelling(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	type ruled struct {
		publication, clearance, lie []byte
		decision                    []byte
	}
	var all []ruled
	there := true
	for step := range 60 {
		switch rnd.IntN(6) {
		case 0:
			m.offer("wages", func(o *registrypb.Offering) { o.Withdrawn = rnd.IntN(3) == 0 })
		case 1:
			m.subscribe(func(s *registrypb.Subscription) { s.Withdrawn = rnd.IntN(3) == 0 })
		case 2:
			r := recordtest.Reference(known, "living-wage")
			r.Withdrawn = there
			there = !there
			m.do(m.w.Declare("office", r))
		case 3:
			m.subscribe(func(s *registrypb.Subscription) { s.Fields = []string{"net"} })
		case 4:
			m.declare("wages", "employee", recordtest.Person(100+step))
		}
		m.now = m.now.Add(time.Second)
		pub := m.publication(known)
		o := m.tell("alpha", &registrypb.NotificationCase{Publication: pub})
		if o.Decision != nil {
			all = append(all, ruled{publication: pub, decision: o.Decision})
		}
		for _, c := range o.Clearances {
			spoilt := m.openTold(c)
			spoilt.Fields = append(slices.Clone(spoilt.Fields), "secret")
			all = append(all, ruled{publication: pub, clearance: c, lie: sign(t, envelope.NotificationClearance, spoilt, "alpha")})
		}
	}
	m.revoke("n-1")
	m.suspend("office")
	told, silent := 0, 0
	for i, x := range all {
		if x.decision != nil {
			silent++
			if d := m.ruledAgain(&registrypb.RedecideRequest{Request: x.publication, Decision: x.decision}); d != "" {
				t.Fatalf("decision %d: an honest peer is accused: %s", i, d)
			}
			continue
		}
		told++
		if d := m.again(x.publication, x.clearance); d != "" {
			t.Fatalf("clearance %d: an honest peer is accused: %s", i, d)
		}
		if d := m.again(x.publication, x.lie); d == "" {
			t.Fatalf("clearance %d: a lie passes", i)
		}
	}
	if told < 10 || silent < 10 {
		t.Fatalf("%d told, %d not", told, silent)
	}
}

func TestWhoMayAskAboutNotifications(t *testing.T) {
	m := newTelling(t)
	pub := m.publication(known)
	lie := m.lieTold("alpha", pub, func(*registrypb.NotificationClearance) {})
	ask := func(from string, rr *registrypb.RedecideRequest) error {
		_, err := m.redecider("gamma").Redecide(t.Context(), node(from), rr)
		return err
	}
	rr := &registrypb.RedecideRequest{Request: pub, Clearance: lie}
	for _, party := range []string{"office", "wages", "beta"} {
		if err := ask(party, rr); err != nil {
			t.Errorf("%s: %v", party, err)
		}
	}
	if err := ask("fund", rr); !errors.Is(err, ErrNotParty) {
		t.Errorf("no party: %v", err)
	}
	if err := ask("office", &registrypb.RedecideRequest{Request: pub, Clearance: sign(t, envelope.NotificationClearance, m.openTold(lie), "office")}); !errors.Is(err, ErrBadSignature) {
		t.Errorf("never cleared: %v", err)
	}
	for name, rr := range map[string]*registrypb.RedecideRequest{
		"another publication":      {Request: m.publication(foreign), Clearance: lie},
		"a request":                {Request: m.signed(m.request(known)), Clearance: lie},
		"a clearance of a request": {Request: pub, Clearance: m.lie("alpha", m.request(known), func(*registrypb.Clearance) {})},
		"keys as of then": {Request: pub, Decision: sign(t, envelope.NotificationDecision, &registrypb.Decision{
			Mesh: string(recordtest.Mesh), Clearer: ref("alpha"), RequestHash: hashOf(pub), Outcome: registrypb.Outcome_DENY,
			Reason: registrypb.Reason_PUBLICATION_INVALID, RegistryIndex: m.index, TimeUnixMs: m.now.UnixMilli()}, "alpha")},
	} {
		if err := ask("office", rr); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ask("beta", &registrypb.RedecideRequest{Request: pub, Clearance: m.lieTold("alpha", pub, func(c *registrypb.NotificationClearance) { c.RegistryIndex += 9 })}); !errors.Is(err, record.ErrNotReached) {
		t.Errorf("the future: %v", err)
	}
}

func FuzzRedecideNotification(f *testing.F) {
	m := newTelling(f)
	pub := m.publication(known)
	good := m.lieTold("alpha", pub, func(*registrypb.NotificationClearance) {})
	f.Add(pub, good, false)
	f.Add(pub, m.tell("alpha", &registrypb.NotificationCase{Publication: pub, Cleared: []string{"office/follow-up"}}).Decision, true)
	f.Fuzz(func(t *testing.T, publication, ruling []byte, decided bool) {
		rr := &registrypb.RedecideRequest{Request: publication, Clearance: ruling}
		if decided {
			rr = &registrypb.RedecideRequest{Request: publication, Decision: ruling}
		}
		if _, err := m.redecider("gamma").Redecide(t.Context(), node("beta"), rr); err != nil {
			return
		}
		if p, _, err := OpenPublication(recordtest.Mesh, publication); err != nil || p.Publisher.Institution != "wages" {
			t.Fatal("decided on another's publication")
		}
	})
}
