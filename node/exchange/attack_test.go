package exchange

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestAttacks shows a supplier everything that is not a clearance for this exchange.
func TestAttacks(t *testing.T) {
	type attack struct {
		from   string
		reason registrypb.Reason
		change func(w *world, p *nodepb.Presentation)
	}
	const invalid, expired, revoked = registrypb.Reason_CLEARANCE_INVALID, registrypb.Reason_CLEARANCE_EXPIRED, registrypb.Reason_REVOKED
	attacks := map[string]attack{
		"no clearance":         {"pcsa", invalid, func(_ *world, p *nodepb.Presentation) { p.Clearance = nil }},
		"nothing at all":       {"pcsa", invalid, func(_ *world, p *nodepb.Presentation) { p.Reset() }},
		"garbage":              {"pcsa", invalid, func(_ *world, p *nodepb.Presentation) { p.Clearance = []byte("permit") }},
		"oversized":            {"pcsa", invalid, func(_ *world, p *nodepb.Presentation) { p.Clearance = make([]byte, maxClearance+1) }},
		"request as clearance": {"pcsa", invalid, func(_ *world, p *nodepb.Presentation) { p.Clearance = p.Request }},
		"another's connection": {"stranger", invalid, func(*world, *nodepb.Presentation) {}},
		"expired": {"pcsa", expired, func(w *world, _ *nodepb.Presentation) {
			w.clock.Add(bounds.PresentLife + bounds.Skew + time.Millisecond)
		}},
		"revoked":             {"pcsa", revoked, func(w *world, _ *nodepb.Presentation) { w.revoke() }},
		"requester suspended": {"pcsa", revoked, func(w *world, _ *nodepb.Presentation) { w.suspend("pcsa") }},
		"clearer suspended":   {"pcsa", invalid, func(w *world, _ *nodepb.Presentation) { w.suspend("alpha") }},
		"own file withdrawn":  {"pcsa", revoked, func(w *world, _ *nodepb.Presentation) { w.declare("office", "employee", true) }},
		"offering withdrawn":  {"pcsa", revoked, func(w *world, _ *nodepb.Presentation) { w.withdrawOffering("office") }},
		"stale view":          {"pcsa", registrypb.Reason_REGISTRY_STALE, func(w *world, _ *nodepb.Presentation) { w.node("office").setStale(true) }},
		"sector joined":       {"pcsa", invalid, func(w *world, _ *nodepb.Presentation) { w.sectorOf("office", "alpha") }},
		"requester's sector":  {"pcsa", invalid, func(w *world, _ *nodepb.Presentation) { w.sectorOf("pcsa", "alpha") }},
		"payload changed": {"pcsa", invalid, func(w *world, p *nodepb.Presentation) {
			p.Clearance = w.reseal(p.Clearance, func(b []byte) []byte { return bytes.Replace(b, []byte("wage"), []byte("note"), 1) })
		}},
		"request changed": {"pcsa", invalid, func(w *world, p *nodepb.Presentation) {
			p.Request = w.rerequest(p.Request, "pcsa", func(r *registrypb.Request) { r.Subject.Number = absent })
		}},
		"request of another": {"stranger", invalid, func(w *world, p *nodepb.Presentation) {
			p.Request = w.rerequest(p.Request, "stranger", func(r *registrypb.Request) { r.Requester = ref("stranger") })
		}},
		"request re-encoded": {"pcsa", invalid, func(w *world, p *nodepb.Presentation) { p.Request = append(slices.Clone(p.Request), 0x7a, 0) }},
		"grant of another": {"pcsa", invalid, func(w *world, p *nodepb.Presentation) {
			p.Clearance = w.reclear(p.Clearance, "alpha", func(c *registrypb.Clearance) { c.Grant = w.grant(node("beta"), "gamma") })
		}},
		"grant by no member": {"pcsa", invalid, func(w *world, p *nodepb.Presentation) {
			p.Clearance = w.reclear(p.Clearance, "alpha", func(c *registrypb.Clearance) { c.Grant = w.grant(node("alpha"), "stranger") })
		}},
		"no grant": {"pcsa", invalid, func(w *world, p *nodepb.Presentation) {
			p.Clearance = w.reclear(p.Clearance, "alpha", func(c *registrypb.Clearance) { c.Grant = nil })
		}},
		// A member that stood still between its grant and its signature.
		"old grant": {"pcsa", invalid, func(w *world, p *nodepb.Presentation) {
			grant := w.grant(node("alpha"), "gamma")
			w.clock.Add(bounds.Lease + bounds.ReleaseLife + bounds.Skew + time.Second)
			now := w.clock.Now()
			p.Request = w.rerequest(p.Request, "pcsa", func(r *registrypb.Request) { r.TimeUnixMs = now.UnixMilli() })
			p.Clearance = w.reclear(p.Clearance, "alpha", func(c *registrypb.Clearance) {
				c.Grant, c.RequestHash, c.Ticket = grant, sum(p.Request), string(names.TicketOf(p.Request))
				c.IssuedUnixMs, c.PresentByUnixMs = now.UnixMilli(), now.Add(bounds.PresentLife).UnixMilli()
				c.ReleaseByUnixMs = now.Add(bounds.ReleaseLife).UnixMilli()
			})
		}},
	}
	// Signed by who may not: parties, a non-member, and a non-member that lends a
	// member's name.
	for _, by := range []string{"pcsa", "office", "fund", "stranger"} {
		attacks["signed by "+by] = attack{"pcsa", invalid, func(w *world, p *nodepb.Presentation) {
			p.Clearance = w.reclear(p.Clearance, by, func(c *registrypb.Clearance) {
				c.Clearer = ref(by)
				c.Grant = w.grant(node(by), "gamma")
			})
		}}
		attacks["forged by "+by] = attack{"pcsa", invalid, func(w *world, p *nodepb.Presentation) { p.Clearance = w.reclear(p.Clearance, by, nil) }}
	}
	attacks["unsigned"] = attack{"pcsa", invalid, func(w *world, p *nodepb.Presentation) {
		c := new(registrypb.Clearance)
		p.Clearance = w.resignedByNobody(p.Clearance, c)
	}}
	// A member that clears what it should not: everything in a clearance must be
	// what the request and the authorization say.
	for what, change := range map[string]func(c *registrypb.Clearance){
		"mesh":          func(c *registrypb.Clearance) { c.Mesh = "other.test" },
		"id":            func(c *registrypb.Clearance) { c.Id = c.Id[:8] },
		"ticket":        func(c *registrypb.Clearance) { c.Ticket = string(names.TicketOf(nil)) },
		"clearer":       func(c *registrypb.Clearance) { c.Clearer = ref("beta") },
		"requester":     func(c *registrypb.Clearance) { c.Requester = ref("stranger") },
		"supplier":      func(c *registrypb.Clearance) { c.Supplier = "fund" },
		"request":       func(c *registrypb.Clearance) { c.RequestHash = make([]byte, 32) },
		"subject":       func(c *registrypb.Clearance) { c.Subject.Number = absent },
		"dataset":       func(c *registrypb.Clearance) { c.Dataset = "wages/v2" },
		"more fields":   func(c *registrypb.Clearance) { c.Fields = append(c.Fields, "note") },
		"other fields":  func(c *registrypb.Clearance) { c.Fields = []string{"note"} },
		"no fields":     func(c *registrypb.Clearance) { c.Fields = nil },
		"period":        func(c *registrypb.Clearance) { c.Period.From-- },
		"purpose":       func(c *registrypb.Clearance) { c.Purpose = "curiosity" },
		"mode":          func(c *registrypb.Clearance) { c.Mode = "batch" },
		"authorization": func(c *registrypb.Clearance) { c.Authorization = "demo-2" },
		"no qualities":  func(c *registrypb.Clearance) { c.SupplierQualities = nil },
		"longer":        func(c *registrypb.Clearance) { c.PresentByUnixMs += 60_000; c.ReleaseByUnixMs += 60_000 },
		"no end":        func(c *registrypb.Clearance) { c.ReleaseByUnixMs = 1 << 60 },
		"future":        func(c *registrypb.Clearance) { c.IssuedUnixMs += 10_000 },
	} {
		attacks["for another "+what] = attack{"pcsa", invalid, func(w *world, p *nodepb.Presentation) { p.Clearance = w.reclear(p.Clearance, "alpha", change) }}
	}
	attacks["for another quality"] = attack{"pcsa", revoked, func(w *world, p *nodepb.Presentation) {
		p.Clearance = w.reclear(p.Clearance, "alpha", func(c *registrypb.Clearance) { c.SupplierQualities = []string{"retired"} })
	}}
	for name, a := range attacks {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.realJournal("office")
			p := w.cleared(w.request(question()))
			a.change(w, p)
			w.wantRefused(a.from, p, a.reason)
			if w.log.count("office fetch") != 0 {
				t.Fatal("the source was asked")
			}
		})
	}
}

// resignedByNobody drops the signature.
func (w *world) resignedByNobody(raw []byte, c *registrypb.Clearance) []byte {
	if err := openInto(envelope.Clearance, raw, c); err != nil {
		w.t.Fatal(err)
	}
	payload, _ := proto.Marshal(c)
	out, err := envelope.Sign(envelope.Clearance, payload)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}
