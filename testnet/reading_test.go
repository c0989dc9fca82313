package testnet

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// scene is a network in which something happened to a person: one consultation that
// brought data, and one that was refused.
type scene struct {
	t        *testing.T
	n        *Network
	asked    data.Consultation
	ticket   names.Ticket
	refused  names.Ticket
	outsider names.InstitutionID // who was refused
	portal   names.InstitutionID // a node that is no party to the first
}

// TestReadings is flows 12 and 13 of the demonstration: a citizen lists who looked,
// and the committee follows a complaint; and whoever tries it without the right.
func TestReadings(t *testing.T) {
	t.Parallel()
	s := &scene{t: t, n: start(t, Options{Nodes: 7, Members: 3})}
	s.happen()
	t.Run("a subject lists who looked", s.subjectLists)
	t.Run("without the right, nothing", s.withoutTheRight)
	t.Run("a retired provider is believed by nobody", s.retiredProvider)
	t.Run("an officer sees his own users", s.officer)
	t.Run("an inspection order finds it", s.inspection)
	t.Run("an order that is none", s.badOrders)
	t.Run("who cannot be reached is named", s.unreached)
}

func (s *scene) happen() {
	s.t.Helper()
	for _, e := range s.n.Examples() {
		if e.Answer.Status != nodepb.Status_DATA_FOUND || e.Scheme != subject.SSIN {
			continue
		}
		got, err := s.n.expect(within(s.t), e.Consultation, e.Answer)
		if err != nil {
			s.t.Fatalf("%v %+v", err, got)
		}
		s.asked, s.ticket = e.Consultation, got.Ticket
		break
	}
	if s.ticket == "" {
		s.t.Fatal("no example brings data")
	}
	// Somebody else asks the same, and is refused.
	for _, i := range s.n.World().Institutions() {
		if i.ID == s.asked.Requester {
			continue
		}
		again := s.asked
		again.Requester = i.ID
		got, err := s.n.Consult(within(s.t), again, "")
		if err != nil {
			s.t.Fatal(err)
		}
		if got.Status == "NO_RESULT" && (got.Reason == "NOT_ALLOWED" || got.Reason == "NOT_INTEGRATED") {
			s.refused, s.outsider = got.Ticket, i.ID
			break
		}
	}
	if s.refused == "" {
		s.t.Fatal("nobody was refused")
	}
	all := s.n.World().Institutions()
	s.portal = all[len(all)-1].ID
	for i := len(all) - 1; s.portal == s.asked.Requester && i >= 0; i-- {
		s.portal = all[i].ID
	}
}

func (s *scene) person() api.Subject {
	return api.Subject{Scheme: string(s.asked.Scheme), Number: s.asked.Number}
}

// view lets a person look, at a node, with a token as adjust makes it.
func (s *scene) view(t *testing.T, at names.InstitutionID, who api.Subject, adjust func(*registrypb.IdentityToken)) (*reading.SubjectView, []byte, error) {
	t.Helper()
	c := s.n.Client(at)
	challenge, err := c.SubjectChallenge(within(t), api.SubjectPeriod{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := Identify(s.n.layout.providerFile(), challenge, who, adjust)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.SubjectView(within(t), token)
	return v, token, err
}

func use(v *reading.SubjectView, ticket names.Ticket) *reading.Use {
	i := slices.IndexFunc(v.Uses, func(u reading.Use) bool { return u.Ticket == ticket })
	if i < 0 {
		return nil
	}
	return &v.Uses[i]
}

func (s *scene) subjectLists(t *testing.T) {
	v, _, err := s.view(t, s.portal, s.person(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !v.Complete || len(v.NotReached) > 0 {
		t.Errorf("not complete: %+v", v.NotReached)
	}
	u := use(v, s.ticket)
	if u == nil {
		t.Fatalf("the consultation is not there: %+v", v.Uses)
	}
	if u.Institution.ID != s.asked.Requester || u.Institution.Name == "" || u.User != "testnet@"+string(s.asked.Requester) ||
		u.Application != applicationName || u.Purpose != s.asked.Purpose || u.Dataset != s.asked.Dataset || u.Title == "" ||
		u.Deliberation == "" || u.Authorization == "" || len(u.Fields) == 0 || u.Outcome != reading.Permitted || len(u.Suppliers) == 0 ||
		u.Suppliers[0].Status != "DATA_FOUND" || u.Disputed || len(u.ToldBy) < 3 {
		t.Errorf("the consultation as told: %+v", u)
	}
	no := use(v, s.refused)
	if no == nil || no.Institution.ID != s.outsider || no.Outcome == reading.Permitted || no.Reason == "" {
		t.Errorf("the refusal as told: %+v", no)
	}
	if !slices.ContainsFunc(v.Files, func(f reading.Institution) bool { return f.ID == s.asked.Requester && f.Name != "" }) {
		t.Errorf("the requester's file is not told: %+v", v.Files)
	}
	// The node's own journal holds that somebody looked, and about whom.
	if reads := s.reads(t, s.portal, "PERMIT"); len(reads) == 0 || reads[0].Subject == nil || reads[0].Subject.Number != s.asked.Number {
		t.Errorf("readings journaled: %+v", reads)
	}
	// So does every node that was asked.
	if reads := s.reads(t, s.asked.Requester, "PERMIT"); len(reads) == 0 || reads[0].Requester != string(s.portal)+"/n1" {
		t.Errorf("readings journaled at the requester: %+v", reads)
	}
}

// reads gives the readings for a subject in a node's journal, of one outcome.
func (s *scene) reads(t *testing.T, at names.InstitutionID, outcome string) (found []api.JournalEntry) {
	t.Helper()
	all, err := s.n.Client(at).FindJournal(within(t), api.JournalQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all.Items {
		if e.Event == "READ" && e.Purpose == "subject-view" && e.Outcome == outcome {
			found = append(found, e)
		}
	}
	return found
}

func (s *scene) withoutTheRight(t *testing.T) {
	other := api.Subject{Scheme: "ssin", Number: "74071238186"}
	_, used, err := s.view(t, s.portal, s.person(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := s.n.Client(s.portal)
	forAnother := func() []byte { // a challenge of another node's, answered truly
		challenge, err := s.n.Client(s.asked.Requester).SubjectChallenge(within(t), api.SubjectPeriod{})
		if err != nil {
			t.Fatal(err)
		}
		token, err := Identify(s.n.layout.providerFile(), challenge, s.person(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	show := func(token []byte) func() error {
		return func() error {
			_, err := c.SubjectView(within(t), token)
			return err
		}
	}
	adjusted := func(adjust func(*registrypb.IdentityToken)) func() error {
		return func() error {
			_, _, err := s.view(t, s.portal, s.person(), adjust)
			return err
		}
	}
	var said string
	for name, try := range map[string]func() error{
		"no token":              show(nil),
		"no token but bytes":    show([]byte("let me in")),
		"a token for elsewhere": show(forAnother()),
		"a replayed nonce":      show(used),
		"an expired token": adjusted(func(k *registrypb.IdentityToken) {
			k.IssuedUnixMs -= 600_000
			k.ExpiresUnixMs = k.IssuedUnixMs + 60_000
		}),
		"an unknown provider": adjusted(func(k *registrypb.IdentityToken) { k.Provider = "nobody" }),
		"another question":    adjusted(func(k *registrypb.IdentityToken) { k.PayloadHash = make([]byte, 32) }),
		"a nonce of its own":  adjusted(func(k *registrypb.IdentityToken) { k.Nonce = make([]byte, 32) }),
		"a weak login":        adjusted(func(k *registrypb.IdentityToken) { k.AuthLevel = 1 }),
		"another mesh":        adjusted(func(k *registrypb.IdentityToken) { k.Mesh = "other.test" }),
	} {
		before := len(s.reads(t, s.portal, "DENY"))
		err := try()
		var p *api.Problem
		if !api.IsProblem(err, api.CodeForbidden) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p = err.(*api.Problem)
		if said == "" {
			said = p.Mend
		}
		if p.Mend != said || p.Where != "" {
			t.Errorf("%s is told more than others: %v", name, err)
		}
		if after := s.reads(t, s.portal, "DENY"); len(after) != before+1 || after[len(after)-1].Detail == "" {
			t.Errorf("%s: %d attempts journaled, were %d", name, len(after), before)
		}
	}
	// Another's token shows what concerns the other, and nothing of this person.
	v, _, err := s.view(t, s.portal, other, nil)
	if err != nil {
		t.Fatal(err)
	}
	if use(v, s.ticket) != nil || use(v, s.refused) != nil {
		t.Error("another's token shows this person's consultations")
	}
	// The person sees that somebody tried.
	if v, _, err = s.view(t, s.portal, s.person(), nil); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(v.Uses, func(u reading.Use) bool { return u.Kind == reading.LogReading && u.Outcome == reading.Denied }) {
		t.Error("the attempts are not told to whom they concern")
	}
}

func (s *scene) retiredProvider(t *testing.T) {
	operators, err := s.n.Operators(within(t))
	if err != nil {
		t.Fatal(err)
	}
	key := publicKey(s.n.site(s.portal).signer)
	p := &registrypb.IdentityProvider{Id: "short-lived", Name: "A provider", PublicKeys: [][]byte{key}, Levels: []uint32{3}}
	set := func() {
		if err := do(within(t), operators, &registrypb.Command{Body: &registrypb.Command_SetIdentityProvider{SetIdentityProvider: p}}); err != nil {
			t.Fatal(err)
		}
		if err := s.n.WaitReady(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	set()
	file := filepath.Join(s.n.site(s.portal).dir, "signing.key")
	look := func() error {
		c := s.n.Client(s.portal)
		challenge, err := c.SubjectChallenge(within(t), api.SubjectPeriod{})
		if err != nil {
			t.Fatal(err)
		}
		token, err := Identify(file, challenge, s.person(), func(k *registrypb.IdentityToken) { k.Provider = p.Id })
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.SubjectView(within(t), token)
		return err
	}
	if err := look(); err != nil {
		t.Fatalf("before: %v", err)
	}
	p.Retired = true
	set()
	if err := look(); !api.IsProblem(err, api.CodeForbidden) {
		t.Errorf("after: %v", err)
	}
}

func (s *scene) officer(t *testing.T) {
	found, err := s.n.Officer(s.asked.Requester).OfficerSearch(within(t), api.OfficerSearch{Dataset: s.asked.Dataset})
	if err != nil || len(found.Items) == 0 {
		t.Fatalf("%v %+v", err, found)
	}
	for _, e := range found.Items {
		if !strings.HasPrefix(e.Requester, string(s.asked.Requester)+"/") {
			t.Errorf("another institution's user: %+v", e)
		}
	}
	report, err := s.n.Officer(s.asked.Requester).OfficerReport(within(t), api.OfficerReport{})
	if err != nil || report.Uses == 0 || report.Users != 1 {
		t.Errorf("%v %+v", err, report)
	}
	var csv strings.Builder
	if err := s.n.Officer(s.asked.Requester).OfficerCSV(within(t), &csv, api.OfficerSearch{}); err != nil || !strings.Contains(csv.String(), string(s.ticket)) {
		t.Errorf("%v %s", err, csv.String())
	}
	if _, err := s.n.Client(s.asked.Requester).OfficerSearch(within(t), api.OfficerSearch{}); !api.IsProblem(err, api.CodeForbidden) {
		t.Errorf("whoever is no officer: %v", err)
	}
}

// order makes an inspection order with the committee's first m keys.
func (s *scene) order(t *testing.T, m int, change func(*nodepb.InspectionOrder)) []byte {
	t.Helper()
	now := time.Now()
	o := &nodepb.InspectionOrder{
		Mesh: string(MeshName), Id: "complaint-1", Reason: "a complaint about a consultation", Executor: &registrypb.NodeRef{Institution: string(s.portal)},
		Scope: &nodepb.InspectionOrder_Ticket{Ticket: string(s.ticket)}, IssuedUnixMs: now.UnixMilli(), ExpiresUnixMs: now.Add(time.Hour).UnixMilli(),
	}
	if change != nil {
		change(o)
	}
	raw, err := reading.NewOrder(o, subject.Belgian())
	if err != nil {
		t.Fatal(err)
	}
	signers, err := genesis.LoadKeys(filepath.Dir(s.n.layout.genesisFile()), genesis.Committee)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range signers[:m] {
		if raw, err = envelope.AddSignature(raw, k); err != nil {
			t.Fatal(err)
		}
	}
	return raw
}

func (s *scene) inspection(t *testing.T) {
	m := s.n.layout.genesis.Committee.Threshold
	c := s.n.Client(s.portal)
	has := func(in *reading.Inspection, ticket names.Ticket) *trace.Story {
		for _, story := range in.Stories {
			if story.Ticket == ticket {
				return story
			}
		}
		return nil
	}
	byTicket, err := c.Inspect(within(t), s.order(t, m, nil))
	if err != nil {
		t.Fatal(err)
	}
	story := has(byTicket, s.ticket)
	if story == nil || len(byTicket.Stories) != 1 || !byTicket.Complete || len(story.Exchanges) == 0 || story.User == "" {
		t.Fatalf("%+v", byTicket)
	}
	for _, f := range story.Findings {
		if f.Kind != trace.Asserted && f.Kind != trace.Redecided && f.Kind != trace.NotAnchored {
			t.Errorf("%s: %s", f.Kind, f.Says)
		}
	}
	bySubject, err := c.Inspect(within(t), s.order(t, m, func(o *nodepb.InspectionOrder) {
		o.Scope = &nodepb.InspectionOrder_Subject{Subject: &registrypb.Subject{Scheme: string(s.asked.Scheme), Number: s.asked.Number}}
	}))
	if err != nil || has(bySubject, s.ticket) == nil || has(bySubject, s.refused) == nil || len(bySubject.Entries) == 0 {
		t.Errorf("by subject: %v %+v", err, bySubject)
	}
	byInstitution, err := c.Inspect(within(t), s.order(t, m, func(o *nodepb.InspectionOrder) {
		o.Scope = &nodepb.InspectionOrder_Institution{Institution: &nodepb.InspectedInstitution{
			Id: string(s.outsider), FromUnixMs: time.Now().Add(-time.Hour).UnixMilli(), UntilUnixMs: time.Now().Add(time.Minute).UnixMilli(),
		}}
	}))
	if err != nil || has(byInstitution, s.refused) == nil {
		t.Errorf("by institution: %v %+v", err, byInstitution)
	}
}

func (s *scene) badOrders(t *testing.T) {
	m := s.n.layout.genesis.Committee.Threshold
	for name, raw := range map[string][]byte{
		"too few signatures": s.order(t, m-1, nil),
		"for another":        s.order(t, m, func(o *nodepb.InspectionOrder) { o.Executor.Institution = string(s.asked.Requester) }),
		"expired":            s.order(t, m, func(o *nodepb.InspectionOrder) { o.IssuedUnixMs -= 7_200_000; o.ExpiresUnixMs -= 7_200_000 }),
		"of the future":      s.order(t, m, func(o *nodepb.InspectionOrder) { o.IssuedUnixMs += 60_000 }),
		"of another mesh":    s.order(t, m, func(o *nodepb.InspectionOrder) { o.Mesh = "other.test" }),
		"nothing":            nil,
	} {
		if _, err := s.n.Client(s.portal).Inspect(within(t), raw); !api.IsProblem(err, api.CodeForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Every node judges by itself: one that shows another's order is told nothing.
	var failed int
	all, err := s.n.Client(s.portal).FindJournal(within(t), api.JournalQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all.Items {
		if e.Purpose == "inspection" && e.Outcome == "DENY" {
			failed++
		}
	}
	if failed != 6 {
		t.Errorf("%d refused inspections journaled, want 6", failed)
	}
}

func (s *scene) unreached(t *testing.T) {
	if err := s.n.StopNode(s.asked.Requester); err != nil {
		t.Fatal(err)
	}
	ctx := within(t)
	c := s.n.Client(s.portal)
	challenge, err := c.SubjectChallenge(ctx, api.SubjectPeriod{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := Identify(s.n.layout.providerFile(), challenge, s.person(), nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.SubjectView(ctx, token)
	if err != nil {
		t.Fatal(err)
	}
	gone := string(s.asked.Requester) + "/n1"
	if v.Complete || len(v.NotReached) != 1 || v.NotReached[0].Node != gone || v.NotReached[0].Why == "" {
		t.Errorf("not reached: %+v", v.NotReached)
	}
	// What it alone would hide, the clearing peer and the supplier tell.
	if u := use(v, s.ticket); u == nil || u.Institution.ID != s.asked.Requester || u.User == "" || slices.Contains(u.ToldBy, gone) {
		t.Errorf("told without it: %+v", u)
	}
}
