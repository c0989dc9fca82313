package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/node/sector"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func (f *fakeReadings) Admit(_ context.Context, who reading.Reader, token []byte) (*reading.Admitted, error) {
	if err := f.allowed(who, token); err != nil {
		return nil, err
	}
	return &reading.Admitted{Subject: subject.Raw("ssin", person), From: someDay.AddDate(-30, 0, 0), Until: someDay.AddDate(1, 0, 0)}, nil
}

// standing makes the fakes a registry that a sector can rely on.
type standing struct{ *fakes }

func (standing) Standing() (lease.Standing, error) { return lease.Standing{}, nil }

type noPeers struct{ sector.Peers }

func (noPeers) Order(c []names.NodeID) []names.NodeID { return c }

// managing gives the server a managing body's desk, with one fund behind it.
func managing(t *testing.T, f *fakes) func(*Config) {
	t.Helper()
	key := bytes.Repeat([]byte{1}, 32)
	dir, err := directory.Open(directory.Config{Key: key, Schemes: subject.Belgian()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	box, err := outbox.Open(outbox.Config{StorageKey: key})
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.SetMember(directory.Member{Institution: "fund-a", Period: names.Period{From: names.Always, Until: names.Forever}}); err != nil {
		t.Fatal(err)
	}
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m, err := sector.NewManager(sector.ManagerConfig{
		Config:    sector.Config{Mesh: "demo.example", Self: names.NodeID{Institution: "pcsa", Node: "n1"}, Signer: signer, Registry: standing{f}, Peers: noPeers{}, Journal: f, Outbox: box},
		Directory: dir, Secret: key,
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Sector = &sector.Desk{Manager: m} }
}

func sectorBody(more string) string {
	return `{"changes":[{"subject":{"scheme":"ssin","number":"` + person + `"},"institution":"fund-a","quality":"insured","period":{"from":"2026-01-01","until":"2026-12-31"}` + more + `}]}`
}

func TestSectorDesk(t *testing.T) {
	f := &fakes{entries: []*nodepb.Entry{ownEntry()}}
	seed(t, f)
	s, log := newServer(t, f, managing(t, f))
	for _, tt := range []struct {
		path, body, token string
		status            int
		contains          string
	}{
		{"/v1/sector/references", sectorBody(""), "file-token", 403, "admin"},
		{"/v1/sector/references", `{"changes":[]}`, "ops-token", 400, "changes"},
		{"/v1/sector/references", strings.Replace(sectorBody(""), "fund-a", "fund-x", 1), "ops-token", 400, "fund-x is no member of the sector"},
		{"/v1/sector/references", strings.Replace(sectorBody(""), person, "74071238187", 1), "ops-token", 400, "changes[0].subject"},
		{"/v1/sector/references", sectorBody(`,"remove":true`), "ops-token", 400, "no such reference"},
		{"/v1/sector/references", sectorBody(""), "ops-token", 204, ""},
		{"/v1/sector/members", `{"institution":"nsso","period":{"from":"2026-01-01","until":"2026-12-31"}}`, "ops-token", 400, "does not list nsso"},
		{"/v1/sector/search", `{}`, "ops-token", 400, "at least one"},
		{"/v1/sector/search", `{"user":"alice"}`, "file-token", 403, "officer"},
		{"/v1/sector/view", `{"token":""}`, "file-token", 403, "forbidden"},
	} {
		w := ask(s, "POST", tt.path, tt.body, bearer(tt.token)...)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.contains) {
			t.Errorf("%s %s: %d %s", tt.path, tt.body, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), person) || strings.Contains(log.String(), person) {
			t.Errorf("%s: a number is told, or logged", tt.path)
		}
	}
	if n := len(f.entries); n < 2 || f.entries[n-1].GetEvent() != nodepb.Event_AFFILIATED || f.entries[n-1].GetMember() != "fund-a" {
		t.Errorf("the change is not journaled: %v", f.entries[len(f.entries)-1].GetEvent())
	}
	plain, _ := newServer(t, f)
	if w := ask(plain, "GET", "/v1/sector/members", "", bearer("ops-token")...); w.Code != 404 {
		t.Errorf("a node of no sector: %d", w.Code)
	}
}

// A cooperating institution does not tell the mesh who is with it, not even by mistake.
func TestCooperatingDeclaresNothing(t *testing.T) {
	f := &fakes{}
	seed(t, f)
	s, _ := newServer(t, f, func(c *Config) { c.Sector = &sector.Desk{Member: new(sector.Member)} })
	refs := `{"references":[{"subject":{"scheme":"ssin","number":"` + person + `"},"quality":"insured","period":{"from":"2026-01-01","until":"2026-12-31"}}]}`
	for _, path := range []string{"/v1/references", "/v1/references/withdraw"} {
		if w := ask(s, "POST", path, refs, bearer("ops-token")...); w.Code != 403 || len(f.done) > 0 {
			t.Errorf("%s: %d %s, %d commands", path, w.Code, w.Body, len(f.done))
		}
	}
}
