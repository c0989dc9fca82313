package exchange

import (
	"bytes"
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// TestAnswersThatDoNotVerify lets a supplier, or somebody on the way, answer wrongly.
func TestAnswersThatDoNotVerify(t *testing.T) {
	type spoil = func(*world, *nodepb.PresentResponse)
	answer := func(f func(*world, []byte) []byte) spoil {
		return func(w *world, r *nodepb.PresentResponse) { r.Answer = f(w, r.Answer) }
	}
	change := func(f func(*nodepb.Answer)) spoil {
		return answer(func(w *world, raw []byte) []byte { return w.resign(raw, "office", f) })
	}
	// content is what a supplier says that signs whatever it likes.
	content := func(s string) spoil {
		return func(w *world, r *nodepb.PresentResponse) {
			r.Content = []byte(s)
			r.Answer = w.resign(r.Answer, "office", func(a *nodepb.Answer) { a.Commitment = commitment(r.Blinding, r.Content) })
		}
	}
	for name, spoil := range map[string]spoil{
		"nothing":           answer(func(*world, []byte) []byte { return nil }),
		"garbage":           answer(func(*world, []byte) []byte { return []byte("answer") }),
		"cut off":           answer(func(_ *world, raw []byte) []byte { return raw[:len(raw)-1] }),
		"oversized":         answer(func(_ *world, raw []byte) []byte { return append(raw, make([]byte, maxAnswer)...) }),
		"signed by another": answer(func(w *world, raw []byte) []byte { return w.resign(raw, "stranger", nil) }),
		"changed on its way": func(_ *world, r *nodepb.PresentResponse) {
			r.Content = bytes.Replace(r.Content, []byte("1500"), []byte("9500"), 1)
		},
		"no content":     func(_ *world, r *nodepb.PresentResponse) { r.Content = nil },
		"other blinding": func(_ *world, r *nodepb.PresentResponse) { r.Blinding[0] ^= 1 },
		// The border between blinding and content moves, and the hash stays.
		"moved border": func(_ *world, r *nodepb.PresentResponse) {
			r.Blinding, r.Content = append(r.Blinding, r.Content[0]), r.Content[1:]
		},
		"mesh":          change(func(a *nodepb.Answer) { a.Mesh = "other.test" }),
		"ticket":        change(func(a *nodepb.Answer) { a.Ticket = string(names.TicketOf(nil)) }),
		"supplier":      change(func(a *nodepb.Answer) { a.Supplier = ref("fund") }),
		"request":       change(func(a *nodepb.Answer) { a.RequestHash = make([]byte, 32) }),
		"clearance":     change(func(a *nodepb.Answer) { a.ClearanceHash = make([]byte, 32) }),
		"no commitment": change(func(a *nodepb.Answer) { a.Commitment = nil }),
		"no blinding":   func(_ *world, r *nodepb.PresentResponse) { r.Blinding = nil },
		"status":        change(func(a *nodepb.Answer) { a.Status = nodepb.Status_NO_DATA_FOUND }),
		"no status":     change(func(a *nodepb.Answer) { a.Status = 0 }),
		"withheld":      content(`[{"wage":1,"note":"not permitted"}]`),
		"nested object": content(`[[{"wage":1}]]`),
		"no array":      content(`{"wage":1}`),
		"twice":         content(`[{"wage":1,"wage":2}]`),
		"empty":         content(``),
		"trailing":      content(`[{"wage":1}] [{"note":1}]`),
		"too many":      content(`[` + string(bytes.Repeat([]byte(`{},`), MaxRecords)) + `{}]`),
		"too deep":      content(`[{"wage":` + string(bytes.Repeat([]byte(`[`), 60000)) + string(bytes.Repeat([]byte(`]`), 60000)) + `}]`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.spoilResponse(func(r *nodepb.PresentResponse) { spoil(w, r) })
			q := question()
			q.Suppliers = []names.InstitutionID{"office"}
			r := w.mustConsult(q)
			wantStatus(t, r, nodepb.Status_NO_RESULT, registrypb.Reason_SUPPLIER_ERROR)
			if r.Suppliers[0].Records != nil {
				t.Fatalf("%s", r.Suppliers[0].Records)
			}
			if e := w.node("pcsa").journal.of(nodepb.Event_ANSWERED)[0]; e.GetDetail() == "" || e.GetAnswerCommitment() != nil {
				t.Fatalf("journal: %v", e)
			}
		})
	}
}

// TestClearancesThatDoNotVerify lets every clearing peer lie: nothing is presented.
func TestClearancesThatDoNotVerify(t *testing.T) {
	change := func(f func(*registrypb.Clearance)) func(*world, string, []byte) []byte {
		return func(w *world, by string, raw []byte) []byte { return w.reclear(raw, by, f) }
	}
	for name, spoil := range map[string]func(w *world, by string, raw []byte) []byte{
		"garbage":           func(*world, string, []byte) []byte { return []byte("permit") },
		"oversized":         func(*world, string, []byte) []byte { return make([]byte, maxClearance+1) },
		"signed by another": func(w *world, _ string, raw []byte) []byte { return w.reclear(raw, "stranger", nil) },
		"mesh":              change(func(c *registrypb.Clearance) { c.Mesh = "other.test" }),
		"id":                change(func(c *registrypb.Clearance) { c.Id = nil }),
		"same id":           change(func(c *registrypb.Clearance) { c.Id = make([]byte, clearanceIDSize) }),
		"ticket":            change(func(c *registrypb.Clearance) { c.Ticket = "x" }),
		"clearer":           change(func(c *registrypb.Clearance) { c.Clearer = ref("stranger") }),
		"requester":         change(func(c *registrypb.Clearance) { c.Requester = ref("stranger") }),
		"same supplier":     change(func(c *registrypb.Clearance) { c.Supplier = "office" }),
		"itself":            change(func(c *registrypb.Clearance) { c.Supplier = "pcsa" }),
		"request":           change(func(c *registrypb.Clearance) { c.RequestHash = nil }),
		"subject":           change(func(c *registrypb.Clearance) { c.Subject.Number = absent }),
		"dataset":           change(func(c *registrypb.Clearance) { c.Dataset = "other/v1" }),
		"fields":            change(func(c *registrypb.Clearance) { c.Fields = []string{"employer"} }),
		"no fields":         change(func(c *registrypb.Clearance) { c.Fields = nil }),
		"period":            change(func(c *registrypb.Clearance) { c.Period = nil }),
		"purpose":           change(func(c *registrypb.Clearance) { c.Purpose = "curiosity" }),
		"late":              change(func(c *registrypb.Clearance) { c.PresentByUnixMs -= 60_000 }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.hurry()
			w.net.set(nil, func(c call, reply proto.Message) error {
				if r, ok := reply.(*registrypb.ClearResponse); ok {
					for i := range r.Clearances {
						r.Clearances[i] = spoil(w, string(c.to.Institution), r.Clearances[i])
					}
				}
				return nil
			})
			q := question()
			q.Fields = []names.FieldName{"wage"}
			wantStatus(t, w.mustConsult(q), nodepb.Status_NO_RESULT, registrypb.Reason_CLEARING_UNAVAILABLE)
			if w.log.count("pcsa present office")+w.log.count("pcsa present fund") != 0 {
				t.Fatal("it was presented")
			}
		})
	}
}

// TestOneClearingPeerLies: the next one is asked.
func TestOneClearingPeerLies(t *testing.T) {
	w := newWorld(t)
	first := true
	w.net.set(nil, func(_ call, reply proto.Message) error {
		if r, ok := reply.(*registrypb.ClearResponse); ok && first {
			first = false
			r.Clearances = r.Clearances[:1]
			r.Clearances[0] = []byte("permit")
		}
		return nil
	})
	wantStatus(t, w.mustConsult(question()), nodepb.Status_DATA_FOUND, none)
}

// TestResumeAfterLongOutage: the request that was kept has aged. Whether peers still
// clear it is theirs to say; a second effect there is never.
func TestResumeAfterLongOutage(t *testing.T) {
	w := newDiskWorld(t)
	pcsa := w.node("pcsa")
	pcsa.journal.setFail(func(e *nodepb.Entry) error {
		if e.GetEvent() == nodepb.Event_ANSWERED {
			return errDisk
		}
		return nil
	})
	if _, err := w.consult(question()); err == nil {
		t.Fatal("answered without a journal")
	}
	pcsa.journal.setFail(nil)
	pcsa.restart()
	w.clock.Add(30 * time.Second)
	r := w.mustConsult(question())
	if r.Status != nodepb.Status_DATA_FOUND && r.Reason != registrypb.Reason_STALE_REQUEST {
		t.Fatalf("%s %s", r.Status, r.Reason)
	}
	if n := w.log.count("office fetch"); n != 1 {
		t.Fatalf("%d fetches", n)
	}
}

func FuzzAnswer(f *testing.F) {
	payload, _ := proto.Marshal(&nodepb.Answer{Ticket: "x", Commitment: make([]byte, 32), Status: nodepb.Status_DATA_FOUND})
	good, _ := envelope.Sign(envelope.Answer, payload, signer())
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, opened, err := decodeAnswer(raw)
		if err == nil && (opened == nil || len(a.GetCommitment()) != 32) {
			t.Fatal("accepted without form")
		}
	})
}

func FuzzPresentation(f *testing.F) {
	j := new(journal)
	j.n = &testNode{w: &world{}}
	s := NewSupplier(SupplierConfig{Mesh: mesh, Self: node("office"), Journal: j, Registry: staleRegistry{}})
	request, _ := proto.Marshal(&registrypb.Request{Mesh: string(mesh), Subject: &registrypb.Subject{Scheme: "ssin", Number: person}})
	signed, _ := envelope.Sign(envelope.Request, request, signer())
	clearance, _ := proto.Marshal(&registrypb.Clearance{Id: make([]byte, clearanceIDSize)})
	cleared, _ := envelope.Sign(envelope.Clearance, clearance, signer())
	f.Add(signed, cleared)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, request, clearance []byte) {
		x, no := s.read(node("pcsa"), &nodepb.Presentation{Request: request, Clearance: clearance})
		if no == nil && (x.request == nil || len(x.clearance.GetId()) != clearanceIDSize) {
			t.Fatal("accepted without form")
		}
		// Whatever came, its entry can be made, and holds no number out of form.
		if e := x.entry(nodepb.Event_REFUSED); e.GetSubject() != nil {
			if _, err := subject.Belgian().Parse(subject.Scheme(e.GetSubject().GetScheme()), e.GetSubject().GetNumber()); err != nil {
				t.Fatal(err)
			}
		}
		if no != nil {
			if _, err := s.Present(context.Background(), node("pcsa"), &nodepb.Presentation{Request: request, Clearance: clearance}); err == nil {
				t.Fatal("answered")
			}
		}
	})
}
