package record_test

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func declaration(t testing.TB, inst string, number int64, after, key string) []byte {
	t.Helper()
	payload, err := proto.Marshal(&registrypb.EpochDeclaration{
		Mesh: string(recordtest.Mesh), Node: &registrypb.NodeRef{Institution: inst, Node: "n1"}, Number: number, Id: make([]byte, 16),
		StartedUnixMs: 1, ResumesAt: 1, ResumesRoot: make([]byte, 32), After: after, StatementHash: make([]byte, 32),
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := envelope.Sign(envelope.EpochDeclaration, payload, recordtest.Key(key))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// inEpoch makes the office's checkpoint of an epoch, cosigned by the named members at their times.
func inEpoch(t testing.TB, epoch, size int64, at map[string]time.Time) []byte {
	t.Helper()
	raw, err := checkpoint.SignIn(epoch, checkpoint.Origin(recordtest.Mesh, nodeOf("office")), size, checkpoint.Hash{byte(size)}, recordtest.Key("office"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := checkpoint.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range slices.Sorted(maps.Keys(at)) {
		line, err := n.Cosign(nodeOf(m), at[m], recordtest.Key(m))
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, line...)
	}
	return raw
}

func (r *replica) last() string {
	r.t.Helper()
	a, err := record.NewView(r.state).Anchor(nodeOf("office"))
	if err != nil || a == nil {
		r.t.Fatal(a, err)
	}
	return a.Checkpoint.Text
}

func setEpoch(note []byte, declarations ...[]byte) *registrypb.Command_SetAnchors {
	return &registrypb.Command_SetAnchors{SetAnchors: &registrypb.Anchors{Notes: [][]byte{note}, Declarations: declarations}}
}

// Replicas hold a journal to its declarations and to their number, whoever leads and
// whoever cosigned; what is left of history gives the same rows.
func TestDeclaredEpochs(t *testing.T) {
	r := founded(t)
	now := time.Unix(1_780_000_000, 0)
	both := func(at time.Time) map[string]time.Time { return map[string]time.Time{"alpha": at, "beta": at} }
	for size := int64(3); size < 9; size++ {
		r.ok(r.w.Command("alpha", setAnchors(anchor(t, "office", size, "alpha", "beta"), anchor(t, "gamma", size, "alpha", "beta"))))
	}
	note := inEpoch(t, 2, 4, both(now))
	for why, d := range map[string][]byte{
		"0 bytes": nil, "another journal or epoch": declaration(t, "office", 3, r.last(), "office"),
		"no key in force": declaration(t, "office", 2, r.last(), "alpha"), "last anchored": declaration(t, "office", 2, "", "office"),
	} {
		c := setEpoch(note)
		if d != nil {
			c = setEpoch(note, d)
		}
		r.refused(r.w.Command("alpha", c), why)
	}
	r.refused(r.w.Command("alpha", setEpoch(note, declaration(t, "office", 2, r.last(), "office"), []byte("x"))), "2 declarations for 1")
	r.expect("office", 8)

	r.ok(r.w.Command("alpha", setEpoch(note, declaration(t, "office", 2, r.last(), "office"))))
	r.expect("office", 4)
	r.ok(r.w.Command("alpha", setEpoch(inEpoch(t, 2, 6, both(now))))) // the epoch stands
	// A member whose clock is in the future does not move the time of the epoch back, nor does one in the past.
	skewed := map[string]time.Time{"alpha": now, "beta": now.Add(-100 * 24 * time.Hour)}
	r.ok(r.w.Command("alpha", setEpoch(inEpoch(t, 3, 5, skewed), declaration(t, "office", 3, r.last(), "office"))))
	r.ok(r.w.Command("alpha", setEpoch(inEpoch(t, 9, 5, both(now)), declaration(t, "office", 9, r.last(), "office"))))
	for size := int64(9); size < 14; size++ { // other journals go on, and history is let go
		r.ok(r.w.Command("beta", setAnchors(anchor(t, "gamma", size, "alpha", "beta"))))
	}
	r.refused(r.w.Command("alpha", setEpoch(inEpoch(t, 10, 5, both(now.Add(29*24*time.Hour))), declaration(t, "office", 10, r.last(), "office"))), "3 were declared within 30 days")

	again := &replica{t: t, w: r.w, state: new(record.MapState)}
	if err := record.Bootstrap(again.state, r.w.Rules); err != nil {
		t.Fatal(err)
	}
	err := record.NewView(r.state).History(0, func(index uint64, raw []byte) error {
		res, err := record.Apply(again.state, r.w.Rules, index, raw)
		if err == nil && !res.Accepted {
			t.Fatalf("index %d: %s", index, res.Refusal)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(dump(t, r.state), dump(t, again.state)) {
		t.Error("what is left of history gives other rows")
	}

	later := now.Add(record.DeclaredPeriod + time.Hour)
	r.ok(r.w.Command("alpha", setEpoch(inEpoch(t, 10, 5, both(later)), declaration(t, "office", 10, r.last(), "office"))))
	all, err := record.NewView(r.state).DeclaredBy(nodeOf("office"))
	if err != nil || len(all) != 4 || all[0].Number != 2 || !all[1].Time.Equal(now) || !all[3].Time.Equal(later) {
		t.Errorf("%+v, %v", all, err)
	}
	if none, err := record.NewView(r.state).DeclaredBy(nodeOf("gamma")); err != nil || len(none) > 0 {
		t.Error(none, err)
	}
}

// A mesh whose members do not all know of declarations goes on as it did.
func TestEpochsAtTheFirstLevel(t *testing.T) {
	w := recordtest.New(t, "alpha", "beta", "gamma")
	w.Rules.Level = 1
	r := &replica{t: t, w: w, state: new(record.MapState)}
	if err := record.Bootstrap(r.state, w.Rules); err != nil {
		t.Fatal(err)
	}
	r.ok(w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"}))
	r.ok(w.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")}))
	at := map[string]time.Time{"alpha": time.Unix(1_780_000_000, 0), "beta": time.Unix(1_780_000_000, 0)}
	r.refused(w.Command("alpha", setEpoch(inEpoch(t, 2, 5, at), declaration(t, "office", 2, "", "office"))), "feature level 2")
	r.ok(w.Command("alpha", setEpoch(inEpoch(t, 2, 5, at))))
	r.expect("office", 5)
}

func FuzzOpenDeclaration(f *testing.F) {
	good := declaration(f, "office", 2, "text\n", "office")
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, opened, err := record.OpenDeclaration(raw)
		if err != nil {
			return
		}
		if d.Number < 2 || len(d.ResumesRoot) != 32 || len(opened.Payload) > record.MaxDeclaration {
			t.Error(d)
		}
		if got := record.DeclarationsOf([][]byte{raw, raw}); len(got) != 1 || !bytes.Equal(got[record.NodeID(d.Node)], raw) {
			t.Error(got)
		}
	})
}
