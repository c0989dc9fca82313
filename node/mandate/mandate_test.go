package mandate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	nodejournal "github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/identity"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var (
	giver  = subject.Raw(subject.SSIN, recordtest.Person(1))
	other  = subject.Raw(subject.SSIN, recordtest.Person(2))
	desk   = Asker{Application: "desk", User: "clerk-7", AuthLevel: 3, Channel: "api"}
	errOff = errors.New("nobody answers")
)

// world is a desk at which givers appear, with a real author and journal, before a registry
// whose rules are the real ones. member asks and answers what others may know.
type world struct {
	t       testing.TB
	w       *recordtest.World
	state   record.MapState
	index   uint64
	journal *nodejournal.Journal
	service *Service

	appends   int // of the journal, until it fails; 0: never
	silent    bool
	stale     bool
	submitted int
	peers     func(to names.NodeID) (*nodepb.MandatesResponse, error)
}

func newWorld(t testing.TB, self names.InstitutionID) *world {
	w := &world{t: t, w: recordtest.New(t, "alpha", "beta", "gamma")}
	if err := record.Bootstrap(&w.state, w.w.Rules); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"town", "centre", "stranger"} {
		w.do(w.w.Admit(&registrypb.Institution{Id: id, Type: "office"}))
		w.do(w.w.Command(id, &registrypb.Command_SetNode{SetNode: recordtest.Node(id, "n1")}))
	}
	w.do(w.w.SetProvider())
	var err error
	if w.journal, err = nodejournal.Open(nodejournal.Config{FS: disktest.New(), Key: bytes.Repeat([]byte{2}, nodejournal.KeySize)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.journal.Close() })
	w.service = New(Config{Mesh: recordtest.Mesh, Self: names.NodeID{Institution: self, Node: "n1"}, Registry: w, Journal: w, Peers: w,
		Author: author{registry.NewAuthor(w, recordtest.Mesh, string(self), recordtest.Key(string(self))), w}, Schemes: subject.Belgian(), Skew: time.Second, Now: w.now})
	return w
}

// author writes in the time of the world.
type author struct {
	*registry.Author
	w *world
}

func (a author) Do(ctx context.Context, c *registrypb.Command) (*registrypb.SubmitResponse, error) {
	a.w.w.Time++
	c.TimeUnixMs = a.w.w.Time
	return a.Author.Do(ctx, c)
}

func (w *world) now() time.Time { return time.UnixMilli(w.w.Time) }

func (w *world) do(raw []byte) *registrypb.SubmitResponse {
	w.index++
	res, err := record.Apply(&w.state, w.w.Rules, w.index, raw)
	if err == nil {
		err = record.SetAppliedIndex(&w.state, w.index)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return &registrypb.SubmitResponse{Index: w.index, Accepted: res.Accepted, Refusal: res.Refusal}
}

// Submit and Head make it what an Author writes to.
func (w *world) Submit(_ context.Context, raw []byte) (*registrypb.SubmitResponse, error) {
	if w.silent {
		return nil, errOff
	}
	w.submitted++
	return w.do(raw), nil
}

func (w *world) Head(_ context.Context, author string, chain registrypb.Chain, _ uint64) (uint64, []byte, error) {
	return record.NewView(&w.state).Head(author, chain)
}

func (w *world) View(fn func(record.View) error) error { return fn(record.NewView(&w.state)) }

func (w *world) Standing() (lease.Standing, error) {
	if w.stale {
		return lease.Standing{}, lease.ErrStale
	}
	return lease.Standing{}, nil
}

func (w *world) Append(ctx context.Context, e *nodepb.Entry) (uint64, error) {
	if w.appends > 0 {
		if w.appends--; w.appends == 0 {
			return 0, nodejournal.ErrUnavailable
		}
	}
	return w.journal.Append(ctx, e)
}

func (w *world) Mandates(_ context.Context, to names.NodeID, _ *nodepb.MandatesRequest) (*nodepb.MandatesResponse, error) {
	if w.peers == nil {
		return nil, errOff
	}
	return w.peers(to)
}

// entries gives what the journal holds of a kind of event, oldest first.
func (w *world) entries(event nodepb.Event) (all []*nodepb.Entry) {
	w.t.Helper()
	found, err := w.journal.Find(context.Background(), nodejournal.Query{User: desk.User, Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range found {
		if s.Entry.Event == event {
			all = append(all, s.Entry)
		}
	}
	return all
}

func (w *world) terms(holder names.InstitutionID) Terms {
	today := names.DateOf(w.now().UTC())
	return Terms{Giver: giver, Holder: holder, Purpose: "inquiry", Datasets: []names.DatasetID{"wages/v1"}, Period: names.Period{From: today, Until: today + 30}}
}

// token is what the provider makes for a challenge, of whoever shows up.
func (w *world) token(c *Challenge, about subject.ID, spoil func(*registrypb.IdentityToken)) []byte {
	return w.w.Token(string(w.service.cfg.Self.Institution), string(c.Purpose), number(about), nil, recordtest.Provider, func(t *registrypb.IdentityToken) {
		t.Nonce, t.PayloadHash = c.Nonce, c.PayloadHash
		if spoil != nil {
			spoil(t)
		}
	})
}

func (w *world) challenge(holder names.InstitutionID) *Challenge {
	w.t.Helper()
	c, err := w.service.Challenge(desk, w.terms(holder))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) give(holder names.InstitutionID) names.MandateID {
	w.t.Helper()
	c := w.challenge(holder)
	o, err := w.service.Give(context.Background(), desk, w.token(c, giver, nil))
	if err != nil || !o.Accepted || o.Mandate != c.Mandate {
		w.t.Fatalf("%+v, %v", o, err)
	}
	return o.Mandate
}

func (w *world) mandate(id names.MandateID) *record.Mandate {
	w.t.Helper()
	m, err := record.NewView(&w.state).Mandate(id)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// A giver who shows its token has its mandate registered, once; attempt and outcome are
// journaled with who asked, who vouched, and what came of it.
func TestGive(t *testing.T) {
	w := newWorld(t, "town")
	c := w.challenge("centre")
	token := w.token(c, giver, nil)
	o, err := w.service.Give(t.Context(), desk, token)
	if err != nil || !o.Accepted || o.Mandate != c.Mandate || o.Index != w.index {
		t.Fatalf("%+v, %v", o, err)
	}
	m := w.mandate(o.Mandate)
	if m == nil || m.Giver != giver || m.Holder != "centre" || m.AuthLevel != 3 || !slices.Equal(m.Datasets, []names.DatasetID{"wages/v1"}) || m.Period != w.terms("centre").Period {
		t.Fatalf("%+v", m)
	}
	e := w.entries(nodepb.Event_MANDATE_GIVEN)
	if len(e) != 2 || e[0].Outcome != registrypb.Outcome_OUTCOME_UNSPECIFIED || e[1].Outcome != registrypb.Outcome_PERMIT || e[1].RegistryIndex != o.Index {
		t.Fatalf("journaled %v", e)
	}
	for _, e := range e {
		if e.Ticket != string(o.Ticket) || e.Application != "desk" || e.AuthLevel != 3 || e.GetMandate().GetId() != string(o.Mandate) || e.GetMandate().GetProvider() != recordtest.Provider {
			t.Errorf("journaled %v", e)
		}
	}
	if _, err := w.service.Give(t.Context(), desk, token); !errors.Is(err, ErrNoRight) || w.submitted != 1 {
		t.Errorf("the token serves twice: %v, %d commands", err, w.submitted)
	}
}

// A token that was not made for exactly this gives nothing: it is journaled, the registry
// is not asked, and the error says no more than that.
func TestNoRight(t *testing.T) {
	for name, try := range map[string]func(w *world, c *Challenge) []byte{
		"nothing":       func(*world, *Challenge) []byte { return nil },
		"garbage":       func(*world, *Challenge) []byte { return []byte("token") },
		"another giver": func(w *world, c *Challenge) []byte { return w.token(c, other, nil) },
		"another nonce": func(w *world, c *Challenge) []byte { c.Nonce = recordtest.Nonce(); return w.token(c, giver, nil) },
		"other terms":   func(w *world, c *Challenge) []byte { c.PayloadHash = recordtest.Nonce(); return w.token(c, giver, nil) },
		"another's terms": func(w *world, c *Challenge) []byte {
			c.PayloadHash = w.challenge("stranger").PayloadHash
			return w.token(c, giver, nil)
		},
		"another purpose": func(w *world, c *Challenge) []byte { c.Purpose = identity.MandateRevoke; return w.token(c, giver, nil) },
		"another node": func(w *world, c *Challenge) []byte {
			return w.token(c, giver, func(t *registrypb.IdentityToken) { t.Node.Node = "n2" })
		},
		"another mesh": func(w *world, c *Challenge) []byte {
			return w.token(c, giver, func(t *registrypb.IdentityToken) { t.Mesh = "other.example" })
		},
		"too weak": func(w *world, c *Challenge) []byte {
			return w.token(c, giver, func(t *registrypb.IdentityToken) { t.AuthLevel = 1 })
		},
		"expired": func(w *world, c *Challenge) []byte {
			return w.token(c, giver, func(t *registrypb.IdentityToken) { t.IssuedUnixMs, t.ExpiresUnixMs = w.w.Time-90_000, w.w.Time-30_000 })
		},
		"a stranger's": func(w *world, c *Challenge) []byte {
			return w.w.Token("town", string(c.Purpose), number(giver), nil, "stranger", func(t *registrypb.IdentityToken) { t.Nonce, t.PayloadHash = c.Nonce, c.PayloadHash })
		},
		"another provider's": func(w *world, c *Challenge) []byte {
			return w.token(c, giver, func(t *registrypb.IdentityToken) { t.Provider = "other" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "town")
			c := w.challenge("centre")
			o, err := w.service.Give(t.Context(), desk, try(w, c))
			if o != nil || !errors.Is(err, ErrNoRight) || err.Error() != ErrNoRight.Error() {
				t.Errorf("%+v, %v", o, err)
			}
			if e := w.entries(nodepb.Event_MANDATE_GIVEN); len(e) != 1 || e[0].Outcome != registrypb.Outcome_DENY || strings.Contains(e[0].Detail, giver.Number()) {
				t.Errorf("journaled %v", e)
			}
			if w.submitted != 0 || w.mandate(c.Mandate) != nil {
				t.Error("the registry was asked")
			}
		})
	}
	t.Run("another application", func(t *testing.T) {
		w := newWorld(t, "town")
		c := w.challenge("centre")
		thief := desk
		thief.Application = "portal"
		if _, err := w.service.Give(t.Context(), thief, w.token(c, giver, nil)); !errors.Is(err, ErrNoRight) || w.submitted != 0 {
			t.Errorf("%v", err)
		}
	})
}

// Its giver takes a mandate back by a token; its holder and its registrar without. What
// others say ended stands.
func TestTakenBack(t *testing.T) {
	t.Run("by its giver", func(t *testing.T) {
		w := newWorld(t, "town")
		id := w.give("centre")
		c, err := w.service.ChallengeRevocation(desk, id, giver)
		if err != nil {
			t.Fatal(err)
		}
		if o, err := w.service.Revoke(t.Context(), desk, w.token(c, giver, nil)); err != nil || !o.Accepted || o.Mandate != id {
			t.Fatalf("%+v, %v", o, err)
		}
		if m := w.mandate(id); !m.Revoked || !m.ByGiver {
			t.Errorf("%+v", m)
		}
		if e := w.entries(nodepb.Event_MANDATE_REVOKED); len(e) != 2 || e[1].Outcome != registrypb.Outcome_PERMIT {
			t.Errorf("journaled %v", e)
		}
	})
	t.Run("by a token to give", func(t *testing.T) {
		w := newWorld(t, "town")
		id := w.give("centre")
		if _, err := w.service.Revoke(t.Context(), desk, w.token(w.challenge("centre"), giver, nil)); !errors.Is(err, ErrNoRight) || w.mandate(id).Revoked {
			t.Errorf("%v", err)
		}
	})
	t.Run("by its registrar", func(t *testing.T) {
		w := newWorld(t, "town")
		id := w.give("centre")
		if o, err := w.service.End(t.Context(), desk, id, giver); err != nil || !o.Accepted || !w.mandate(id).Revoked || w.mandate(id).ByGiver {
			t.Errorf("%+v, %v", o, err)
		}
		if _, err := w.service.End(t.Context(), desk, "no id", giver); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v", err)
		}
	})
	t.Run("by a stranger", func(t *testing.T) {
		w := newWorld(t, "stranger")
		terms := w.w.Terms("town", "m-1", giver.Number(), "centre", "inquiry", "wages/v1")
		if r := w.do(w.w.Command("town", w.w.Mandate("town", terms))); !r.Accepted {
			t.Fatal(r.Refusal)
		}
		if _, err := w.service.End(t.Context(), desk, "town/m-1", giver); err != nil || w.mandate("town/m-1").Revoked {
			t.Errorf("a stranger ends it: %v", err)
		}
	})
}

// What cannot be is refused before a giver comes for nothing, and repeats no number.
func TestMalformedTerms(t *testing.T) {
	w := newWorld(t, "town")
	for name, spoil := range map[string]func(*Terms){
		"no dataset":    func(x *Terms) { x.Datasets = nil },
		"dataset":       func(x *Terms) { x.Datasets = []names.DatasetID{"W"} },
		"purpose":       func(x *Terms) { x.Purpose = "" },
		"holder":        func(x *Terms) { x.Holder = "N S" },
		"no such":       func(x *Terms) { x.Holder = "nobody" },
		"backwards":     func(x *Terms) { x.Period.Until = x.Period.From - 1 },
		"for ever":      func(x *Terms) { x.Period.Until = names.Forever },
		"a day too far": func(x *Terms) { x.Period.Until = names.DateOf(w.now().UTC()) + record.MaxMandateDays + 1 },
	} {
		x := w.terms("centre")
		spoil(&x)
		if _, err := w.service.Challenge(desk, x); !errors.Is(err, ErrMalformed) || strings.Contains(fmt.Sprint(err), giver.Number()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	x := w.terms("centre")
	x.Period.Until = names.DateOf(w.now().UTC()) + record.MaxMandateDays
	if _, err := w.service.Challenge(desk, x); err != nil {
		t.Errorf("the last day that is allowed: %v", err)
	}
}

// Nothing is done that cannot be journaled, and nothing answered.
func TestJournalFails(t *testing.T) {
	for at := 1; at <= 2; at++ {
		w := newWorld(t, "town")
		c := w.challenge("centre")
		w.appends = at
		if o, err := w.service.Give(t.Context(), desk, w.token(c, giver, nil)); o != nil || !errors.Is(err, ErrJournal) {
			t.Errorf("append %d: %+v, %v", at, o, err)
		}
		if (w.submitted > 0) != (at > 1) {
			t.Errorf("append %d: %d commands", at, w.submitted)
		}
	}
	w := newWorld(t, "town")
	w.appends = 1
	if _, err := w.service.Give(t.Context(), desk, nil); !errors.Is(err, ErrJournal) {
		t.Errorf("a refusal: %v", err)
	}
	for name, ask := range map[string]func() error{
		"list": func() error { _, _, err := w.service.List(t.Context(), desk, subject.ID{}); return err },
		"serve": func() error {
			_, err := w.service.Serve(t.Context(), names.NodeID{Institution: "centre", Node: "n1"}, nil)
			return err
		},
	} {
		if w.appends = 1; !errors.Is(ask(), ErrJournal) {
			t.Errorf("%s is answered", name)
		}
	}
}

// When the registry does not answer, the journal says that nobody knows; a view that may be
// stale admits nobody; what the registry refuses changes nothing, and its words are told.
func TestRegistryFails(t *testing.T) {
	w := newWorld(t, "town")
	c := w.challenge("centre")
	w.silent = true
	if _, err := w.service.Give(t.Context(), desk, w.token(c, giver, nil)); !errors.Is(err, errOff) {
		t.Fatalf("%v", err)
	}
	if e := w.entries(nodepb.Event_MANDATE_GIVEN); len(e) != 2 || e[1].Outcome != registrypb.Outcome_OUTCOME_UNSPECIFIED || !strings.Contains(e[1].Detail, "not known") {
		t.Errorf("journaled %v", e)
	}
	w.silent, w.stale = false, true
	c = w.challenge("centre")
	token := w.token(c, giver, nil)
	if _, err := w.service.Give(t.Context(), desk, token); !errors.Is(err, lease.ErrStale) {
		t.Fatalf("%v", err)
	}
	if _, err := w.service.Serve(t.Context(), names.NodeID{Institution: "centre", Node: "n1"}, nil); !errors.Is(err, lease.ErrStale) {
		t.Errorf("a stale view is served: %v", err)
	}
	w.stale = false
	w.do(w.w.Admit(&registrypb.Institution{Id: "college", Type: "college", Sector: "health", ManagingBody: true}))
	w.do(w.w.Command(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: &registrypb.Institution{Id: "centre", Name: "centre", Type: "office", Sector: "health"}}))
	o, err := w.service.Give(t.Context(), desk, token)
	if err != nil || o.Accepted || !strings.Contains(o.Refusal, "managing body") || w.mandate(c.Mandate) != nil {
		t.Fatalf("%+v, %v", o, err)
	}
	e := w.entries(nodepb.Event_MANDATE_GIVEN)
	if last := e[len(e)-1]; last.Outcome != registrypb.Outcome_DENY {
		t.Errorf("journaled %v", last)
	}
}

// A node that is no member asks one after the other; what it is told counts if it is its
// own, and newer than what it knows. With no answer the list says that it is not complete.
func TestList(t *testing.T) {
	w := newWorld(t, "town")
	own, held := w.give("centre"), w.give("town")
	list := func(about subject.ID) ([]*record.Mandate, bool) {
		all, complete, err := w.service.List(t.Context(), desk, about)
		if err != nil {
			t.Fatal(err)
		}
		return all, complete
	}
	all, complete := list(subject.ID{})
	if len(all) != 2 || complete {
		t.Errorf("%d mandates, complete %t, though no member answers", len(all), complete)
	}
	ended := *w.mandate(held)
	ended.Revoked, ended.ByGiver = true, true
	fresh := *w.mandate(held)
	fresh.ID, fresh.Giver = "centre/m-9", other
	foreign := fresh
	foreign.ID, foreign.Holder = "centre/m-8", "stranger"
	bad := fresh
	bad.ID = "no id"
	asked := 0
	w.peers = func(to names.NodeID) (*nodepb.MandatesResponse, error) {
		if asked++; asked == 1 {
			return nil, errOff
		}
		return &nodepb.MandatesResponse{Mandates: []*nodepb.HeldMandate{Wire(&ended), Wire(&fresh), Wire(&foreign), Wire(&bad)}}, nil
	}
	all, complete = list(subject.ID{})
	var ids []names.MandateID
	for _, m := range all {
		ids = append(ids, m.ID)
		if m.ID == held && !m.Revoked {
			t.Error("what a member knows to be revoked is listed as in force")
		}
	}
	want := []names.MandateID{own, held, "centre/m-9"}
	slices.Sort(want)
	if !slices.Equal(ids, want) || !complete || asked != 2 {
		t.Errorf("%v, complete %t, asked %d", ids, complete, asked)
	}
	if all, _ := list(other); len(all) != 1 || all[0].ID != "centre/m-9" {
		t.Errorf("of one subject %d are listed", len(all))
	}
	w.peers = func(names.NodeID) (*nodepb.MandatesResponse, error) { return &nodepb.MandatesResponse{More: true}, nil }
	if _, complete := list(subject.ID{}); complete {
		t.Error("complete, though there are more")
	}
	if e := w.entries(nodepb.Event_READ); len(e) != 4 || e[3].GetSubject() != nil || e[2].GetSubject() == nil && e[1].GetSubject() == nil {
		t.Errorf("reading is journaled as %v", e)
	}
}

// A member tells an institution what that may use, and of no other's.
func TestServe(t *testing.T) {
	w := newWorld(t, "town")
	id := w.give("centre")
	for inst, n := range map[names.InstitutionID]int{"centre": 1, "town": 0, "stranger": 0} {
		resp, err := w.service.Serve(t.Context(), names.NodeID{Institution: inst, Node: "n1"}, new(nodepb.MandatesRequest))
		if err != nil || len(resp.Mandates) != n {
			t.Fatalf("%s is told %d, %v", inst, len(resp.GetMandates()), err)
		}
		if n == 1 && resp.Mandates[0].Id != string(id) {
			t.Error(resp)
		}
	}
}

// What one node tells another is what it knows.
func TestWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &record.Mandate{
			ID: names.MandateID(rapid.String().Draw(t, "id")), Giver: subject.Raw("ssin", rapid.StringN(1, 20, 20).Draw(t, "giver")), Holder: names.InstitutionID(rapid.String().Draw(t, "holder")),
			Purpose: names.Purpose(rapid.String().Draw(t, "purpose")), Period: names.Period{From: names.Date(rapid.Int32().Draw(t, "from")), Until: names.Date(rapid.Int32().Draw(t, "until"))},
			Provider: names.ProviderID(rapid.String().Draw(t, "provider")), AuthLevel: rapid.Uint32().Draw(t, "level"),
			Given: time.UnixMilli(rapid.Int64Range(-1<<40, 1<<45).Draw(t, "given")).UTC(), Vouched: rapid.Bool().Draw(t, "vouched"), Revoked: rapid.Bool().Draw(t, "revoked"),
			RevokedBy: names.InstitutionID(rapid.String().Draw(t, "by")), ByGiver: rapid.Bool().Draw(t, "by giver"),
		}
		for _, d := range rapid.SliceOf(rapid.String()).Draw(t, "datasets") {
			m.Datasets = append(m.Datasets, names.DatasetID(d))
		}
		if rapid.Bool().Draw(t, "for another") {
			m.OnBehalf = subject.Raw("cbe", rapid.StringN(1, 20, 20).Draw(t, "other"))
		}
		raw, err := proto.MarshalOptions{AllowPartial: true}.Marshal(Wire(m))
		if err != nil {
			t.Fatal(err)
		}
		h := new(nodepb.HeldMandate)
		if err := proto.Unmarshal(raw, h); err != nil {
			t.Fatal(err)
		}
		if got := FromWire(h); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", m) {
			t.Fatalf("%+v, want %+v", got, m)
		}
	})
}

// FuzzAnswer gives a list whatever a member may answer: it holds nothing that is not this
// institution's, and is bounded.
func FuzzAnswer(f *testing.F) {
	raw, err := proto.Marshal(&nodepb.MandatesResponse{Mandates: []*nodepb.HeldMandate{{Id: "town/m-1", Holder: "town"}, {Holder: "town"}, {Id: "a/m-1", Holder: "centre"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	w := newWorld(f, "town")
	f.Fuzz(func(t *testing.T, raw []byte) {
		resp := new(nodepb.MandatesResponse)
		if proto.Unmarshal(raw, resp) != nil {
			return
		}
		w.peers = func(names.NodeID) (*nodepb.MandatesResponse, error) { return resp, nil }
		all, _, err := w.service.List(t.Context(), desk, subject.ID{})
		if err != nil || len(all) > MaxListed {
			t.Fatalf("%d, %v", len(all), err)
		}
		for _, m := range all {
			if m.Holder != "town" || m.ID.Validate() != nil {
				t.Errorf("%+v", m)
			}
		}
	})
}
