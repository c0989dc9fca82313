package exchange

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// request signs a question as pcsa does.
func (w *world) request(q Question) []byte {
	w.t.Helper()
	a, err := canonical(q, w.node("pcsa").consultant.cfg.Schemes)
	if err != nil {
		w.t.Fatal(err)
	}
	payload, err := proto.Marshal(a.request(mesh, node("pcsa"), w.clock.Now().UnixMilli()))
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := envelope.Sign(envelope.Request, payload, w.signers["pcsa"])
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// cleared gives a presentation for office that alpha has really cleared.
func (w *world) cleared(request []byte) *nodepb.Presentation {
	w.t.Helper()
	resp, err := w.node("alpha").clear(context.Background(), node("pcsa"), &registrypb.ClearRequest{Request: request})
	if err != nil || resp.GetOutcome() != registrypb.Outcome_PERMIT {
		w.t.Fatal(resp, err)
	}
	for _, raw := range resp.GetClearances() {
		c := new(registrypb.Clearance)
		if err := openInto(envelope.Clearance, raw, c); err != nil {
			w.t.Fatal(err)
		}
		if c.GetSupplier() == "office" {
			return &nodepb.Presentation{Request: request, Clearance: raw}
		}
	}
	w.t.Fatal("no clearance for office")
	return nil
}

// present gives the whole response in its bytes, so that a test can compare them.
func (w *world) present(from string, p *nodepb.Presentation) ([]byte, error) {
	resp, err := w.node("office").supplier.Present(context.Background(), node(from), p)
	if resp == nil {
		return nil, err
	}
	raw, marshal := proto.MarshalOptions{Deterministic: true}.Marshal(resp)
	return raw, errors.Join(err, marshal)
}

func (w *world) mustPresent(p *nodepb.Presentation) []byte {
	w.t.Helper()
	answer, err := w.present("pcsa", p)
	if err != nil || len(answer) == 0 {
		w.t.Fatal(err)
	}
	return answer
}

// wantRefused insists on a refusal, on its journal entry, and that no data left.
func (w *world) wantRefused(from string, p *nodepb.Presentation, reason registrypb.Reason) {
	w.t.Helper()
	before := len(w.node("office").journal.of(nodepb.Event_REFUSED))
	answer, err := w.present(from, p)
	got, ok := refuses(err)
	if !ok || got != reason || answer != nil {
		w.t.Fatalf("%v with %d bytes, want %s", err, len(answer), reason)
	}
	refused := w.node("office").journal.of(nodepb.Event_REFUSED)
	if len(refused) != before+1 {
		w.t.Fatalf("%d refusals journaled, want one", len(refused)-before)
	}
	e := refused[before]
	if e.GetReason() != reason || e.GetRequester().GetInstitution() != from || e.GetSupplier().GetInstitution() != "office" || e.GetAnswerCommitment() != nil {
		w.t.Fatalf("journal: %v", e)
	}
}

func TestRetiredKeys(t *testing.T) {
	for _, who := range []string{"pcsa", "alpha"} {
		w := newWorld(t)
		p := w.cleared(w.request(question()))
		old, fresh := w.signers[who], signer()
		retire := func(pub ed25519.PublicKey, retired bool) *registrypb.Command {
			return &registrypb.Command{Body: &registrypb.Command_SetKey{SetKey: &registrypb.Key{
				Institution: who, Id: string(envelope.KeyID(pub)), PublicKey: pub, Retired: retired}}}
		}
		w.submit(who, retire(public(fresh), false))
		w.signers[who] = fresh
		w.submit(who, retire(public(old), true))
		w.wantRefused("pcsa", p, registrypb.Reason_CLEARANCE_INVALID)
	}
}

func TestReplay(t *testing.T) {
	w := newDiskWorld(t)
	office := w.node("office")
	p := w.cleared(w.request(question()))
	answer := w.mustPresent(p)
	again := func(want []byte) {
		t.Helper()
		if got := w.mustPresent(p); !bytes.Equal(got, want) {
			t.Fatal("another answer to the same clearance")
		}
	}
	again(answer)
	office.restart()
	again(answer)
	w.clock.Add(bounds.PresentLife + bounds.Skew + time.Millisecond) // it was presented in time once
	again(answer)
	if n := w.log.count("office fetch"); n != 1 {
		t.Fatalf("%d fetches", n)
	}
	supplied, resent := office.journal.of(nodepb.Event_SUPPLIED), office.journal.of(nodepb.Event_RESENT)
	if len(supplied) != 1 || len(resent) != 3 || !bytes.Equal(supplied[0].GetAnswerCommitment(), resent[2].GetAnswerCommitment()) {
		t.Fatalf("%d supplied, %d resent", len(supplied), len(resent))
	}

	w.wantRefused("stranger", p, registrypb.Reason_CLEARANCE_INVALID)
	// The same clearance in other bytes is not the one that was answered.
	other := &nodepb.Presentation{Request: p.Request, Clearance: append(slices.Clone(p.Clearance), p.Clearance[:2+int(p.Clearance[1])]...)}
	if bytes.Equal(sum(other.Clearance), sum(p.Clearance)) {
		t.Fatal("not other bytes")
	}
	w.wantRefused("pcsa", other, registrypb.Reason_CLEARANCE_EXPIRED)

	w.clock.Add(bounds.ReleaseLife)
	w.wantRefused("pcsa", p, registrypb.Reason_CLEARANCE_EXPIRED)
	office.restart()
	w.wantRefused("pcsa", p, registrypb.Reason_CLEARANCE_EXPIRED)
}

// TestReplayInOtherBytes presents a clearance, while it is in time, in an encoding
// that says the same in other bytes.
func TestReplayInOtherBytes(t *testing.T) {
	w := newWorld(t)
	p := w.cleared(w.request(question()))
	w.mustPresent(p)
	// Protobuf lets a field stand twice: the last one counts.
	p.Clearance = append(slices.Clone(p.Clearance), p.Clearance[:2+int(p.Clearance[1])]...)
	w.wantRefused("pcsa", p, registrypb.Reason_CLEARANCE_REPLAYED)
}

func TestResendAfterRevocation(t *testing.T) {
	w := newWorld(t)
	p := w.cleared(w.request(question()))
	w.mustPresent(p)
	w.revoke()
	w.wantRefused("pcsa", p, registrypb.Reason_REVOKED)
}

func TestAcknowledgedIsForgotten(t *testing.T) {
	w := newDiskWorld(t)
	office := w.node("office")
	request := w.request(question())
	p := w.cleared(request)
	w.mustPresent(p)
	id := clearanceID(t, p)
	ack := func(from string, id []byte) {
		t.Helper()
		if _, err := office.supplier.Acknowledge(context.Background(), node(from), &nodepb.Acknowledgement{ClearanceId: id}); err != nil {
			t.Fatal(err)
		}
	}
	ack("stranger", id)
	ack("pcsa", []byte("unknown"))
	w.mustPresent(p) // still kept: only the requester may say so
	ack("pcsa", id)
	for range 2 {
		w.wantRefused("pcsa", p, registrypb.Reason_CLEARANCE_REPLAYED)
		// Nor does another clearance for the same request get a second answer.
		w.wantRefused("pcsa", w.cleared(request), registrypb.Reason_CLEARANCE_REPLAYED)
		office.restart()
	}
	for _, table := range []outbox.Table{seenMarks, contents} {
		err := office.outbox.Each(table, func(_ string, v []byte) error {
			if bytes.Contains(v, []byte("1500.50")) {
				return errors.New("content is still kept")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ack("pcsa", id)
}

func clearanceID(t *testing.T, p *nodepb.Presentation) []byte {
	t.Helper()
	c := new(registrypb.Clearance)
	if err := openInto(envelope.Clearance, p.GetClearance(), c); err != nil {
		t.Fatal(err)
	}
	return c.GetId()
}

// TestSecondClearance clears one request twice: one effect, the same content, and
// an answer that names the clearance it is for.
func TestSecondClearance(t *testing.T) {
	w := newDiskWorld(t)
	request := w.request(question())
	first, second := w.cleared(request), w.cleared(request)
	ra, a := w.decode(w.mustPresent(first))
	w.node("office").source.set([]Record{Record(`{"employer":"changed","wage":1}`)}, nil, nil)
	w.node("office").restart()
	rb, b := w.decode(w.mustPresent(second))
	if !bytes.Equal(ra.Content, rb.Content) || !bytes.Equal(ra.Blinding, rb.Blinding) || bytes.Equal(a.ClearanceHash, b.ClearanceHash) {
		t.Fatalf("%v and %v", a, b)
	}
	if n := w.log.count("office fetch"); n != 1 {
		t.Fatalf("%d fetches", n)
	}
}

func (w *world) decode(raw []byte) (*nodepb.PresentResponse, *nodepb.Answer) {
	w.t.Helper()
	resp := new(nodepb.PresentResponse)
	if err := proto.Unmarshal(raw, resp); err != nil {
		w.t.Fatal(err)
	}
	a, opened, err := decodeAnswer(resp.Answer)
	if err != nil || !bytes.Equal(a.Commitment, commitment(resp.Blinding, resp.Content)) || !opened.VerifiedBy(public(w.signers["office"])) {
		w.t.Fatal(err)
	}
	return resp, a
}

func TestConcurrentPresentations(t *testing.T) {
	w := newWorld(t)
	p := w.cleared(w.request(question()))
	answers := make([][]byte, 6)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = w.mustPresent(p) })
	}
	all.Wait()
	for _, a := range answers {
		if !bytes.Equal(a, answers[0]) {
			t.Fatal("answers differ")
		}
	}
	if n := w.log.count("office fetch"); n != 1 {
		t.Fatalf("%d fetches", n)
	}
}

// TestRightsFallAwayWhileFetching takes rights and time away at the latest moment.
func TestRightsFallAwayWhileFetching(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(*world)
		reason registrypb.Reason
	}{
		"authorization revoked": {func(w *world) { w.revoke() }, registrypb.Reason_REVOKED},
		"requester suspended":   {func(w *world) { w.suspend("pcsa") }, registrypb.Reason_REVOKED},
		"own file withdrawn":    {func(w *world) { w.declare("office", "employee", true) }, registrypb.Reason_REVOKED},
		"view stale":            {func(w *world) { w.node("office").setStale(true) }, registrypb.Reason_REGISTRY_STALE},
		"release-by passed":     {func(w *world) { w.clock.Add(bounds.ReleaseLife + bounds.Skew + time.Millisecond) }, registrypb.Reason_CLEARANCE_EXPIRED},
	} {
		t.Run(name+" while fetching", func(t *testing.T) {
			w := newWorld(t)
			p := w.cleared(w.request(question()))
			w.node("office").source.set([]Record{Record(`{"employer":"x","wage":1}`)}, nil, func(context.Context, Query) { c.do(w) })
			w.wantRefused("pcsa", p, c.reason)
			if len(w.node("office").journal.of(nodepb.Event_SUPPLIED)) != 0 {
				t.Fatal("journaled as supplied")
			}
			if _, err := w.node("office").outbox.Get(contentKey(sum(p.Request))); !errors.Is(err, outbox.ErrNotFound) {
				t.Fatalf("content is kept: %v", err)
			}
		})
		t.Run(name+" while writing", func(t *testing.T) {
			w := newWorld(t)
			p := w.cleared(w.request(question()))
			var once sync.Once
			w.node("office").faulty.after = func() error { once.Do(func() { c.do(w) }); return nil }
			w.wantRefused("pcsa", p, c.reason)
		})
	}
}

// TestSlowSource hangs: the exchange must end with release-by, not later.
func TestSlowSource(t *testing.T) {
	w := newWorld(t)
	p := w.cleared(w.request(question()))
	w.clock.Add(bounds.PresentLife)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	w.node("office").source.set(nil, nil, func(ctx context.Context, _ Query) {
		if until, ok := ctx.Deadline(); !ok || time.Until(until) > bounds.ReleaseLife {
			t.Error("the source is given longer than release-by")
		}
		<-ctx.Done()
	})
	_, err := w.node("office").supplier.Present(ctx, node("pcsa"), p)
	if reason, _ := refuses(err); reason != registrypb.Reason_SUPPLIER_UNAVAILABLE {
		t.Fatal(err)
	}
	// The requester has gone, and its refusal is journaled all the same.
	if n := len(w.node("office").journal.of(nodepb.Event_REFUSED)); n != 1 {
		t.Fatalf("%d refusals", n)
	}
}

func TestJournalFailsAtTheSupplier(t *testing.T) {
	w := newWorld(t)
	office := w.node("office")
	p := w.cleared(w.request(question()))
	office.journal.setFail(failing)
	for range 2 {
		answer, err := w.present("pcsa", p)
		if reason, _ := refuses(err); reason != registrypb.Reason_JOURNAL_UNAVAILABLE || answer != nil {
			t.Fatal(reason, err)
		}
	}
	w.clock.Add(time.Hour) // a refusal that cannot be journaled gives no other word either
	if _, err := w.present("pcsa", p); !errors.As(err, new(*Refusal)) || err.Error() != (&Refusal{registrypb.Reason_JOURNAL_UNAVAILABLE}).Error() {
		t.Fatal(err)
	}
	w.clock.Add(-time.Hour)
	office.journal.setFail(nil)
	w.mustPresent(p)
	if n := w.log.count("office fetch"); n != 1 {
		t.Fatalf("%d fetches", n)
	}
}

// TestSeenMarksOutliveTheirClearance sweeps at every moment: a mark must never be
// gone while its clearance could still count.
func TestSeenMarksOutliveTheirClearance(t *testing.T) {
	w := newWorld(t)
	office := w.node("office")
	p := w.cleared(w.request(question()))
	w.mustPresent(p)
	if _, err := office.supplier.Acknowledge(context.Background(), node("pcsa"), &nodepb.Acknowledgement{ClearanceId: clearanceID(t, p)}); err != nil {
		t.Fatal(err)
	}
	for gone := false; !gone; w.clock.Add(time.Second) {
		if _, err := office.outbox.Sweep(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.present("pcsa", p); err == nil {
			t.Fatal("answered twice")
		}
		_, err := office.outbox.Get(seenKey(clearanceID(t, p)))
		gone = errors.Is(err, outbox.ErrNotFound)
	}
	if n := w.log.count("office fetch"); n != 1 {
		t.Fatalf("%d fetches", n)
	}
}
