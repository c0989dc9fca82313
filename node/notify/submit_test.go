package notify

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// A declaration goes to the authentic source alone, whoever may make it and has a file;
// once, with a receipt; and to nobody for whoever may not.
func TestSubmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.put(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
			Id: "z-declare", Deliberation: "DEMO-2024/018", RequesterType: "bank", RequesterQualities: []string{"client"}, Dataset: "address/v1",
			Fields: []string{"street", "city"}, Purpose: "moving", Modes: []string{"submission"}, Period: recordtest.Since(),
		}})
		bank := w.nodes["stranger"]
		bank.run()
		declare := func(at *testNode, person string, n int, record string) *Accepted {
			c := moved(person, n)
			c.Purpose, c.Record = "moving", []byte(record)
			a, err := at.publisher.Publish(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		good := `{"street":"Street 1","city":"City 1"}`
		if a := declare(bank, ann, 1, good); a.Reason != 0 {
			t.Fatalf("refused: %s", a.Reason)
		}
		want(t, "no file", declare(bank, bob, 2, good).Reason, registrypb.Reason_NOT_INTEGRATED)
		want(t, "no right", declare(w.nodes["pension"], ann, 3, good).Reason, registrypb.Reason_NOT_ALLOWED)
		// A field that the authorization does not have: the clearing peer says no to all of it.
		declare(bank, ann, 4, `{"street":"Street 1","city":"City 1","secret":"s"}`)
		time.Sleep(time.Hour)
		items := w.take("register")
		if len(items) != 1 || items[0].Kind != inbox.Declaration || items[0].From != "stranger" || string(items[0].Content) != "["+good+"]" {
			t.Errorf("the source received %v", contents(items))
		}
		for _, other := range []string{"pension", "health", "alpha"} {
			want(t, other, len(w.take(other)), 0)
		}
		want(t, "delivered", bank.journal.count(nodepb.Event_NOTICE_DELIVERED), 1)
		e := bank.journal.last(nodepb.Event_ADDRESSED)
		if e == nil || e.Reason != registrypb.Reason_NO_PERMITTED_FIELD || e.Mode != "submission" {
			t.Errorf("the field too many: %v", e)
		}
	})
}

// FuzzDeliver gives a recipient whatever bytes: it answers or refuses, and stores nothing.
func FuzzDeliver(f *testing.F) {
	w := newWorld(f)
	defer w.close()
	f.Add([]byte("p"), []byte("c"), []byte("n"), []byte(`[{"city":"x"}]`), make([]byte, 32))
	f.Add([]byte{}, []byte{0x0a, 0x01, 0x41}, []byte{0xff}, []byte(`[`), []byte{})
	f.Fuzz(func(t *testing.T, publication, clearance, notice, content, blinding []byte) {
		resp, err := w.nodes["pension"].recipient.Deliver(t.Context(), w.nodes["register"].id, &nodepb.DeliverRequest{Deliveries: []*nodepb.Delivery{
			{Publication: publication, Clearance: clearance, Notice: notice, Content: content, Blinding: blinding}}})
		if err != nil || len(resp.Outcomes) != 1 || len(resp.Outcomes[0].Receipt) > 0 {
			t.Errorf("%v %v", resp, err)
		}
	})
}
