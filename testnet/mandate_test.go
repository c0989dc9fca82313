package testnet

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/mandate"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// TestMandatesAndSecondPeers attacks both on one network of real nodes.
func TestMandatesAndSecondPeers(t *testing.T) {
	t.Parallel()
	notShort(t)
	n := start(t, Options{Persons: 4000})
	t.Run("a mandate is what its giver agreed to", func(t *testing.T) { forgedMandates(t, n) })
	t.Run("a revoked mandate opens nothing", func(t *testing.T) { revokedMandate(t, n) })
	t.Run("two clear, or nobody", func(t *testing.T) { twoClear(t, n) })
}

const portal names.InstitutionID = "fpd"

// indebted is a question that takes a mandate, about somebody on whom there is data.
func indebted(t testing.TB, n *Network) data.Consultation {
	t.Helper()
	for p := range n.World().Persons() {
		c := data.Consultation{Requester: "pcsa-ghent", Purpose: "debt-mediation", Dataset: "wages-quarterly/v1", Scheme: subject.SSIN,
			Number: p.SSIN.Number(), Period: names.Period{From: data.Today - 364, Until: data.Today}, Mandate: true}
		if n.World().Expected(c, names.DateOf(time.Now().UTC())).Status == nodepb.Status_DATA_FOUND {
			return c
		}
	}
	t.Fatal("nobody is in debt and at work")
	return data.Consultation{}
}

func termsFor(c data.Consultation) api.MandateTerms {
	today := names.DateOf(time.Now().UTC())
	return api.MandateTerms{
		Giver: api.Subject{Scheme: "ssin", Number: c.Number}, Holder: c.Requester, Purpose: c.Purpose, Datasets: []names.DatasetID{c.Dataset},
		Period: &names.Period{From: today, Until: today + 30},
	}
}

// token has the test provider attest that who agreed to a challenge, changed.
func (n *Network) token(t testing.TB, c *mandate.Challenge, who api.Subject, change func(*registrypb.IdentityToken)) []byte {
	t.Helper()
	raw, err := Identify(n.layout.providerFile(), &reading.Challenge{Mesh: c.Mesh, Node: c.Node, Purpose: c.Purpose, Nonce: c.Nonce, PayloadHash: c.PayloadHash}, who, change)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (n *Network) challenge(ctx context.Context, t testing.TB, at names.InstitutionID, in api.MandateChallenge) *mandate.Challenge {
	t.Helper()
	c, err := n.Client(at).MandateChallenge(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (n *Network) give(ctx context.Context, t testing.TB, terms api.MandateTerms) names.MandateID {
	t.Helper()
	c := n.challenge(ctx, t, portal, api.MandateChallenge{Terms: &terms})
	token := n.token(t, c, terms.Giver, nil)
	var done api.MandateSubmitted
	err := patiently(ctx, func(ctx context.Context) (err error) {
		done, err = n.Client(portal).GiveMandate(ctx, token)
		return err
	})
	if err != nil || !done.Accepted {
		t.Fatalf("%+v, %v", done, err)
	}
	return done.Mandate
}

func forgedMandates(t *testing.T, n *Network) {
	ctx := within(t)
	ask := indebted(t, n)
	terms := termsFor(ask)
	stranger := api.Subject{Scheme: "ssin", Number: n.World().Person(0).SSIN.Number()}
	if stranger.Number == ask.Number {
		stranger.Number = n.World().Person(1).SSIN.Number()
	}
	hash := make([]byte, 32)
	for what, c := range map[string]struct {
		who    api.Subject
		change func(*registrypb.IdentityToken)
		at     names.InstitutionID
	}{
		"another person's token":       {stranger, nil, portal},
		"shown at another institution": {terms.Giver, nil, "nsso"},
		"made out to another node":     {terms.Giver, func(x *registrypb.IdentityToken) { x.Node.Institution = "nsso" }, portal},
		"for something else":           {terms.Giver, func(x *registrypb.IdentityToken) { x.PayloadHash = hash }, portal},
		"to look, not to give":         {terms.Giver, func(x *registrypb.IdentityToken) { x.Purpose = "subject-view" }, portal},
		"with a nonce of its own":      {terms.Giver, func(x *registrypb.IdentityToken) { x.Nonce = hash }, portal},
		"too weak":                     {terms.Giver, func(x *registrypb.IdentityToken) { x.AuthLevel = 1 }, portal},
		"expired":                      {terms.Giver, func(x *registrypb.IdentityToken) { x.IssuedUnixMs -= 900_000; x.ExpiresUnixMs -= 900_000 }, portal},
		"of another provider":          {terms.Giver, func(x *registrypb.IdentityToken) { x.Provider = "other" }, portal},
	} {
		challenge := n.challenge(ctx, t, portal, api.MandateChallenge{Terms: &terms})
		done, err := n.Client(c.at).GiveMandate(ctx, n.token(t, challenge, c.who, c.change))
		if !api.IsProblem(err, api.CodeForbidden) {
			t.Errorf("%s: %+v, %v", what, done, err)
		}
	}
	challenge := n.challenge(ctx, t, portal, api.MandateChallenge{Terms: &terms})
	token := n.token(t, challenge, terms.Giver, nil)
	if done, err := n.Client(portal).RevokeMandate(ctx, api.MandateRevocation{Token: token}); !api.IsProblem(err, api.CodeForbidden) {
		t.Errorf("a token to give, shown to revoke: %+v, %v", done, err)
	}
	challenge = n.challenge(ctx, t, portal, api.MandateChallenge{Terms: &terms}) // that nonce is used up
	for i := range 2 {                                                           // once it serves, and then no more
		done, err := n.Client(portal).GiveMandate(ctx, n.token(t, challenge, terms.Giver, nil))
		if used := api.IsProblem(err, api.CodeForbidden); used != (i > 0) {
			t.Errorf("shown %d times: %+v, %v", i+1, done, err)
		}
	}
	if got, err := n.expect(ctx, ask, n.World().Expected(ask, names.DateOf(time.Now().UTC()))); err != nil {
		t.Errorf("with the one that stands: %+v, %v", got, err)
	}
	// Whoever has no mandate for this learns nothing by another's.
	other := ask
	other.Dataset, other.Mandate = "pension-rights/v1", false
	if got, err := n.Consult(ctx, other, ""); err != nil || got.Status != "NO_RESULT" {
		t.Errorf("another dataset: %+v, %v", got, err)
	}
	list, err := n.Client(ask.Requester).FindMandates(ctx, api.MandateQuery{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Holder != ask.Requester || !list.Items[0].InForce {
		t.Fatalf("its holder's list: %+v, %v", list, err)
	}
	if list, err := n.Client("nsso").FindMandates(ctx, api.MandateQuery{}); err != nil || len(list.Items) != 0 {
		t.Errorf("the supplier's list: %+v, %v", list, err)
	}
	// The holder gives it up, which leaves the next test none.
	done, err := n.Client(ask.Requester).RevokeMandate(ctx, api.MandateRevocation{Revoke: &api.MandateToRevoke{Mandate: list.Items[0].ID, Giver: terms.Giver}})
	if err != nil || !done.Accepted {
		t.Errorf("given up: %+v, %v", done, err)
	}
}

// revokedMandate asks without pause while the giver takes the mandate back: once that is
// acknowledged, nothing that is asked brings anything, by whichever member it is cleared.
func revokedMandate(t *testing.T, n *Network) {
	ctx := within(t)
	ask := indebted(t, n)
	terms := termsFor(ask)
	id := n.give(ctx, t, terms)
	var mu sync.Mutex
	var begun []time.Time // of questions that brought data
	tickets := map[names.Ticket]bool{}
	asking, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for asking.Err() == nil {
				at := time.Now()
				got, err := n.Consult(asking, ask, "")
				if err == nil && got.Status == "DATA_FOUND" {
					mu.Lock()
					begun = append(begun, at)
					tickets[got.Ticket] = true
					mu.Unlock()
				}
			}
		})
	}
	c := n.challenge(ctx, t, portal, api.MandateChallenge{Revoke: &api.MandateToRevoke{Mandate: id, Giver: terms.Giver}})
	revocation := api.MandateRevocation{Token: n.token(t, c, terms.Giver, nil)}
	var done api.MandateSubmitted
	err := patiently(ctx, func(ctx context.Context) (err error) {
		done, err = n.Client(portal).RevokeMandate(ctx, revocation)
		return err
	})
	acknowledged := time.Now()
	if err != nil || !done.Accepted {
		t.Fatalf("%+v, %v", done, err)
	}
	for range 20 {
		got, err := n.expect(ctx, ask, data.Answer{Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_MANDATE_MISSING})
		if err != nil {
			t.Errorf("after it was revoked: %+v, %v", got, err)
		}
	}
	stop()
	all.Wait()
	if len(begun) == 0 {
		t.Error("before it was revoked, nothing was answered: this test shows nothing")
	}
	late := slices.DeleteFunc(slices.Clone(begun), func(at time.Time) bool { return at.Before(acknowledged) })
	if len(late) > 0 {
		t.Errorf("%d questions that began after the revocation was acknowledged brought data", len(late))
	}
	t.Logf("%d questions were answered before", len(begun))
	for ticket := range tickets { // one that was answered under it is traced, and decided again as of then
		story := checkTrace(t, n, ask.Requester, ticket)
		if story == nil || story.Exchanges[0].Mandate == nil || story.Exchanges[0].Mandate.ID != id {
			t.Errorf("the trace of %s names another mandate", ticket)
		}
		break
	}
}

func twoClear(t *testing.T, n *Network) {
	ctx := within(t)
	committee, err := n.Committee(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var rows []*registrypb.Authorization
	for _, z := range n.World().Authorizations() {
		for id, purpose := range map[string]string{"demo-002-increased-reimbursement": "two-of-three", "demo-003-pension-rights": "two-of-two"} {
			if z.Id == id {
				z.Id, z.Purpose, z.SecondClearingPeer = "two-"+id, purpose, true
				rows = append(rows, z)
				break
			}
		}
	}
	for _, z := range rows {
		if err := do(ctx, committee, &registrypb.Command{Body: &registrypb.Command_SetAuthorization{SetAuthorization: z}}); err != nil {
			t.Fatal(err)
		}
	}
	if len(rows) != 2 {
		t.Fatalf("%d rows", len(rows))
	}
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	e := n.Examples()[0] // the energy regulator asks about increased reimbursement
	ask := e.Consultation
	ask.Purpose = "two-of-three"
	got, err := n.Consult(ctx, ask, "")
	if err != nil || got.Status != "DATA_FOUND" {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, reader := range []names.InstitutionID{ask.Requester, e.Answer.Suppliers[0].Supplier} {
		story := checkTrace(t, n, reader, got.Ticket)
		if story == nil {
			continue
		}
		x := story.Exchanges[0]
		again := 0
		for _, f := range story.Findings {
			if f.Kind == trace.Redecided {
				again++
			}
		}
		if len(story.Exchanges) != 1 || x.SecondClearer == "" || x.SecondClearer == x.Clearer || len(story.Journals) != 4 || again == 0 {
			t.Errorf("%s reads: %d exchanges, cleared by %s and %s, %d journals, decided again: %v", reader, len(story.Exchanges), x.Clearer, x.SecondClearer, len(story.Journals), story.Findings)
		}
		t.Logf("%s reads %v", reader, story.Findings)
	}
	checkReceipt(t, n, ask.Requester, got.Ticket)

	// A member asks another member: the third is the only one that is no party.
	for p := range n.World().Persons() {
		c := data.Consultation{Requester: "neo", Purpose: "unemployment-control", Dataset: "pension-rights/v1", Scheme: subject.SSIN, Number: p.SSIN.Number(),
			Period: names.Period{From: data.Today - 9*365, Until: data.Today}}
		if n.World().Expected(c, names.DateOf(time.Now().UTC())).Status != nodepb.Status_DATA_FOUND {
			continue
		}
		c.Purpose = "two-of-two"
		got, err := n.expect(ctx, c, data.Answer{Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_NO_ELIGIBLE_CLEARER})
		if err != nil {
			t.Errorf("with one clearing peer: %+v, %v", got, err)
		}
		if story, err := n.Client("neo").Trace(ctx, got.Ticket); err != nil || story.Verdict == trace.Contradicted {
			t.Errorf("its trace: %+v, %v", story, err)
		}
		return
	}
	t.Error("no life for the second question")
}
