package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
)

// witness is a Witnessing in memory.
type witness struct {
	notes    []*checkpoint.Note
	evidence []*checkpoint.Evidence
	declared []DeclaredEpoch
	err      error
}

func (w *witness) Anchors(context.Context) ([]*checkpoint.Note, error) { return w.notes, w.err }
func (w *witness) Evidence() ([]*checkpoint.Evidence, error)           { return w.evidence, w.err }
func (w *witness) Declared() ([]DeclaredEpoch, error)                  { return w.declared, w.err }

func noteOf(t *testing.T, size int64, root byte) *checkpoint.Note {
	t.Helper()
	id := names.NodeID{Institution: "nsso", Node: "n1"}
	raw, err := checkpoint.Sign(checkpoint.Origin("demo.example", id), size, checkpoint.Hash{root}, recordtest.Key("nsso"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := checkpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	line, err := n.Cosign(names.NodeID{Institution: "neo", Node: "n1"}, time.Unix(1_780_000_000, 0), recordtest.Key("neo"))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Add(line); err != nil {
		t.Fatal(err)
	}
	return n
}

// witnessed gives a server one anchor, one evidence and one metric.
func witnessed(t *testing.T) func(*Config) {
	a, b := noteOf(t, 5, 1), noteOf(t, 5, 2)
	w := &witness{notes: []*checkpoint.Note{a}, evidence: []*checkpoint.Evidence{
		checkpoint.NewEvidence(a, b, nil, names.NodeID{Institution: "neo", Node: "n1"}, time.Unix(1_780_000_000, 0)),
	}, declared: []DeclaredEpoch{{Journal: "nsso/n1", Epoch: 2, Time: time.Unix(1_780_000_000, 0).UTC(), Accepted: true, ResumesAt: 3, Anchored: 5,
		Says: "entries 3 to 4 were lost", Declaration: []byte("signed")}}}
	return func(c *Config) {
		c.Witnessing = w
		c.Metrics = func(context.Context) ([]byte, error) { return []byte("crossroads_up 1\n"), nil }
	}
}

func TestAnchorsWithoutMembers(t *testing.T) {
	s, _ := newServer(t, new(fakes), func(c *Config) { c.Witnessing = &witness{err: errors.New("no member answers")} })
	if w := ask(s, "GET", "/v1/anchors", ""); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "none answers") {
		t.Error(w.Code, w.Body)
	}
	s, _ = newServer(t, new(fakes))
	for _, path := range []string{"/v1/anchors", "/v1/evidence", "/metrics"} {
		if w := ask(s, "GET", path, ""); w.Code != http.StatusOK {
			t.Error(path, w.Code, w.Body)
		}
	}
}
