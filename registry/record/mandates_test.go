package record_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var giver, stranger = recordtest.Person(1), recordtest.Person(2)

// mandated is a registry with a provider, in which giver let office ask for wages; register
// registered that.
func mandated(t *testing.T) (*replica, *registrypb.MandateTerms) {
	t.Helper()
	r := founded(t)
	r.ok(r.w.SetProvider())
	terms := r.w.Terms("register", "m-1", giver, "office", "inquiry", "wages/v1")
	if res := r.ok(r.w.Command("register", r.w.Mandate("register", terms))); res.Public || res.RemovesRight || res.Kind != "give_mandate" {
		t.Errorf("result %+v", res)
	}
	return r, terms
}

// draft signs a command that is to be refused, so that its chain does not move.
func (r *replica) draft(author string, body any) []byte {
	return r.w.Sign(r.w.Draft(author, body), recordtest.Signers(author)...)
}

func (r *replica) mandate(id names.MandateID) *record.Mandate {
	r.t.Helper()
	m, err := record.NewView(r.state).Mandate(id)
	if err != nil || m == nil {
		r.t.Fatalf("mandate %s: %v, %v", id, m, err)
	}
	return m
}

func today(r *replica) names.Date { return names.Date(r.w.Time / 86_400_000) }

func TestMandate(t *testing.T) {
	r, terms := mandated(t)
	m := r.mandate("register/m-1")
	if m.Giver != id(giver) || m.Holder != "office" || m.Provider != recordtest.Provider || m.AuthLevel != 3 || !m.Vouched || m.Revoked ||
		!m.InForce(today(r)) || m.InForce(today(r)-1) || m.InForce(today(r)+101) {
		t.Errorf("%+v", m)
	}
	for _, c := range []struct {
		holder  names.InstitutionID
		purpose names.Purpose
		dataset names.DatasetID
		opens   bool
	}{{"office", "inquiry", "wages/v1", true}, {"register", "inquiry", "wages/v1", false}, {"office", "other", "wages/v1", false}, {"office", "inquiry", "pensions/v1", false}} {
		if m.Opens(c.holder, c.purpose, c.dataset) != c.opens {
			t.Errorf("opens to %+v", c)
		}
	}
	v := record.NewView(r.state)
	for what, list := range map[string]func() ([]*record.Mandate, error){
		"of the giver": func() ([]*record.Mandate, error) { return v.MandatesOf(id(giver)) },
		"held":         func() ([]*record.Mandate, error) { return v.MandatesHeld("office") },
		"registered":   func() ([]*record.Mandate, error) { return v.MandatesRegistered("register") },
	} {
		if all, err := list(); err != nil || len(all) != 1 || all[0].ID != "register/m-1" {
			t.Errorf("%s: %v, %v", what, all, err)
		}
	}
	if all, err := v.MandatesOf(id(stranger)); err != nil || len(all) != 0 {
		t.Errorf("of a stranger: %v, %v", all, err)
	}
	r.refused(r.draft("register", r.w.Mandate("register", terms)), "exists and never changes")
}

// TestForgedMandates: whatever the token was not given for.
func TestForgedMandates(t *testing.T) {
	r := founded(t)
	r.ok(r.w.SetProvider())
	w := r.w
	good := func() *registrypb.MandateTerms {
		return w.Terms("register", "m-1", giver, "office", "inquiry", "wages/v1")
	}
	body := func(terms *registrypb.MandateTerms, signer string, change func(*registrypb.IdentityToken)) any {
		raw, _ := proto.Marshal(terms)
		return &registrypb.Command_GiveMandate{GiveMandate: &registrypb.Mandate{Terms: raw, Token: w.Token("register", record.MandateGive, terms.Giver, raw, signer, change)}}
	}
	for what, c := range map[string]struct {
		terms  func(*registrypb.MandateTerms)
		token  func(*registrypb.IdentityToken)
		signer string
		why    string
	}{
		"another subject's token": {nil, func(t *registrypb.IdentityToken) { t.Subject = recordtest.SSIN(stranger) }, "", "not the giver"},
		"another node's token":    {nil, func(t *registrypb.IdentityToken) { t.Node.Institution = "office" }, "", "another institution's node"},
		"another purpose":         {nil, func(t *registrypb.IdentityToken) { t.Purpose = "subject-view" }, "", "another purpose"},
		"a revoking token":        {nil, func(t *registrypb.IdentityToken) { t.Purpose = record.MandateRevoke }, "", "another purpose"},
		"other terms":             {nil, func(t *registrypb.IdentityToken) { t.PayloadHash = bytes.Repeat([]byte{1}, 32) }, "", "other terms"},
		"another mesh":            {nil, func(t *registrypb.IdentityToken) { t.Mesh = "other.mesh" }, "", "another mesh"},
		"too weak":                {nil, func(t *registrypb.IdentityToken) { t.AuthLevel = 1 }, "", "too weakly"},
		"a level not attested":    {nil, func(t *registrypb.IdentityToken) { t.AuthLevel = 4 }, "", "no provider"},
		"expired": {nil, func(t *registrypb.IdentityToken) {
			t.IssuedUnixMs -= 3_600_000
			t.ExpiresUnixMs = t.IssuedUnixMs + 60_000
		}, "", "not in force"},
		"from the future": {nil, func(t *registrypb.IdentityToken) {
			t.IssuedUnixMs += 3_600_000
			t.ExpiresUnixMs += 3_600_000
		}, "", "not in force"},
		"for ever":             {nil, func(t *registrypb.IdentityToken) { t.ExpiresUnixMs += 3_600_000 }, "", "longer than a token may"},
		"forged":               {nil, nil, "stray", "no provider"},
		"by another provider":  {nil, func(t *registrypb.IdentityToken) { t.Provider = "other" }, "", "no provider"},
		"unknown content":      {nil, func(t *registrypb.IdentityToken) { t.ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 1}) }, "", "malformed"},
		"no nonce":             {nil, func(t *registrypb.IdentityToken) { t.Nonce = nil }, "", "malformed"},
		"another's name":       {func(m *registrypb.MandateTerms) { m.Id = "office/m-1" }, nil, "", "under its own name"},
		"no name":              {func(m *registrypb.MandateTerms) { m.Id = "m-1" }, nil, "", "institution/label"},
		"a holder that is not": {func(m *registrypb.MandateTerms) { m.Holder = "nobody" }, nil, "", "not admitted"},
		"no datasets":          {func(m *registrypb.MandateTerms) { m.Datasets = nil }, nil, "", "datasets"},
		"a bad enterprise": {func(m *registrypb.MandateTerms) {
			m.OnBehalf = &registrypb.Subject{Scheme: "cbe", Number: "0412345615"}
		}, nil, "", "row 1"},
		"a bad number":       {func(m *registrypb.MandateTerms) { m.Giver = recordtest.SSIN("74071238187") }, nil, "", "row 1"},
		"no period":          {func(m *registrypb.MandateTerms) { m.Period = nil }, nil, "", "period"},
		"too long":           {func(m *registrypb.MandateTerms) { m.Period.Until = int32(today(r)) + record.MaxMandateDays + 1 }, nil, "", "at most 366 days"},
		"for ever and a day": {func(m *registrypb.MandateTerms) { m.Period.Until = int32(names.Forever) }, nil, "", "at most 366 days"},
	} {
		t.Run(what, func(t *testing.T) {
			terms := good()
			if c.terms != nil {
				c.terms(terms)
			}
			if c.signer == "" {
				c.signer = recordtest.Provider
			}
			r.refused(r.draft("register", body(terms, c.signer, c.token)), c.why)
		})
	}
	r.refused(r.draft("register", &registrypb.Command_GiveMandate{GiveMandate: &registrypb.Mandate{}}), "mandate")
	r.refused(r.draft(record.Operators, r.w.Mandate("register", good())), "may not write")
	r.ok(w.Command("register", r.w.Mandate("register", good()))) // as it should be
}

// TestRevocations: by whom it counts, and by whom not.
func TestRevocations(t *testing.T) {
	for what, c := range map[string]struct {
		author, giver string
		token         bool
		counts        bool
	}{
		"the giver, where it was registered": {"register", giver, true, true},
		"the giver, elsewhere":               {"alpha", giver, true, true},
		"the holder":                         {"office", giver, false, true},
		"who registered it":                  {"register", giver, false, true},
		"a third, without the giver":         {"alpha", giver, false, false},
		"another subject":                    {"alpha", stranger, true, false},
		"the holder, of another subject's":   {"office", stranger, false, false},
	} {
		t.Run(what, func(t *testing.T) {
			r, _ := mandated(t)
			res := r.ok(r.w.Command(c.author, r.w.Revocation(c.author, "register/m-1", c.giver, c.token)))
			if !res.RemovesRight || res.Public {
				t.Errorf("result %+v", res)
			}
			m := r.mandate("register/m-1")
			if m.Revoked != c.counts || m.InForce(today(r)) == c.counts || c.counts && (string(m.RevokedBy) != c.author || m.ByGiver != c.token) {
				t.Errorf("%+v", m)
			}
			// What did not count does not keep from what does.
			if !c.token && !c.counts {
				r.ok(r.w.Command(c.author, r.w.Revocation(c.author, "register/m-1", giver, true)))
				if !r.mandate("register/m-1").Revoked {
					t.Error("the giver's own word did not count after that")
				}
			}
		})
	}
	r, terms := mandated(t)
	forged := r.w.Revocation("alpha", "register/m-1", giver, true)
	forged.RevokeMandate.Token = r.w.Token("alpha", record.MandateRevoke, recordtest.SSIN(giver), forged.RevokeMandate.Terms, "stray", nil)
	r.refused(r.draft("alpha", forged), "no provider")
	given := r.w.Revocation("register", "register/m-1", giver, false)
	given.RevokeMandate.Token = r.w.Mandate("register", terms).GiveMandate.Token
	r.refused(r.draft("register", given), "another purpose")
	r.ok(r.w.Command("register", r.w.Revocation("register", "register/m-1", giver, false)))
	r.refused(r.draft("register", r.w.Revocation("register", "register/m-1", giver, false)), "before")
}

// TestMandateWithItsProvider: a provider that is retired vouches for nothing any more, and
// what it vouched for is a right that falls away.
func TestMandateWithItsProvider(t *testing.T) {
	r, _ := mandated(t)
	p := &registrypb.IdentityProvider{Id: recordtest.Provider, Name: "Portal", PublicKeys: [][]byte{recordtest.Public("next")}, Levels: []uint32{1, 2, 3}}
	if res := r.ok(r.w.Command(record.Operators, &registrypb.Command_SetIdentityProvider{SetIdentityProvider: p})); !res.RemovesRight {
		t.Error("a key went, and nobody waits for that")
	}
	if m := r.mandate("register/m-1"); m.Vouched || m.InForce(today(r)) {
		t.Errorf("%+v", m)
	}
}

// TestMandateOfAReplacedNumber: the giver's number was replaced: it is the same giver.
func TestMandateOfAReplacedNumber(t *testing.T) {
	r, _ := mandated(t)
	r.ok(r.w.Command("register", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
		{Subject: recordtest.SSIN(giver), Kind: registrypb.NumberEvent_REPLACED, Successor: recordtest.SSIN(stranger), Date: 19000}}}}))
	all, err := record.NewView(r.state).MandatesOf(id(stranger))
	if err != nil || len(all) != 1 || all[0].Giver != id(giver) {
		t.Fatalf("%v, %v", all, err)
	}
	r.ok(r.w.Command("alpha", r.w.Revocation("alpha", "register/m-1", stranger, true)))
	if !r.mandate("register/m-1").Revoked {
		t.Error("under the new number it could not be revoked")
	}
}

// TestMandatesAsTheyWere: what was in force at an index is found again, also after it was
// revoked, and when another subject's mandates changed since nothing is replayed.
func TestMandatesAsTheyWere(t *testing.T) {
	r, _ := mandated(t)
	if err := record.SetAppliedIndex(r.state, r.index); err != nil {
		t.Fatal(err)
	}
	given := r.index
	r.ok(r.w.Command("register", r.w.Mandate("register", r.w.Terms("register", "m-2", stranger, "office", "inquiry", "wages/v1"))))
	r.ok(r.w.Command("alpha", r.w.Revocation("alpha", "register/m-1", giver, true)))
	if err := record.SetAppliedIndex(r.state, r.index); err != nil {
		t.Fatal(err)
	}
	for index, revoked := range map[uint64]bool{given: false, r.index: true} {
		past, err := record.NewView(r.state).AsOf(r.w.Rules, index, id(giver), func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		all, err := past.MandatesOf(id(giver))
		if err != nil || len(all) != 1 || all[0].Revoked != revoked || !all[0].Vouched {
			t.Errorf("at %d: %+v, %v", index, all, err)
		}
	}
	past, err := record.NewView(r.state).AsOf(r.w.Rules, given-1, id(giver), func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if all, err := past.MandatesOf(id(giver)); err != nil || len(all) != 0 {
		t.Errorf("before it was given: %v, %v", all, err)
	}
}

func FuzzMandate(f *testing.F) {
	f.Add([]byte("x"), []byte("y"))
	f.Fuzz(func(t *testing.T, terms, token []byte) {
		r := founded(t)
		for _, body := range []any{
			&registrypb.Command_GiveMandate{GiveMandate: &registrypb.Mandate{Terms: terms, Token: token}},
			&registrypb.Command_RevokeMandate{RevokeMandate: &registrypb.MandateRevocation{Terms: terms, Token: append(token, 1)}},
		} {
			res := r.apply(r.draft("register", body))
			if res.Accepted || strings.Contains(res.Refusal, giver) {
				t.Errorf("%+v", res)
			}
		}
	})
}
