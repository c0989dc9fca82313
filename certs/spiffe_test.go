package certs_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func TestNodeSPIFFE(t *testing.T) {
	id, err := certs.NodeSPIFFE("demo.example", names.NodeID{Institution: "pension-office", Node: "n1"})
	if err != nil || id.String() != "spiffe://demo.example/institution/pension-office/node/n1" {
		t.Fatalf("%s, %v", id, err)
	}
}

func TestEveryNodeHasOneSPIFFEID(t *testing.T) {
	label := rapid.StringMatching(`[a-z0-9-]{1,63}`)
	rapid.Check(t, func(t *rapid.T) {
		mesh := names.MeshID(rapid.StringMatching(`[a-z0-9.-]{1,63}`).Draw(t, "mesh"))
		n := names.NodeID{Institution: names.InstitutionID(label.Draw(t, "institution")), Node: names.NodeName(label.Draw(t, "node"))}
		id, err := certs.NodeSPIFFE(mesh, n)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := certs.NodeOf(mesh, id); err != nil || back != n {
			t.Fatalf("%s came back as %s, %v", n, back, err)
		}
	})
}

func TestMalformedNamesHaveNoSPIFFEID(t *testing.T) {
	for _, c := range []struct {
		mesh names.MeshID
		n    names.NodeID
	}{
		{"", names.NodeID{Institution: "a", Node: "n"}},
		{"Demo", names.NodeID{Institution: "a", Node: "n"}},
		{"demo/institution", names.NodeID{Institution: "a", Node: "n"}},
		{"demo", names.NodeID{}},
		{"demo", names.NodeID{Institution: "a/node/b", Node: "n"}},
		{"demo", names.NodeID{Institution: "..", Node: "n"}},
		{"demo", names.NodeID{Institution: "a", Node: names.NodeName(strings.Repeat("n", 64))}},
	} {
		if id, err := certs.NodeSPIFFE(c.mesh, c.n); !errors.Is(err, names.ErrMalformed) {
			t.Errorf("%q %s: %s, %v", c.mesh, c.n, id, err)
		}
	}
}

func TestNodeOfRefuses(t *testing.T) {
	for text, want := range map[string]error{
		"spiffe://other/institution/a/node/n":     certs.ErrOtherMesh,
		"spiffe://demo.evil/institution/a/node/n": certs.ErrOtherMesh,
		"spiffe://demo":                             certs.ErrNotNode,
		"spiffe://demo/institution/a":               certs.ErrNotNode,
		"spiffe://demo/institution/a/node":          certs.ErrNotNode,
		"spiffe://demo/institution/a/node/n/more":   certs.ErrNotNode,
		"spiffe://demo/institution/A/node/n":        certs.ErrNotNode,
		"spiffe://demo/institution/a_b/node/n":      certs.ErrNotNode,
		"spiffe://demo/institutions/a/node/n":       certs.ErrNotNode,
		"spiffe://demo/x/institution/a/node/n":      certs.ErrNotNode,
		"spiffe://demo/node/n/institution/a":        certs.ErrNotNode,
		"spiffe://demo/institution/node/a/n":        certs.ErrNotNode,
		"spiffe://demo/institution/a.b/node/n":      certs.ErrNotNode,
		"spiffe://demo/spire/agent/join_token/abcd": certs.ErrNotNode,
	} {
		if n, err := certs.NodeOf("demo", spiffeid.RequireFromString(text)); !errors.Is(err, want) {
			t.Errorf("%s: %s, %v; want %v", text, n, err, want)
		}
	}
	if _, err := certs.NodeOf("demo", spiffeid.ID{}); err == nil {
		t.Error("the zero ID is a node")
	}
}

func FuzzNodeOf(f *testing.F) {
	f.Add("demo", "spiffe://demo/institution/a/node/n")
	f.Add("demo.example", "spiffe://demo.example/institution/pcsa-1/node/n-2")
	f.Add("demo", "spiffe://demo/institution/../node/n")
	f.Fuzz(func(t *testing.T, mesh, text string) {
		id, err := spiffeid.FromString(text)
		if err != nil {
			return
		}
		n, err := certs.NodeOf(names.MeshID(mesh), id)
		if err != nil {
			return
		}
		back, err := certs.NodeSPIFFE(names.MeshID(mesh), n)
		if err != nil || back != id {
			t.Fatalf("%s came back as %s, %v", id, back, err)
		}
	})
}
