package witness_test

import (
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/witness"
)

// What any member is told, the leader writes, together.
func TestAnchorsAreGathered(t *testing.T) {
	w := newWorld(t)
	var notes [][]byte
	for _, inst := range []string{"office", "gamma"} {
		notes = append(notes, w.anchored(newJournal(t, inst, 9, 9, ""), 5, "alpha", "beta", "gamma"))
	}
	gamma := w.members[node("gamma")]
	for i, from := range []string{"office", "gamma"} {
		resp, err := gamma.HandleAnchor(t.Context(), node(from), &registrypb.AnchorRequest{Notes: notes[i : i+1]})
		if err != nil || resp.Taken != 1 {
			t.Fatal(resp, err)
		}
	}
	w.leader = names.NodeID{}
	gamma.Flush(t.Context()) // nobody leads: they wait
	w.leader = node("alpha")
	gamma.Flush(t.Context())
	w.members[node("alpha")].Flush(t.Context())
	for range 3 { // there is nothing more to write
		gamma.Flush(t.Context())
		w.members[node("alpha")].Flush(t.Context())
	}
	if len(w.proposed) != 1 || w.size("office") != 5 || w.size("gamma") != 5 {
		t.Errorf("%d commands, sizes %d and %d", len(w.proposed), w.size("office"), w.size("gamma"))
	}
	// They are trimmed to what is needed, and prove themselves to who holds none.
	got, err := witness.FetchAnchors(t.Context(), peers{w, node("office")}, node("beta"), names.NodeID{}, mesh, w.View)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	one, err := witness.FetchAnchors(t.Context(), peers{w, node("office")}, node("beta"), node("office"), mesh, w.View)
	if err != nil || len(one) != 1 || one[0].Node != node("office") {
		t.Fatal(one, err)
	}
	for _, n := range got {
		if len(n.Witnesses()) != 2 {
			t.Errorf("%d cosignatures are kept, want 2 of 3", len(n.Witnesses()))
		}
	}
}

func TestAnchorsNotTaken(t *testing.T) {
	w := newWorld(t)
	j := newJournal(t, "office", 9, 9, "")
	good := w.anchored(j, 5, "alpha", "beta")
	for _, c := range []struct {
		name, from string
		note       []byte
		took       uint32
	}{
		{"too few", "office", j.note(5), 0},
		{"from another node", "nobody", good, 0},
		{"garbage", "office", []byte("x"), 0},
		{"passed on by a member", "beta", good, 1},
		{"waiting already", "office", good, 0},
	} {
		if resp := w.Anchor(t, c.from, c.note); resp.Taken != c.took {
			t.Errorf("%s: %d taken", c.name, resp.Taken)
		}
	}
	w.members[node("alpha")].Flush(t.Context())
	if resp := w.Anchor(t, "office", good); resp.Taken != 0 {
		t.Error("what stands is taken again")
	}
	if _, err := w.members[node("alpha")].HandleAnchor(t.Context(), node("office"), &registrypb.AnchorRequest{Notes: make([][]byte, witness.MaxAnchorNotes+1)}); err == nil {
		t.Error("too many are taken")
	}
}
