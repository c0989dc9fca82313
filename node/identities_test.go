package node

import (
	"errors"
	"fmt"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// TestIdentities: what is remembered is what certs says, errors are not remembered, and
// there is an end to it.
func TestIdentities(t *testing.T) {
	i := newIdentities("mesh.test")
	for n := range maxIdentities + 10 {
		node := names.NodeID{Institution: "office", Node: names.NodeName(fmt.Sprint("n", n))}
		for range 2 {
			id, err := i.of(node)
			want, _ := certs.NodeSPIFFE("mesh.test", node)
			if err != nil || id != want {
				t.Fatalf("%s: %s, %v", node, id, err)
			}
			if back, err := i.node(id); err != nil || back != node {
				t.Fatalf("%s: %s, %v", id, back, err)
			}
		}
	}
	if len(i.nodes) > maxIdentities || len(i.ids) > maxIdentities {
		t.Errorf("%d and %d are remembered", len(i.nodes), len(i.ids))
	}
	before := len(i.nodes)
	for range 2 {
		if _, err := i.node(spiffeid.RequireFromString("spiffe://other.test/institution/office/node/n1")); !errors.Is(err, certs.ErrOtherMesh) {
			t.Errorf("of another mesh: %v", err)
		}
		if _, err := i.node(spiffeid.RequireFromString("spiffe://mesh.test/institution/office")); !errors.Is(err, certs.ErrNotNode) {
			t.Errorf("no node: %v", err)
		}
		if _, err := i.of(names.NodeID{Institution: "NOT A NAME", Node: "n"}); err == nil {
			t.Error("a malformed name has an ID")
		}
	}
	if len(i.nodes) != before {
		t.Error("what failed is remembered")
	}
}
