package batch

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func refusedFor(err error) registrypb.Reason {
	var r *exchange.Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return 0
}

// A clearance for one chunk, another order's, or with a subject slipped in or left out,
// obtains nothing; nor does one that was answered, shown by another.
func TestClearanceForAnotherChunk(t *testing.T) {
	w := newWorld(t, 120)
	var shown []*nodepb.ChunkPresentation
	w.spoil(nil, func(c call, _ proto.Message) error {
		if c.method == "present" && c.to == "office" {
			shown = append(shown, proto.Clone(c.msg).(*nodepb.ChunkPresentation))
		}
		return nil
	})
	w.nodes["pcsa"].consultant.cfg.AtOnce = 1
	l := w.submit(question("inquiry"), file(0, 120))
	w.nodes["pcsa"].run(l.Voucher)
	w.spoil(nil, nil)
	if len(shown) != 3 {
		t.Fatalf("%d chunks", len(shown))
	}
	office := w.nodes["office"]
	before := office.source.most()
	pcsa := w.nodes["pcsa"].id
	mixed := &nodepb.ChunkPresentation{Demand: shown[0].Demand, Clearance: shown[1].Clearance}
	if _, err := office.supplier.Present(t.Context(), pcsa, mixed); refusedFor(err) != registrypb.Reason_CLEARANCE_INVALID {
		t.Errorf("the demand for one chunk with the clearance of another: %v", err)
	}
	if _, err := office.supplier.Present(t.Context(), w.nodes["stranger"].id, shown[0]); err == nil {
		t.Error("shown by another")
	}
	if _, err := w.nodes["fund"].supplier.Present(t.Context(), pcsa, shown[0]); refusedFor(err) != registrypb.Reason_CLEARANCE_INVALID {
		t.Errorf("shown to another: %v", err)
	}
	// Its bytes are changed: one subject more, one fewer, two the other way round.
	for name, change := range map[string]func(*registrypb.ChunkClearance){
		"one more": func(c *registrypb.ChunkClearance) {
			renumber(c, func(n []string) []string { return append(n, recordtest.Person(5)) })
		},
		"one fewer": func(c *registrypb.ChunkClearance) { renumber(c, func(n []string) []string { return n[1:] }) },
		"turned": func(c *registrypb.ChunkClearance) {
			renumber(c, func(n []string) []string { n[0], n[1] = n[1], n[0]; return n })
		},
		"more fields": func(c *registrypb.ChunkClearance) { c.Groups[0].Fields = append(c.Groups[0].Fields, "note") },
	} {
		forged := forge(t, shown[0], change)
		if _, err := office.supplier.Present(t.Context(), pcsa, forged); refusedFor(err) != registrypb.Reason_CLEARANCE_INVALID {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The very same again, after it was acknowledged or while it is kept, asks nobody twice.
	for _, p := range shown {
		if resp, err := office.supplier.Present(t.Context(), pcsa, p); err == nil && len(resp.Content) == 0 {
			t.Error("an empty answer")
		}
	}
	if office.source.most() != before || before != 1 {
		t.Errorf("a subject was asked about %d times", office.source.most())
	}
}

func renumber(c *registrypb.ChunkClearance, f func([]string) []string) {
	var n []string
	for _, s := range packed.All(c.Groups[0].Subjects) {
		n = append(n, s)
	}
	c.Groups[0].Subjects = packed.Of(subject.SSIN, f(n))
}

// forge changes a clearance and keeps its signature, and makes the demand fit it.
func forge(t *testing.T, p *nodepb.ChunkPresentation, change func(*registrypb.ChunkClearance)) *nodepb.ChunkPresentation {
	t.Helper()
	env, c := new(certspb.Envelope), new(registrypb.ChunkClearance)
	if err := errors.Join(proto.Unmarshal(p.Clearance, env), proto.Unmarshal(env.Payload, c)); err != nil {
		t.Fatal(err)
	}
	change(c)
	env.Payload = marshalled(c)
	out := &nodepb.ChunkPresentation{Clearance: marshalled(env)}
	demand := new(registrypb.ChunkDemand)
	if err := errors.Join(proto.Unmarshal(p.Demand, env), proto.Unmarshal(env.Payload, demand)); err != nil {
		t.Fatal(err)
	}
	demand.ClearanceHash = sum(out.Clearance)
	out.Demand = signed(t, "pcsa", demand)
	return out
}

func signed(t *testing.T, by string, d *registrypb.ChunkDemand) []byte {
	t.Helper()
	raw, err := signDemand(recordtest.Key(by), d)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A supplier, or a clearing peer, that says more, less or otherwise than it was asked is
// not believed.
func TestLyingPeers(t *testing.T) {
	for name, lie := range map[string]struct {
		method string
		change func(proto.Message)
	}{
		"a subject more": {"present", func(m proto.Message) {
			r := m.(*nodepb.ChunkResponse)
			r.Content = append(r.Content, byte(content.Yes))
		}},
		"a subject fewer": {"present", func(m proto.Message) { r := m.(*nodepb.ChunkResponse); r.Content = r.Content[1:] }},
		"another answer":  {"present", func(m proto.Message) { r := m.(*nodepb.ChunkResponse); r.Content[0] ^= 1 }},
		"another seed":    {"present", func(m proto.Message) { m.(*nodepb.ChunkResponse).Seed[0] ^= 1 }},
		"no seed":         {"present", func(m proto.Message) { m.(*nodepb.ChunkResponse).Seed = nil }},
		"no answer":       {"present", func(m proto.Message) { m.(*nodepb.ChunkResponse).Answer = nil }},
		"silent on some":  {"clear", func(m proto.Message) { m.(*registrypb.ClearChunkResponse).Decision = nil }},
		"one clearance twice": {"clear", func(m proto.Message) {
			r := m.(*registrypb.ClearChunkResponse)
			r.Clearances = append(r.Clearances, r.Clearances[0])
		}},
		"stands aside from all": {"clear", func(m proto.Message) {
			m.(*registrypb.ClearChunkResponse).Recused = bytes.Repeat([]byte{0xff}, 64)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 40)
			pcsa := w.nodes["pcsa"]
			var lied atomic.Int32
			w.spoil(nil, func(c call, m proto.Message) error {
				if c.method == lie.method && (c.method == "clear" && lied.Add(1) == 1 || c.to == "office") {
					lie.change(m)
				}
				return nil
			})
			l := w.submit(question("tariff"), file(0, 40))
			for i, line := range pcsa.run(l.Voucher) {
				for _, p := range line.Parts {
					if lie.method == "present" && p.Supplier == "office" && (p.Reason != registrypb.Reason_SUPPLIER_ERROR || p.Answer != 0) {
						t.Fatalf("line %d: believed: %v", i+1, p)
					}
				}
				if lie.method == "clear" && line.Reason == registrypb.Reason_CLEARING_UNAVAILABLE {
					t.Fatalf("line %d: the other peers were not asked: %v", i+1, line.ResultLine)
				}
			}
		})
	}
}

// A revocation in mid-lot: what is in flight does not leave, what remains is refused.
func TestRevokedInMidLot(t *testing.T) {
	w := newWorld(t, 150)
	pcsa, office := w.nodes["pcsa"], w.nodes["office"]
	pcsa.consultant.cfg.AtOnce = 1
	var fetches atomic.Int32
	office.source.hook = func(exchange.Query) ([]exchange.Record, error, bool) {
		if fetches.Add(1) == 40 { // within the second chunk, after it was checked
			w.apply(w.rec.Command(record.Committee, &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: "demo-all"}}))
		}
		return nil, nil, false
	}
	l := w.submit(question("inquiry"), file(0, 150))
	got := pcsa.run(l.Voucher)
	if first := got[0]; first.Status == nodepb.Status_NO_RESULT && first.Reason == registrypb.Reason_NOT_ALLOWED {
		t.Fatalf("the first chunk came before: %v", first.ResultLine)
	}
	for i, line := range got[50:] {
		for _, p := range line.Parts {
			if p.Supplier == "office" && len(p.Records) > 0 {
				t.Fatalf("line %d: left after the revocation: %v", 51+i, p)
			}
		}
	}
	for i, line := range got[100:] {
		if line.Reason != registrypb.Reason_NOT_ALLOWED {
			t.Fatalf("line %d: %v", 101+i, line.ResultLine)
		}
	}
	if n := len(office.entries(l.Voucher, nodepb.Event_SUPPLIED)); n != 1 {
		t.Errorf("%d chunks were supplied, want 1", n)
	}
	if n := len(office.entries(l.Voucher, nodepb.Event_REFUSED)); n != 1 {
		t.Errorf("%d chunks were refused, want 1", n)
	}
}

// A clearing peer that is party for some suppliers alone clears the rest, and another one
// clears those.
func TestPartyForSome(t *testing.T) {
	w := newWorld(t, 60, func(w *world) {
		i := &registrypb.Institution{Id: "alpha", Name: "alpha", Type: "member", Sector: "health"}
		w.apply(w.rec.Command(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: i}))
	})
	l := w.submit(question("tariff"), file(0, 60))
	got := w.nodes["pcsa"].run(l.Voucher)
	for i, line := range got {
		want := 0
		if i%10 != 9 {
			want = map[bool]int{true: 1}[i%3 != 2] + map[bool]int{true: 1}[i%5 == 0]
		}
		if len(line.Parts) != want {
			t.Fatalf("line %d: %d suppliers, want %d", i+1, len(line.Parts), want)
		}
	}
	for _, e := range w.nodes["alpha"].entries(l.Voucher, nodepb.Event_DECIDED) {
		if e.Supplier.GetInstitution() == "fund" {
			t.Error("it cleared for its own sector")
		}
	}
}

// A number that is replaced while the lot is under way ends in one line, once, whether or
// not the file holds the other one too.
func TestReplacedInMidLot(t *testing.T) {
	w := newWorld(t, 30)
	pcsa := w.nodes["pcsa"]
	replace := func(old, new int) *registrypb.NumberEvent {
		return &registrypb.NumberEvent{Subject: recordtest.SSIN(recordtest.Person(old)), Kind: registrypb.NumberEvent_REPLACED, Successor: recordtest.SSIN(recordtest.Person(new)), Date: 19500}
	}
	l := w.submit(question("inquiry"), file(0, 25))
	w.apply(w.rec.Command("numbers", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
		replace(0, 27), replace(3, 27), replace(6, 12)}}}))
	got := pcsa.run(l.Voucher)
	if r := got[0]; r.Successor != recordtest.Person(27) || len(r.Parts) == 0 || r.SameAs != 0 {
		t.Errorf("replaced by one that is not in the file: %v", r.ResultLine)
	}
	if r := got[3]; r.Successor != recordtest.Person(27) || r.SameAs != 1 || r.Reason != registrypb.Reason_DUPLICATE_LINE {
		t.Errorf("replaced by the same: %v", r.ResultLine)
	}
	if r := got[6]; r.Successor != recordtest.Person(12) || r.SameAs != 13 || r.Reason != registrypb.Reason_DUPLICATE_LINE {
		t.Errorf("replaced by one that is in the file: %v", r.ResultLine)
	}
	if w.nodes["office"].source.most() > 1 || w.nodes["fund"].source.most() > 1 {
		t.Error("somebody was asked about twice")
	}
}

// A number that is replaced after its subject was decided on, and before the supplier answers,
// brings what stands under the number that was asked, once; a line that comes later with the
// number that replaced it is a subject of its own, and is answered from both files.
func TestReplacedBetweenDecisionAndAnswer(t *testing.T) {
	w := newWorld(t, 100)
	pcsa, office := w.nodes["pcsa"], w.nodes["office"]
	pcsa.consultant.cfg.AtOnce = 1 // chunks of 50
	var replaced atomic.Bool
	w.spoil(func(c call) error {
		if c.method == "present" && !replaced.Swap(true) {
			w.apply(w.rec.Command("numbers", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
				{Subject: recordtest.SSIN(recordtest.Person(1)), Kind: registrypb.NumberEvent_REPLACED, Successor: recordtest.SSIN(recordtest.Person(97)), Date: 19500},
				{Subject: recordtest.SSIN(recordtest.Person(3)), Kind: registrypb.NumberEvent_REPLACED, Successor: recordtest.SSIN(recordtest.Person(200)), Date: 19500},
			}}}))
		}
		return nil
	}, nil)
	l := w.submit(question("inquiry"), file(0, 100))
	got := pcsa.run(l.Voucher)
	for _, i := range []int{1, 3} { // decided before: as asked
		if r := got[i]; r.Successor != "" || r.SameAs != 0 || len(r.Parts) != 1 || r.Parts[0].Supplier != "office" {
			t.Errorf("line %d: %v", i+1, r.ResultLine)
		}
	}
	if r := got[97]; r.Successor != "" || r.SameAs != 0 || len(r.Parts) != 1 || r.Parts[0].Supplier != "office" {
		t.Errorf("the number that replaced it: %v", r.ResultLine)
	}
	for i, want := range map[int]int{1: 2, 3: 1, 97: 1} { // the first's file is the other's too, now
		if k := office.source.times(recordtest.Person(i)); k != want {
			t.Errorf("the source was asked about number %d %d times, want %d", i, k, want)
		}
	}
	for p, k := range subjectsIn(office.entries(l.Voucher, nodepb.Event_SUPPLIED), personsOf(100)) {
		if k != 1 {
			t.Errorf("%s stands %d times in SUPPLIED", p, k)
		}
	}
}

// kill-like crashes: at every durable step of each side the node dies, before it or after,
// and comes back with its disk. The lot ends as if nothing had been, every subject stands
// once in the account of each node, and no source was asked twice about anything that was
// kept.
func TestCrashAtEveryStep(t *testing.T) {
	const n = 30
	var want []Line
	{
		w := newWorld(t, n)
		want = w.nodes["pcsa"].run(w.submit(question("inquiry"), file(0, n)).Voucher)
	}
	type crash struct {
		who   string
		step  string
		after bool
	}
	var all []crash
	for _, after := range []bool{false, true} {
		all = append(all,
			crash{"pcsa", "REQUESTED", after}, crash{"pcsa", "kept request", after}, crash{"pcsa", "kept clearances", after},
			crash{"pcsa", "ANSWERED", after}, crash{"pcsa", "kept lot", after}, crash{"pcsa", "LOT_ENDED", after},
			crash{"office", "kept answer", after}, crash{"office", "SUPPLIED", after},
			crash{"members", "kept decision", after}, crash{"members", "DECIDED", after})
	}
	for _, c := range all {
		w := newWorld(t, n)
		l := w.submit(question("inquiry"), file(0, n))
		victims := []string{c.who}
		if c.who == "members" {
			victims = members
		}
		var fired atomic.Bool
		died := make(chan string, 1)
		once := func(who string) error {
			if fired.Swap(true) {
				return nil
			}
			died <- who
			return errDisk
		}
		for _, v := range victims {
			node := w.nodes[v]
			onEntry := func(e *nodepb.Entry) error {
				if e.Event.String() == c.step {
					return once(v)
				}
				return nil
			}
			onRows := func(rows []outbox.Change) error {
				if slices.ContainsFunc(rows, func(r outbox.Change) bool { return stepOf(r) == c.step }) {
					return once(v)
				}
				return nil
			}
			if c.after {
				node.journal.after, node.outbox.after = onEntry, onRows
			} else {
				node.journal.before, node.outbox.before = onEntry, onRows
			}
		}
		if c.who == "pcsa" {
			w.nodes["pcsa"].runUntil(died)
			w.nodes["pcsa"].restart()
		}
		got := w.nodes["pcsa"].run(l.Voucher)
		if !fired.Load() {
			t.Fatalf("%+v: never came", c)
		}
		for i := range want {
			if want[i].Status != got[i].Status || want[i].Reason != got[i].Reason || !slices.EqualFunc(want[i].Parts, got[i].Parts, func(a, b *nodepb.ResultPart) bool { return proto.Equal(a, b) }) {
				t.Fatalf("%+v: line %d: %v, want %v", c, i+1, got[i].ResultLine, want[i].ResultLine)
			}
		}
		for who, event := range map[string]nodepb.Event{"pcsa": nodepb.Event_REQUESTED, "office": nodepb.Event_SUPPLIED} {
			for p, k := range subjectsIn(w.nodes[who].entries(l.Voucher, event), personsOf(n)) {
				if k > 1 {
					t.Fatalf("%+v: %s stands %d times in %s of %s", c, p, k, event, who)
				}
			}
		}
		for p, k := range subjectsIn(w.nodes["pcsa"].entries(l.Voucher, nodepb.Event_ANSWERED), personsOf(n)) {
			if k > 2 { // office and fund
				t.Fatalf("%+v: %s stands %d times in ANSWERED", c, p, k)
			}
		}
		// What a source gave and the supplier did not keep is asked again, and nothing else.
		if most := w.nodes["office"].source.most(); most > 1 && !(c.step == "kept answer" && !c.after) {
			t.Fatalf("%+v: a source was asked %d times about one subject", c, most)
		}
		for _, node := range w.nodes {
			node.shut()
		}
	}
}

// A reply of a clearing peer is lost with the process that asked. Who comes back while the
// clearances can be presented gets the very same decision; who comes back later has it made
// anew, once, by then: nobody can use the first one any more. So a subject stands in one
// peer's DECIDED as often as decisions ended unused, and once more.
func TestDecisionLostWithItsReply(t *testing.T) {
	const n = 30
	usual := bounds
	t.Cleanup(func() { bounds = usual })
	bounds.PresentLife, bounds.ReleaseLife = time.Minute, 2*time.Minute // longer than a slow machine stands still
	for _, c := range []struct {
		away  time.Duration
		after []time.Duration // the next kills, likewise between decision and reply
		times int
	}{
		{0, nil, 1},
		{bounds.PresentLife / 2, nil, 1},
		{bounds.PresentLife + time.Second, nil, 2},
		{0, []time.Duration{0, bounds.PresentLife + time.Second}, 2},
		{bounds.PresentLife + time.Second, []time.Duration{bounds.PresentLife + time.Second, 0}, 3},
	} {
		w := newWorld(t, n)
		pcsa := w.nodes["pcsa"]
		l := w.submit(question("inquiry"), file(0, n))
		for _, away := range append([]time.Duration{c.away}, c.after...) {
			died := make(chan string, 1)
			var dead atomic.Bool
			lost := func(c call) error {
				if c.method == "clear" && dead.Load() {
					return errLost // nobody asks the next peer
				}
				return nil
			}
			w.spoil(lost, func(c call, _ proto.Message) error {
				if c.method != "clear" {
					return nil
				}
				if !dead.Swap(true) {
					died <- c.to
				}
				return errLost
			})
			pcsa.runUntil(died)
			w.spoil(nil, nil)
			w.ahead.Add(int64(away))
			pcsa.restart()
		}
		pcsa.run(l.Voucher)
		var by string
		var decided []*nodepb.Entry
		for _, m := range members {
			if e := w.nodes[m].entries(l.Voucher, nodepb.Event_DECIDED); len(e) > 0 {
				by += m
				decided = e
			}
		}
		for p, k := range subjectsIn(decided, personsOf(n)) {
			i := slices.Index(personsOf(n), p)
			each := 1
			if i%10 != 9 && i%5 == 0 && i%3 != 2 {
				each = 2 // an entry for each supplier
			}
			if k != c.times*each {
				t.Fatalf("%+v: person %d stands %d times in DECIDED of %s, want %d", c, i, k, by, c.times*each)
			}
		}
		if !slices.Contains(members, by) || len(decided) == 0 {
			t.Fatalf("%+v: decided by %s", c, by)
		}
		// None was made while another could be presented.
		until, at := int64(0), int64(0)
		for _, e := range decided {
			if e.TimeUnixMs != at && e.TimeUnixMs < until {
				t.Errorf("%+v: decided at %d, while one could be presented until %d", c, e.TimeUnixMs, until)
			}
			at, until = e.TimeUnixMs, max(until, e.PresentByUnixMs)
		}
		if most := w.nodes["office"].source.most(); most != 1 {
			t.Errorf("%+v: the source was asked %d times", c, most)
		}
		for who, event := range map[string]nodepb.Event{"pcsa": nodepb.Event_REQUESTED, "office": nodepb.Event_SUPPLIED} {
			for p, k := range subjectsIn(w.nodes[who].entries(l.Voucher, event), personsOf(n)) {
				if k > 1 {
					t.Errorf("%+v: %s stands %d times in %s of %s", c, p, k, event, who)
				}
			}
		}
		for _, node := range w.nodes {
			node.shut()
		}
	}
}

// stepOf names what a row is.
func stepOf(c outbox.Change) string {
	switch {
	case c.Delete:
		return ""
	case c.Table == chunkRows:
		k := new(nodepb.KeptChunk)
		if proto.Unmarshal(c.Value, k) == nil && len(k.Parts) > 0 && len(k.Parts[0].Clearances) > 0 {
			return "kept clearances"
		}
		return "kept request"
	case c.Table == lotRows:
		return "kept lot"
	case c.Table == answers:
		return "kept answer"
	case c.Table == decided:
		return "kept decision"
	}
	return ""
}
