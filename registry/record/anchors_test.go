package record_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func nodeOf(inst string) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(inst), Node: "n1"}
}

// anchor makes a note of an institution's journal, cosigned by the named members,
// each with the key of that name.
func anchor(t testing.TB, inst string, size int64, members ...string) []byte {
	t.Helper()
	raw, err := checkpoint.Sign(checkpoint.Origin(recordtest.Mesh, nodeOf(inst)), size, checkpoint.Hash{byte(size)}, recordtest.Key(inst))
	if err != nil {
		t.Fatal(err)
	}
	return cosign(t, raw, members...)
}

func cosign(t testing.TB, raw []byte, members ...string) []byte {
	t.Helper()
	n, err := checkpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	out := n.Bytes()
	for _, m := range members {
		line, err := n.Cosign(nodeOf(m), time.Unix(1_780_000_000, 0), recordtest.Key(m))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, line...)
	}
	return out
}

func setAnchors(notes ...[]byte) *registrypb.Command_SetAnchors {
	return &registrypb.Command_SetAnchors{SetAnchors: &registrypb.Anchors{Notes: notes}}
}

func (r *replica) anchored(inst string) (size int64) {
	r.t.Helper()
	a, err := record.NewView(r.state).Anchor(nodeOf(inst))
	if err != nil {
		r.t.Fatal(err)
	}
	if a == nil {
		return -1
	}
	return a.Checkpoint.Size
}

func (r *replica) expect(inst string, size int64) {
	r.t.Helper()
	if got := r.anchored(inst); got != size {
		r.t.Errorf("%s is anchored at %d, want %d", inst, got, size)
	}
}

func TestAnchors(t *testing.T) {
	r := founded(t)
	r.ok(r.w.Command("alpha", setAnchors(anchor(t, "office", 5, "alpha", "beta"), anchor(t, "gamma", 9, "gamma", "alpha", "beta"))))
	r.expect("office", 5)
	r.expect("gamma", 9)

	// What does not grow changes nothing, and nothing is remembered of it.
	before := dump(t, r.state)
	r.ok(r.w.Command("beta", setAnchors(anchor(t, "office", 5, "beta", "gamma"), anchor(t, "gamma", 8, "gamma", "alpha"))))
	if !maps.Equal(before, dump(t, r.state)) {
		t.Error("what does not grow left a trace")
	}
	// One that is not in order spoils no other.
	r.ok(r.w.Command("beta", setAnchors(anchor(t, "office", 7, "alpha"), []byte("no note"), anchor(t, "gamma", 10, "gamma", "alpha"))))
	r.expect("office", 5)
	r.expect("gamma", 10)
	// Of two notes of one journal the first counts.
	r.ok(r.w.Command("beta", setAnchors(anchor(t, "office", 11, "alpha", "beta"), anchor(t, "office", 12, "alpha", "beta"))))
	r.expect("office", 11)

	var listed []string
	v := record.NewView(r.state)
	if err := v.Anchors(names.NodeID{}, func(a *record.Anchor) error { listed = append(listed, a.Checkpoint.Node.String()); return nil }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(listed) != "[gamma/n1 office/n1]" {
		t.Error(listed)
	}
	if err := v.Anchors(nodeOf("gamma"), func(a *record.Anchor) error { listed = append(listed, a.Checkpoint.Node.String()); return nil }); err != nil || len(listed) != 3 {
		t.Error(listed, err)
	}
	// Nobody who follows is burdened.
	seen, err := v.VisibleTo("alpha", 1, 1000, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range seen {
		if c.Index >= r.index-3 {
			t.Error("a follower is sent anchors")
		}
	}
}

func TestAnchorsRefused(t *testing.T) {
	good := func(t testing.TB) []byte { return anchor(t, "office", 5, "alpha", "beta") }
	forged := func(t testing.TB) []byte {
		raw := anchor(t, "office", 5, "alpha")
		n, _ := checkpoint.Parse(raw)
		line, _ := n.Cosign(nodeOf("beta"), time.Unix(1, 0), recordtest.Key("office")) // in beta's name
		return append(raw, line...)
	}
	ofOther := func(t testing.TB) []byte { // a good cosignature of another checkpoint
		a, _ := checkpoint.Parse(anchor(t, "office", 4))
		line, _ := a.Cosign(nodeOf("beta"), time.Unix(1, 0), recordtest.Key("beta"))
		return append(anchor(t, "office", 5, "alpha"), line...)
	}
	cases := []struct {
		name string
		note func(testing.TB) []byte
		why  string
	}{
		{"too few", func(t testing.TB) []byte { return anchor(t, "office", 5, "alpha") }, "1 of 3"},
		{"none", func(t testing.TB) []byte { return anchor(t, "office", 5) }, "0 of 3"},
		{"same witness twice", func(t testing.TB) []byte { return anchor(t, "office", 5, "alpha", "alpha", "alpha") }, "1 of 3"},
		{"by no members", func(t testing.TB) []byte { return anchor(t, "office", 5, "office", "register", "alpha") }, "1 of 3"},
		{"forged", forged, "1 of 3"},
		{"of another checkpoint", ofOther, "1 of 3"},
		{"journal of nobody", func(t testing.TB) []byte { return anchor(t, "nobody", 5, "alpha", "beta") }, "no node"},
		{"journal without a node", func(t testing.TB) []byte { return anchor(t, "register", 5, "alpha", "beta") }, "no node"},
		{"no note", func(testing.TB) []byte { return []byte("x") }, "malformed"},
		{"signed by another", func(t testing.TB) []byte {
			raw, _ := checkpoint.Sign(checkpoint.Origin(recordtest.Mesh, nodeOf("office")), 5, checkpoint.Hash{}, recordtest.Key("register"))
			return cosign(t, raw, "alpha", "beta", "gamma")
		}, "no key in force"},
		{"another mesh", func(t testing.TB) []byte {
			raw, _ := checkpoint.Sign(checkpoint.Origin("other.mesh", nodeOf("office")), 5, checkpoint.Hash{}, recordtest.Key("office"))
			return cosign(t, raw, "alpha", "beta", "gamma")
		}, "another mesh"},
		{"larger than a note", func(t testing.TB) []byte {
			return append(good(t), []byte(strings.Repeat("— a AAAAAAAA\n", 900))...)
		}, "malformed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := founded(t)
			r.refused(r.w.Command("alpha", setAnchors(c.note(t))), c.why)
			r.expect("office", -1)
		})
	}
	t.Run("by one without a voting member", func(t *testing.T) {
		r := founded(t)
		r.refused(r.w.Command("office", setAnchors(good(t))), "no voting member")
	})
	t.Run("by operators", func(t *testing.T) {
		r := founded(t)
		r.refused(r.w.Command(record.Operators, setAnchors(good(t))), "may not write")
	})
	t.Run("signed by another member", func(t *testing.T) {
		r := founded(t)
		r.refused(r.w.Sign(r.w.Draft("alpha", setAnchors(good(t))), "beta"), "no key in force")
	})
	t.Run("on a chain", func(t *testing.T) {
		r := founded(t)
		c := r.w.Draft("alpha", setAnchors(good(t)))
		c.Chain, c.Sequence, c.Nonce = registrypb.Chain_DIRECTORY, 1, recordtest.Nonce()
		r.refused(r.w.Sign(c, "alpha"), "belongs on the chain")
		c = r.w.Draft("alpha", setAnchors(good(t)))
		c.Sequence = 1
		r.refused(r.w.Sign(c, "alpha"), "no chain")
		d := r.w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")})
		d.Chain, d.Sequence, d.Previous = registrypb.Chain_ANCHORS, 0, nil
		r.refused(r.w.Sign(d, "office"), "belongs on the chain")
	})
	t.Run("too many", func(t *testing.T) {
		r := founded(t)
		r.refused(r.w.Command("alpha", setAnchors(make([][]byte, record.MaxAnchors+1)...)), "want 1 to")
	})
	t.Run("keys retired", func(t *testing.T) {
		r := founded(t)
		k := recordtest.KeyRecord("beta", "beta-2")
		r.ok(r.w.Command("beta", &registrypb.Command_SetKey{SetKey: k}))
		old := recordtest.KeyRecord("beta", "beta")
		old.Retired = true
		r.ok(r.w.Command("beta", &registrypb.Command_SetKey{SetKey: old}))
		r.refused(r.w.Command("alpha", setAnchors(good(t))), "1 of 3")
	})
	t.Run("suspended member", func(t *testing.T) {
		r := founded(t)
		r.ok(r.w.Command(record.Operators, &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "beta", Suspended: true}}))
		r.refused(r.w.Command("alpha", setAnchors(good(t))), "1 of 3")
	})
}

// Replicas that apply the same commands, and one that applies only what is left of
// history as a snapshot does, hold the same bytes; and history stays bounded.
func TestAnchorsDeterministicAndBounded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	a, b := founded(t), founded(t)
	journals := []string{"alpha", "beta", "gamma", "office"}
	for range 80 {
		var notes [][]byte
		for range 1 + rnd.IntN(4) {
			inst := journals[rnd.IntN(len(journals))]
			members := []string{"alpha", "beta", "gamma"}[:1+rnd.IntN(3)]
			notes = append(notes, anchor(t, inst, int64(1+rnd.IntN(200)), members...))
		}
		raw := a.w.Command(journals[rnd.IntN(3)], setAnchors(notes...))
		resA, resB := a.apply(raw), b.apply(raw)
		if resA != resB {
			t.Fatalf("%+v and %+v", resA, resB)
		}
	}
	rows := dump(t, a.state)
	if !maps.Equal(rows, dump(t, b.state)) {
		t.Fatal("replicas differ")
	}
	again := &replica{t: t, w: a.w, state: new(record.MapState)}
	if err := record.Bootstrap(again.state, a.w.Rules); err != nil {
		t.Fatal(err)
	}
	commands := 0
	err := record.NewView(a.state).History(0, func(index uint64, raw []byte) error {
		commands++
		res, err := record.Apply(again.state, a.w.Rules, index, raw)
		if err == nil && !res.Accepted {
			t.Fatalf("index %d: %s", index, res.Refusal)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(rows, dump(t, again.state)) {
		t.Error("what is left of history gives other rows")
	}
	if most := 6 + len(journals); commands > most { // 6 commands founded the world
		t.Errorf("%d commands are kept, want at most %d", commands, most)
	}
}
