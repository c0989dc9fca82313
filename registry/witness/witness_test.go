package witness_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func TestAddCheckpoint(t *testing.T) {
	w := newWorld(t)
	j := newJournal(t, "office", 20, 20, "")
	line := w.cosigned("alpha", j, 0, 5)
	n, _ := checkpoint.Parse(append(j.note(5), line...))
	if at, ok := n.CosignedBy(node("alpha"), recordtest.Public("alpha")); !ok || at.Unix() != 1_780_000_000 {
		t.Error("cosignature does not verify")
	}
	w.cosigned("alpha", j, 5, 5) // asked again
	w.cosigned("alpha", j, 5, 8)
	w.cosigned("alpha", j, 8, 20)

	body := func(old int, proof []checkpoint.Hash, note []byte) []byte {
		return (&checkpoint.AddRequest{Old: int64(old), Proof: proof, Note: note}).Bytes()
	}
	otherMesh, _ := checkpoint.Sign(checkpoint.Origin("other.mesh", node("office")), 1, checkpoint.Hash{}, recordtest.Key("office"))
	otherKey, _ := checkpoint.Sign(checkpoint.Origin(mesh, node("office")), 25, checkpoint.Hash{}, recordtest.Key("beta"))
	for name, c := range map[string]struct {
		from   string
		body   []byte
		status uint32
		says   string
	}{
		"behind":               {"office", body(5, j.proof(5, 8), j.note(8)), 409, "20\n"},
		"from nothing":         {"office", body(0, nil, j.note(8)), 409, "20\n"},
		"old above size":       {"office", body(9, nil, j.note(8)), 400, ""},
		"garbage":              {"office", []byte("hello"), 400, ""},
		"no note":              {"office", []byte("old 20\n\nhello"), 400, ""},
		"another node's":       {"gamma", body(20, nil, j.note(20)), 404, ""},
		"another mesh":         {"office", body(0, nil, otherMesh), 404, ""},
		"signed by another":    {"office", body(20, nil, otherKey), 403, ""},
		"too large":            {"office", []byte(strings.Repeat("x", checkpoint.MaxAddRequest+1)), 400, ""},
		"first with a proof":   {"beta", body(0, []checkpoint.Hash{{}}, newJournal(t, "beta", 3, 3, "").note(3)), 422, ""},
		"node that no one set": {"nobody", body(0, nil, newJournal(t, "nobody", 3, 3, "").note(3)), 403, ""},
	} {
		if resp := w.showRaw("alpha", c.from, c.body); resp.Status != c.status || c.says != "" && string(resp.Body) != c.says {
			t.Errorf("%s: %d %s", name, resp.Status, resp.Body)
		}
	}
	if f := w.findings("alpha"); len(f) > 0 {
		t.Error("the honest is accused:", f)
	}
}

// A history that was rewritten is refused, and the evidence names who did it.
func TestRewrittenHistory(t *testing.T) {
	for _, c := range []struct {
		old, size int
		status    uint32
		says      string
	}{
		{5, 9, 422, "office/n1 signed two histories of its journal"},
		{5, 5, 409, "office/n1 signed two histories of its journal"},
		{4, 9, 422, "office/n1 signed two checkpoints and did not prove that one grew into the other"},
	} {
		w := newWorld(t)
		honest, forked := newJournal(t, "office", 9, 9, ""), newJournal(t, "office", 9, 2, "!")
		w.cosigned("alpha", honest, 0, c.old)
		for range 3 { // evidence is kept once
			if resp := w.show("alpha", forked, c.old, c.size); resp.Status != c.status {
				t.Fatalf("%d to %d: %d %s", c.old, c.size, resp.Status, resp.Body)
			}
		}
		if f := w.findings("alpha"); !slices.Equal(f, []string{c.says}) {
			t.Errorf("%d to %d: %q", c.old, c.size, f)
		}
		w.cosigned("alpha", honest, c.old, 9) // the true one goes on
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	w := newWorld(t)
	w.cosigned("alpha", newJournal(t, "office", 5, 5, ""), 0, 5)
	for i := range 40 {
		w.show("alpha", newJournal(t, "office", 5, 0, fmt.Sprint(i)), 5, 5)
	}
	if f := w.findings("alpha"); len(f) != 16 {
		t.Errorf("%d are kept", len(f))
	}
}

// Two histories, each shown to one member: whoever compares first has the evidence,
// whatever the sizes.
func TestTwoHistoriesShownToTwoMembers(t *testing.T) {
	for _, sizes := range [][2]int{{5, 5}, {5, 9}, {9, 5}, {6, 7}} {
		w := newWorld(t)
		honest, forked := newJournal(t, "office", 9, 9, ""), newJournal(t, "office", 9, 2, "!")
		w.cosigned("alpha", honest, 0, sizes[0])
		w.cosigned("beta", forked, 0, sizes[1])
		w.journals[node("office")] = honest // it sticks to one of its stories
		for range 2 {
			w.members[node("alpha")].Compare(t.Context())
			w.members[node("gamma")].Compare(t.Context()) // saw neither
		}
		f := w.findings("alpha")
		if len(f) != 1 || !strings.HasPrefix(f[0], "office/n1 signed two ") {
			t.Errorf("sizes %v: %q", sizes, f)
		}
		if sizes[0] == sizes[1] && f[0] != "office/n1 signed two histories of its journal" {
			t.Errorf("sizes %v: %q", sizes, f)
		}
		if f := w.findings("gamma"); len(f) > 0 {
			t.Errorf("gamma: %q", f)
		}
	}
}

// A member that forgets what it cosigned, as one that takes part in the fraud would,
// is named from its own cosignatures.
func TestMemberThatCosignsBothIsCaught(t *testing.T) {
	w := newWorld(t)
	honest, forked := newJournal(t, "office", 9, 9, ""), newJournal(t, "office", 9, 2, "!")
	note := w.anchored(honest, 5, "beta", "gamma")
	if resp := w.Anchor(t, "office", note); resp.Taken != 1 {
		t.Fatal("not taken")
	}
	w.members[node("alpha")].Flush(t.Context())
	// beta cosigns the other history, as with its memory wiped and rules ignored.
	n, _ := checkpoint.Parse(forked.note(5))
	line, err := n.Cosign(node("beta"), time.Unix(1_780_000_100, 0), recordtest.Key("beta"))
	if err != nil {
		t.Fatal(err)
	}
	w.members[node("beta")] = nil
	alpha := w.members[node("alpha")]
	if err := alpha.CompareNote(t.Context(), append(forked.note(5), line...)); err != nil {
		t.Fatal(err)
	}
	if f := w.findings("alpha"); !slices.Equal(f, []string{"office/n1 signed two histories of its journal; beta/n1 cosigned both"}) {
		t.Errorf("%q", f)
	}
}

// Honest journals at whatever sizes the members saw them: nobody is accused.
func TestComparingAccusesNoHonestJournal(t *testing.T) {
	w := newWorld(t)
	for i, inst := range []string{"office", "alpha", "beta", "gamma"} {
		j := newJournal(t, inst, 30, 30, "")
		w.journals[node(inst)] = j
		for k, m := range []string{"alpha", "beta", "gamma"} {
			w.cosigned(m, j, 0, 3+7*i%20+k)
		}
	}
	delete(w.journals, node("gamma")) // cannot be reached
	for range 6 {
		for _, m := range w.members {
			m.Compare(t.Context())
		}
	}
	for m := range w.members {
		if f := w.findings(string(m.Institution)); len(f) > 0 {
			t.Errorf("%s: %q", m, f)
		}
	}
}

// A member that lost its memory begins with what is anchored.
func TestNewMemberBeginsWithTheAnchor(t *testing.T) {
	w := newWorld(t)
	honest, forked := newJournal(t, "office", 9, 9, ""), newJournal(t, "office", 9, 2, "!")
	w.Anchor(t, "office", w.anchored(honest, 5, "alpha", "beta"))
	w.members[node("alpha")].Flush(t.Context())
	if resp := w.show("gamma", forked, 0, 9); resp.Status != 409 || string(resp.Body) != "5\n" {
		t.Fatalf("%d %s", resp.Status, resp.Body)
	}
	if resp := w.show("gamma", forked, 5, 9); resp.Status != 422 {
		t.Fatalf("%d %s", resp.Status, resp.Body)
	}
	w.cosigned("gamma", honest, 5, 9)
}

// Many callers with two histories at once: one history is cosigned, never both.
func TestOneHistoryUnderContention(t *testing.T) {
	w := newWorld(t)
	stories := []*journal{newJournal(t, "office", 30, 30, ""), newJournal(t, "office", 30, 0, "!")}
	var mu sync.Mutex
	cosigned := map[*journal]bool{}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			j := stories[i%2]
			for size, old := 1, 0; size <= 30; size++ {
				body := (&checkpoint.AddRequest{Old: int64(old), Proof: j.proof(old, size), Note: j.note(size)}).Bytes()
				resp, err := w.members[node("alpha")].HandleAddCheckpoint(t.Context(), node("office"), &registrypb.AddCheckpointRequest{Body: body})
				switch {
				case err != nil:
					t.Error(err)
				case resp.Status == 200:
					mu.Lock()
					cosigned[j] = true
					mu.Unlock()
					old = size
				case resp.Status == 409:
					fmt.Sscan(string(resp.Body), &old)
					size = max(size, old)
				}
			}
		})
	}
	wg.Wait()
	if len(cosigned) != 1 {
		t.Errorf("%d histories were cosigned", len(cosigned))
	}
}

// The disk as it is at any moment after a cosignature left holds what was cosigned; as
// it is before, nothing was released and either history may still come.
func TestCrashKeepsWhatWasCosigned(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.open("alpha", dir)
	honest, forked := newJournal(t, "office", 40, 40, ""), newJournal(t, "office", 40, 2, "!")
	for i, size := range []int{3, 7, 8, 20} {
		old := []int{0, 3, 7, 8}[i]
		w.cosigned("alpha", honest, old, size)
		// The machine stops here: nothing of the process survives, only its files.
		after := t.TempDir()
		copyDir(t, dir, after)
		live := w.members[node("alpha")]
		w.open("alpha", after)
		if resp := w.show("alpha", forked, size, size); resp.Status != 409 {
			t.Errorf("after %d: %d %s", size, resp.Status, resp.Body)
		}
		if resp := w.show("alpha", forked, old, size+1); resp.Status == 200 {
			t.Errorf("after %d: another history is cosigned", size)
		}
		w.cosigned("alpha", honest, size, size+1) // and the journal whose answer was lost goes on
		w.members[node("alpha")] = live
	}
}

// When the memory cannot be written nothing is cosigned.
func TestNoCosignatureWithoutMemory(t *testing.T) {
	w := newWorld(t)
	j := newJournal(t, "office", 9, 9, "")
	if err := w.members[node("alpha")].Close(); err != nil {
		t.Fatal(err)
	}
	resp, err := w.members[node("alpha")].HandleAddCheckpoint(t.Context(), node("office"),
		&registrypb.AddCheckpointRequest{Body: (&checkpoint.AddRequest{Note: j.note(9)}).Bytes()})
	if err == nil || resp != nil {
		t.Error("cosigned", resp)
	}
}

func copyDir(t *testing.T, from, to string) {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, d.Name()), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) Anchor(t *testing.T, from string, notes ...[]byte) *registrypb.AnchorResponse {
	t.Helper()
	resp, err := w.members[node("alpha")].HandleAnchor(t.Context(), node(from), &registrypb.AnchorRequest{Notes: notes})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (w *world) size(inst string) int64 {
	var size int64 = -1
	_ = w.View(func(v record.View) error {
		a, err := v.Anchor(node(inst))
		if a != nil {
			size = a.Checkpoint.Size
		}
		return err
	})
	return size
}

func rootOf(t testing.TB, j *journal, size int) checkpoint.Hash {
	t.Helper()
	n, err := checkpoint.Parse(j.note(size))
	if err != nil {
		t.Fatal(err)
	}
	return n.Root
}
