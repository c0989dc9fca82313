package registry_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/agree"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// dishonest is a real mesh whose leader lies on its own consensus connections and in its
// own answers. The other two, victim and witness, are honest; so is its log.
type dishonest struct {
	*mesh
	leads, victim, witness names.NodeID
	log                    *syncBuffer
}

func newDishonest(t *testing.T) *dishonest {
	m := newMesh(t)
	d := &dishonest{mesh: m, log: new(syncBuffer)}
	for _, n := range m.members {
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
	}
	m.log = slog.New(slog.NewTextHandler(d.log, nil))
	slow := quick // so that the leader goes on leading while the machine does something else
	slow.Heartbeat, slow.Election, slow.LeaderLease = 2*time.Second, 2*time.Second, time.Second
	for _, n := range m.members {
		m.tuning[n] = slow
		m.start(n)
	}
	m.admit("aaaa")
	m.admit("bbbb")
	d.leads = m.leader()
	others := m.others(d.leads)
	d.victim, d.witness = others[0], others[1]
	for _, n := range others {
		m.waitApplied(n, m.at(d.leads).AppliedIndex())
	}
	return d
}

// tells has the leader send the victim other bytes than it sends the witness, each of the
// same length.
func (d *dishonest) tells(swap ...[]byte) {
	for i := 0; i+1 < len(swap); i += 2 {
		if len(swap[i]) != len(swap[i+1]) {
			d.t.Fatalf("%d and %d bytes", len(swap[i]), len(swap[i+1]))
		}
	}
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	d.f.wire = func(from, to names.NodeID, b []byte) []byte {
		if from != d.leads || to != d.victim {
			return b
		}
		out := bytes.Clone(b)
		for i := 0; i+1 < len(swap); i += 2 {
			for at := bytes.Index(b, swap[i]); at >= 0; {
				copy(out[at:], swap[i+1])
				next := bytes.Index(b[at+1:], swap[i])
				if next < 0 {
					break
				}
				at += 1 + next
			}
		}
		return out
	}
}

// node makes a signed command of the author, as if its view were the leader's.
func (d *dishonest) signedNode(author, address string) []byte {
	cmd := setNode(author)
	cmd.GetSetNode().Address = address
	return signed(d.t, d.nextCommand(d.leads, author, cmd), key(author))
}

func (d *dishonest) submit(raw []byte) *registrypb.SubmitResponse {
	d.t.Helper()
	resp, err := d.at(d.leads).Submit(d.ctx(patience), raw)
	if err != nil || !resp.Accepted {
		d.t.Fatal(resp, err)
	}
	return resp
}

// mark has all members write down their state.
func (d *dishonest) mark() {
	d.t.Helper()
	if _, err := d.at(d.leads).Propose(nil); err != nil {
		d.t.Fatal(err)
	}
}

func (d *dishonest) stops(n names.NodeID) {
	d.t.Helper()
	eventually(d.t, n.String()+" stops", func() bool { return d.at(n).Sound() != nil })
	if _, err := d.at(n).Standing(); err == nil {
		d.t.Errorf("%s stands", n)
	}
}

func (d *dishonest) says(words ...string) {
	d.t.Helper()
	for _, w := range words {
		eventually(d.t, "the log says "+w, func() bool { return strings.Contains(d.log.String(), w) })
	}
}

func TestLeaderThatAlters(t *testing.T) {
	t.Parallel()
	d := newDishonest(t)
	raw := d.signedNode("aaaa", "10.0.0.1:1")
	d.tells([]byte("10.0.0.1:1"), []byte("10.9.9.9:1")) // the signature is the old one's
	d.submit(raw)
	d.mark()
	d.stops(d.victim)
	for _, n := range []names.NodeID{d.leads, d.witness} {
		if err := d.at(n).Sound(); err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
	// The victim refused what it was sent, and the row that it lacks is named.
	d.says("proposed what nobody signed", "is there and not here", "member="+d.victim.String())
}

func TestLeaderThatReorders(t *testing.T) {
	t.Parallel()
	d := newDishonest(t)
	a, b := d.signedNode("aaaa", "10.0.0.1:1"), d.signedNode("bbbb", "10.0.0.2:1")
	d.tells(a, b, b, a) // each is valid, wherever it stands
	d.submit(a)
	d.submit(b)
	d.mark()
	d.stops(d.victim)
	if err := d.at(d.witness).Sound(); err != nil {
		t.Error(err)
	}
	d.says("where the states differ", "of table 'P'")
}

// An author who signs two commands of one number, and a leader who shows one to each: both
// are valid. Who is shown the other history than most is found, and which record it is.
func TestLeaderThatShowsTwoHistories(t *testing.T) {
	t.Parallel()
	d := newDishonest(t)
	a, b := d.signedNode("aaaa", "10.0.0.1:1"), d.signedNode("aaaa", "10.0.0.2:1")
	d.tells(a, b)
	d.submit(a)
	d.mark()
	d.stops(d.victim)
	if err := d.at(d.witness).Sound(); err != nil {
		t.Error(err)
	}
	d.says("a member signed another state than this node holds", "where the states differ")
}

// The same, and the leader signs for each the state that this one holds. So each believes
// itself to be with the majority, until they tell each other what the leader signed: then
// its two signatures are in the log, it counts for nothing, and both stop.
func TestLeaderThatSignsTwoStates(t *testing.T) {
	t.Parallel()
	d := newDishonest(t)
	d.f.mu.Lock()
	d.f.answer = func(from, to names.NodeID, _ string, req, resp any) {
		q, ok := req.(*registrypb.StateRequest)
		if !ok || to != d.leads || from == d.leads || q.Index == 0 {
			return
		}
		s := resp.(*registrypb.StateResponse)
		s.States, s.Witnessed = nil, nil
		marks, err := d.at(from).Marks()
		if err != nil {
			return
		}
		for _, m := range marks {
			if m.Index == q.Index {
				raw, err := agree.Sign(d.file.Mesh, agree.State{Member: d.leads, Index: m.Index, Root: m.Root, Public: m.Public}, key(string(d.leads.Institution)))
				if err == nil {
					s.States = [][]byte{raw}
				}
			}
		}
	}
	d.f.mu.Unlock()
	a, b := d.signedNode("aaaa", "10.0.0.1:1"), d.signedNode("aaaa", "10.0.0.2:1")
	d.tells(a, b)
	d.submit(a)
	d.mark()
	d.stops(d.victim)
	d.stops(d.witness)
	d.says("a member signed two different states of one index", "member="+d.leads.String())
}

// What nobody signed is refused by every replica, and each says who proposed it.
func TestLeaderThatForges(t *testing.T) {
	t.Parallel()
	d := newDishonest(t)
	forged := d.nextCommand(d.leads, record.Operators, suspend("aaaa", true))
	if _, err := d.at(d.leads).Propose(signed(t, forged, key(string(d.leads.Institution)))); err != nil {
		t.Fatal(err)
	}
	d.mark()
	for _, n := range d.members {
		d.waitApplied(n, d.at(d.leads).AppliedIndex())
		if d.suspended(n, "aaaa") {
			t.Errorf("%s believed it", n)
		}
		if err := d.at(n).Sound(); err != nil {
			t.Errorf("%s: %v", n, err)
		}
	}
	d.says("a leader proposed what nobody signed who could", "leader="+d.leads.String())
}

// A leader that withholds a revocation gets no acknowledgement for it, whatever it
// answers, and once another leads the same bytes are decided.
func TestLeaderThatWithholds(t *testing.T) {
	t.Parallel()
	d := newDishonest(t)
	d.f.mu.Lock()
	d.f.answer = func(_, to names.NodeID, _ string, _, resp any) {
		// It does not propose it, and says that it did.
		if s, ok := resp.(*registrypb.SubmitResponse); ok && to == d.leads {
			s.Accepted, s.Index, s.Refusal, s.RemovesRight = true, 1<<40, "", false
		}
	}
	d.f.swallow = func(to names.NodeID, req any) bool {
		_, ok := req.(*registrypb.SubmitRequest)
		return ok && to == d.leads
	}
	d.f.mu.Unlock()
	raw := signed(t, d.nextCommand(d.victim, record.Operators, suspend("aaaa", true)), key("operator1"), key("operator2"))
	if resp, err := d.at(d.victim).Submit(d.ctx(2*time.Second), raw); err == nil {
		t.Fatalf("acknowledged: %v", resp)
	}
	d.handOver(d.leads, d.witness)
	d.f.mu.Lock()
	d.f.answer, d.f.swallow = nil, nil // it may be elected again
	d.f.mu.Unlock()
	resp, err := d.at(d.victim).Submit(d.ctx(patience), raw)
	if err != nil || !resp.Accepted || len(resp.States) < 2 || !d.suspended(d.victim, "aaaa") {
		t.Errorf("under an honest leader: %v, %v", resp, err)
	}
}

// A leader that sends one member heartbeats and no entries, and signs it grants as of
// before, does not keep a suspension from it that the others acknowledged: another member
// shows it the command, and it clears no more.
func TestLeaderThatWithholdsFromOne(t *testing.T) {
	t.Parallel()
	d := newDishonest(t)
	raw := signed(t, d.nextCommand(d.leads, record.Operators, suspend("aaaa", true)), key("operator1"), key("operator2"))
	past := &registrypb.Grant{Mesh: string(d.file.Mesh), Leader: refTo(d.leads), Holder: refTo(d.victim), CommitIndex: d.at(d.victim).AppliedIndex(), Term: 1}
	if err := d.at(d.victim).View(func(v record.View) error {
		p, err := v.PublicPast()
		past.PublicIndex, past.PublicHash = p.Index, p.Hash
		return err
	}); err != nil {
		t.Fatal(err)
	}
	d.f.mu.Lock()
	d.f.wire = func(from, to names.NodeID, b []byte) []byte {
		if from == d.leads && to == d.victim && bytes.Contains(b, raw[len(raw)/2:]) {
			return nil
		}
		return b
	}
	d.f.answer = func(from, to names.NodeID, _ string, req, resp any) {
		q, ok := req.(*registrypb.GrantRequest)
		if !ok || from != d.victim || to != d.leads {
			return
		}
		g := proto.Clone(past).(*registrypb.Grant)
		g.Nonce, g.LeaderTimeUnixMs = q.Nonce, time.Now().UnixMilli()
		payload, err := proto.Marshal(g)
		if err != nil {
			t.Error(err)
		}
		grant, err := envelope.Sign(envelope.Grant, payload, key(string(d.leads.Institution)))
		if err != nil {
			t.Error(err)
		}
		resp.(*registrypb.GrantResponse).Grant = grant
	}
	d.f.mu.Unlock()
	resp, err := d.at(d.witness).Submit(d.ctx(patience), raw)
	if err != nil || !resp.Accepted || !resp.RemovesRight || len(resp.States) < 2 {
		t.Fatal(resp, err)
	}
	for end := time.Now().Add(3 * bounds.Lease); time.Now().Before(end); time.Sleep(10 * time.Millisecond) { // the attack goes on so long
		if _, err := d.at(d.victim).Standing(); err == nil && !d.suspended(d.victim, "aaaa") {
			t.Fatal("it clears as of before an acknowledged suspension")
		}
	}
	if d.suspended(d.victim, "aaaa") {
		t.Error("the leader withheld nothing: this shows nothing")
	}
	d.says("shows a removal of a right that this replica lacks", "member="+d.witness.String())
}
