package registry_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var revocationBounds = genesis.Bounds{Lease: 5 * time.Second, PresentLife: time.Second, ReleaseLife: 2 * time.Second, Skew: time.Second}

// exchanges is a requester that asks the members of a sim all the time, and a supplier that
// follows them and releases what was cleared as late as it may.
type exchanges struct {
	*sim
	requester, supplier *simMember
	by                  *simMember // through which commands are sent; nil: the first member
	stop                chan struct{}
	running             sync.WaitGroup

	mu       sync.Mutex
	cleared  []time.Time // when permits were given
	released []time.Time
}

// unwritten is a journal: what is proved here is not what it keeps.
type unwritten struct{}

func (unwritten) RecordDecision(context.Context, clearing.Decided) error { return nil }

// simWatcher gives a node that follows the members, once it is started.
func simWatcher(id string, seed uint64) *simMember {
	return &simMember{id: node(id), disk: newSimDisk(rand.New(rand.NewPCG(seed, 50+uint64(len(id))))), watches: true}
}

func newExchanges(t *testing.T, seed uint64, dice *rand.Rand) *exchanges {
	x := &exchanges{stop: make(chan struct{})}
	x.requester, x.supplier = simWatcher("pcsa", seed), simWatcher("wages", seed)
	x.sim = newSim(t, seed, 3, func(s *sim) {
		s.file.Bounds = revocationBounds
		// Two clocks differ by all that they may, or by nothing.
		for _, m := range append([]*simMember{x.requester, x.supplier}, s.members...) {
			m.ahead = revocationBounds.Skew * time.Duration(dice.IntN(2))
		}
	})
	x.set(record.Operators, "operator1", institution("pcsa"))
	x.set(record.Operators, "operator1", institution("wages"))
	for _, w := range []*simMember{x.requester, x.supplier} {
		x.set(string(w.id.Institution), string(w.id.Institution), setNode(string(w.id.Institution)))
		x.start(w)
	}
	always := &registrypb.Period{From: int32(names.Always), Until: int32(names.Forever)}
	x.set(record.Operators, "operator1", &registrypb.Command{Body: &registrypb.Command_SetDataset{SetDataset: &registrypb.Dataset{
		Id: "wages/v1", Title: "Wages", Schema: `{"properties":{"gross":{}}}`, Scheme: "ssin"}}})
	x.set("wages", "wages", &registrypb.Command{Body: &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{
		Institution: "wages", Dataset: "wages/v1", Qualities: []string{"insured"}, Period: always}}})
	x.set(record.Committee, "committee1", &registrypb.Command{Body: &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: "a-1", Deliberation: "DEMO-2024/017", RequesterType: "office", RequesterQualities: []string{"insured"}, Dataset: "wages/v1",
		Fields: []string{"gross"}, Purpose: "inquiry", Modes: []string{"consultation"}, Period: always}}})
	x.set("pcsa", "pcsa", references(recordtest.Person(1)))
	x.set("wages", "wages", references(recordtest.Person(1)))
	return x
}

// set has a command decided.
func (x *exchanges) set(author, signer string, cmd *registrypb.Command) {
	x.t.Helper()
	by := x.members[0]
	if x.by != nil {
		by = x.by
	}
	x.sim.set(by, author, signer, cmd)
}

// set has a command decided through a node, and expects it to be accepted.
func (s *sim) set(by *simMember, author, signer string, cmd *registrypb.Command) *registrypb.SubmitResponse {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := registry.NewAuthor(by.running(), s.file.Mesh, author, key(signer)).Do(ctx, cmd)
	if err != nil || !resp.Accepted {
		s.t.Fatal(resp, err)
	}
	return resp
}

// admit makes an institution known.
func (s *sim) admit(id string) *registrypb.SubmitResponse {
	s.t.Helper()
	return s.set(s.members[0], record.Operators, "operator1", institution(id))
}

// run asks one member after another until stop is closed.
func (x *exchanges) run(dice *rand.Rand) {
	var checker clearing.Checker
	services := map[*simMember]*clearing.Service{}
	for _, m := range x.members {
		services[m] = clearing.New(clearing.Config{Self: m.id, Mesh: x.file.Mesh, Signer: key(string(m.id.Institution)), Registry: m.running(),
			Journal: unwritten{}, Bounds: revocationBounds, Schemes: subject.Belgian(), Now: m.now})
	}
	for n := 0; ; n++ {
		select {
		case <-time.After(time.Duration(20+dice.IntN(100)) * time.Millisecond):
		case <-x.stop:
			return
		}
		m := x.members[dice.IntN(len(x.members))]
		payload, err := proto.Marshal(&registrypb.Request{
			Mesh: string(x.file.Mesh), Nonce: recordtest.Nonce()[:16], Requester: &registrypb.NodeRef{Institution: "pcsa", Node: "a"},
			ClientTicket: "T-" + strconv.Itoa(n), User: "u-17", Application: "desk", AuthLevel: 400, Channel: "api", Purpose: "inquiry",
			Mode: "consultation", Dataset: "wages/v1", Fields: []string{"gross"}, Subject: recordtest.SSIN(recordtest.Person(1)),
			Period: &registrypb.Period{From: 10000, Until: 10100}, TimeUnixMs: x.requester.now().UnixMilli(),
		})
		if err != nil {
			x.t.Fatal(err)
		}
		request, err := envelope.Sign(envelope.Request, payload, key("pcsa"))
		if err != nil {
			x.t.Fatal(err)
		}
		resp, err := services[m].Clear(context.Background(), x.requester.id, &registrypb.ClearRequest{Request: request})
		if err != nil || resp.Outcome != registrypb.Outcome_PERMIT {
			continue
		}
		x.mu.Lock()
		x.cleared = append(x.cleared, time.Now())
		x.mu.Unlock()
		shown := time.Duration(dice.Int64N(int64(revocationBounds.PresentLife + 2*revocationBounds.Skew)))
		source := time.Duration(dice.Int64N(int64(revocationBounds.ReleaseLife + 2*revocationBounds.Skew)))
		x.running.Go(func() { x.present(&checker, request, resp.Clearances[0], shown, source) })
	}
}

// present shows a clearance late to the supplier, whose source takes long.
func (x *exchanges) present(checker *clearing.Checker, request, clearance []byte, shown, source time.Duration) {
	time.Sleep(shown) // virtual
	reg := x.supplier.running()
	guard := func(check func(record.View) *clearing.Refusal) bool {
		if _, err := reg.Standing(); err != nil {
			return false
		}
		var no *clearing.Refusal
		err := reg.View(func(v record.View) error {
			no = check(v)
			return nil
		})
		return err == nil && no == nil
	}
	var k *clearing.Checked
	if !guard(func(v record.View) (no *clearing.Refusal) {
		k, no = checker.Check(v, x.supplier.now(), revocationBounds, x.file.Mesh, x.supplier.id, x.requester.id, request, clearance)
		return no
	}) {
		return
	}
	time.Sleep(source) // virtual
	if guard(func(v record.View) *clearing.Refusal { return k.Recheck(v, x.supplier.now(), x.file.Mesh) }) {
		x.mu.Lock()
		x.released = append(x.released, time.Now())
		x.mu.Unlock()
	}
}

// cutOff takes a node off from all others.
func (x *exchanges) cutOff(m *simMember) {
	for _, o := range append([]*simMember{x.requester, x.supplier}, x.members...) {
		if o != m {
			x.net.setCut(o.id, m.id, true)
			x.net.setCut(m.id, o.id, true)
		}
	}
}

// TestNothingIsHonouredAfterRevocation attacks the moment at which a revocation returns, on
// real clusters in virtual time: clocks that differ by exactly the bound, a supplier that
// hears nothing of the registry, a clearing peer that does not, leaders that are cut off or
// hand over while the revocation waits, sources that take as long as they may. Before that
// moment what was cleared may be released; after it nothing is cleared and nothing leaves.
// More: REGISTRY_REVOCATIONS=200
func TestNothingIsHonouredAfterRevocation(t *testing.T) {
	t.Parallel()
	seeds := 12
	if testing.Short() {
		seeds = 6
	}
	if n, err := strconv.Atoi(os.Getenv("REGISTRY_REVOCATIONS")); err == nil {
		seeds = n
	}
	var late time.Duration
	releases := 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			l, n := revokeUnderAttack(t, uint64(seed))
			late, releases = max(late, l), releases+n
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	b := revocationBounds
	t.Logf("%d releases; the last one %s after a revocation was committed, which returns after %s", releases, late, b.Lease+b.ReleaseLife+2*b.Skew)
	// The supplier stands by a grant of its own, so that nothing leaves later than a lease after
	// the commit; the rest of the bound is for rights that a supplier cannot see.
	if late < b.Lease/2 {
		t.Errorf("nothing was released later than %s after a revocation: this attacks nothing", late)
	}
}

func revokeUnderAttack(t *testing.T, seed uint64) (late time.Duration, releases int) {
	dice := rand.New(rand.NewPCG(seed, 40))
	x := newExchanges(t, seed, dice)
	defer x.sim.stop()
	defer x.kill(x.supplier)
	defer x.kill(x.requester)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, m := range append([]*simMember{x.requester, x.supplier}, x.members...) {
		if _, err := m.running().WaitStanding(ctx); err != nil {
			t.Fatal(m.id, err)
		}
	}
	x.running.Go(func() { x.run(dice) })
	time.Sleep(4 * time.Second) // virtual
	leader := x.leads()
	var author, clearer *simMember // two that do not lead
	for _, m := range x.members {
		if m != leader && author == nil {
			author = m
		} else if m != leader {
			clearer = m
		}
	}
	how := seed % 6
	switch how {
	case 1, 5:
		x.cutOff(x.supplier)
	case 2:
		x.cutOff(clearer)
	}
	revocation := []struct {
		author, signer string
		cmd            *registrypb.Command
	}{
		{record.Committee, "committee1", &registrypb.Command{Body: &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: "a-1"}}}},
		{record.Operators, "operator1", suspend("pcsa", true)},
		{record.Operators, "operator1", suspend("wages", true)},
	}[(seed+seed/6)%3]
	var committed time.Time
	watch, end := author.running().Changes()
	before := author.running().AppliedIndex()
	x.running.Go(func() {
		defer end()
		for author.running().AppliedIndex() == before {
			<-watch
		}
		committed = time.Now()
		switch how { // while it waits
		case 3, 5:
			x.cutOff(leader)
		case 4:
			_ = leader.running().HandOver(clearer.id)
		}
	})
	resp, err := registry.NewAuthor(author.running(), x.file.Mesh, revocation.author, key(revocation.signer)).Do(ctx, revocation.cmd)
	if err != nil || !resp.Accepted {
		t.Fatal(seed, resp, err)
	}
	returned := time.Now()
	time.Sleep(7 * time.Second) // virtual: whatever is under way comes to its end
	close(x.stop)
	x.running.Wait()
	for _, at := range x.cleared {
		if at.After(returned) {
			t.Errorf("seed %d: cleared %s after the revocation had returned", seed, at.Sub(returned))
		}
	}
	for _, at := range x.released {
		if at.After(returned) {
			t.Errorf("seed %d: released %s after the revocation had returned", seed, at.Sub(returned))
		}
		late = max(late, at.Sub(committed))
	}
	return late, len(x.released)
}
