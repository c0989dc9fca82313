package witness_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// restored is a journal of the office whose disk was put back to some of its entries.
type restored struct {
	*journal
	epoch   int64
	resumes int
	after   string // what it names as anchored last
	key     string // that signs the declaration
}

func (r *restored) declaration() []byte {
	r.t.Helper()
	root := rootOf(r.t, r.journal, r.resumes)
	id := sha256.Sum256(fmt.Append(nil, r.epoch, r.resumes, root))
	payload, err := proto.Marshal(&registrypb.EpochDeclaration{
		Mesh: string(mesh), Node: &registrypb.NodeRef{Institution: r.inst, Node: "n1"}, Number: r.epoch, Id: id[:16], StartedUnixMs: 1,
		ResumesAt: int64(r.resumes), ResumesRoot: root[:], After: r.after, StatementHash: make([]byte, 32),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	raw, err := envelope.Sign(envelope.EpochDeclaration, payload, recordtest.Key(r.key))
	if err != nil {
		r.t.Fatal(err)
	}
	return raw
}

func (r *restored) noteIn(size int) []byte {
	r.t.Helper()
	raw, err := checkpoint.SignIn(r.epoch, checkpoint.Origin(mesh, node(r.inst)), int64(size), rootOf(r.t, r.journal, size), recordtest.Key(r.inst))
	if err != nil {
		r.t.Fatal(err)
	}
	return raw
}

// tell shows a checkpoint with a declaration to a member.
func (w *world) tell(member string, r *restored, old, size int, declaration []byte) *registrypb.AddCheckpointResponse {
	w.t.Helper()
	body := (&checkpoint.AddRequest{Old: int64(old), Proof: r.proof(old, size), Note: r.noteIn(size)}).Bytes()
	resp, err := w.members[node(member)].HandleAddCheckpoint(w.t.Context(), node(r.inst), &registrypb.AddCheckpointRequest{Body: body, Declaration: declaration})
	if err != nil {
		w.t.Fatal(err)
	}
	return resp
}

// begun has members accept an epoch and gives its first checkpoint with their cosignatures.
func (w *world) begun(r *restored, old, size int, members ...string) []byte {
	w.t.Helper()
	raw := r.noteIn(size)
	for _, m := range members {
		resp := w.tell(m, r, old, size, r.declaration())
		if resp.Status != 200 {
			w.t.Fatalf("%s answers %d %s", m, resp.Status, resp.Body)
		}
		raw = append(raw, resp.Body...)
	}
	return raw
}

// write has the leader anchor a note.
func (w *world) write(note, declaration []byte) {
	w.t.Helper()
	req := &registrypb.AnchorRequest{Notes: [][]byte{note}}
	if declaration != nil {
		req.Declarations = [][]byte{declaration}
	}
	if _, err := w.members[node("alpha")].HandleAnchor(w.t.Context(), node("office"), req); err != nil {
		w.t.Fatal(err)
	}
	w.members[node("alpha")].Flush(w.t.Context())
}

func (w *world) anchor() (text string) {
	w.t.Helper()
	if err := w.View(func(v record.View) error {
		a, err := v.Anchor(node("office"))
		if a != nil {
			text = a.Checkpoint.Text
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return text
}

func (w *world) accepted() (numbers []int64) {
	w.t.Helper()
	if err := w.View(func(v record.View) error {
		return v.EachDeclared(func(d *record.Declared) error {
			numbers = append(numbers, d.Number)
			return nil
		})
	}); err != nil {
		w.t.Fatal(err)
	}
	return numbers
}

func (w *world) refused(member string) (says []string) {
	w.t.Helper()
	all, err := w.members[node(member)].Refused()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range all {
		says = append(says, fmt.Sprintf("%d: %s", r.Number, r.Why))
	}
	return says
}

// A declared restore begins a new epoch: nobody is accused, the members go on with it,
// and with no earlier one.
func TestDeclaredRestoreAccusesNobody(t *testing.T) {
	w := newWorld(t)
	before, log := newJournal(t, "office", 9, 9, ""), newJournal(t, "office", 9, 4, " after the restore")
	w.write(w.anchored(before, 7, "alpha", "beta"), nil)
	for _, m := range []string{"alpha", "beta"} {
		w.cosigned(m, before, 7, 9)
	}
	w.journals[node("office")] = log
	after := &restored{log, 2, 4, w.anchor(), "office"}
	if resp := w.tell("alpha", after, 0, 5, after.declaration()); resp.Status != 409 || string(resp.Body) != "4\n" {
		t.Fatalf("%d %s", resp.Status, resp.Body)
	}
	note := w.begun(after, 4, 5, "alpha", "beta")
	w.write(note, after.declaration())
	if w.anchor() != string(note[:strings.Index(string(note), "\n\n")+1]) || !slices.Equal(w.accepted(), []int64{2}) {
		t.Fatalf("anchored: %q, epochs %v", w.anchor(), w.accepted())
	}
	if resp := w.tell("alpha", after, 5, 7, nil); resp.Status != 200 { // the epoch stands
		t.Fatalf("%d %s", resp.Status, resp.Body)
	}
	if resp := w.tell("gamma", after, 5, 7, nil); resp.Status != 200 { // it saw neither
		t.Fatalf("%d %s", resp.Status, resp.Body)
	}
	if resp := w.show("alpha", before, 9, 9); resp.Status != 422 {
		t.Error("an epoch that is over is cosigned:", resp.Status)
	}
	for range 4 {
		for _, m := range w.members {
			m.Compare(t.Context())
		}
	}
	for m := range w.members {
		inst := string(m.Institution)
		if f, r := w.findings(inst), w.refused(inst); len(f)+len(r) > 0 {
			t.Errorf("%s: %q, %q", m, f, r)
		}
	}
	// Within the epoch a second history is caught as ever.
	other := &restored{newJournal(t, "office", 9, 2, "!"), 2, 4, "", "office"}
	if resp := w.tell("alpha", other, 7, 9, nil); resp.Status != 422 || len(w.findings("alpha")) != 1 {
		t.Error("a second history is not caught:", resp.Status)
	}
}

// A member that did not see an epoch begin holds to the registry: it cosigns nothing of
// what went before.
func TestMemberThatMissedAnEpoch(t *testing.T) {
	w := newWorld(t)
	before := newJournal(t, "office", 9, 9, "")
	w.write(w.anchored(before, 7, "alpha", "beta", "gamma"), nil)
	after := &restored{newJournal(t, "office", 9, 4, "!"), 2, 4, w.anchor(), "office"}
	w.write(w.begun(after, 4, 5, "alpha", "beta"), after.declaration())
	if resp := w.show("gamma", before, 7, 9); resp.Status != 422 {
		t.Errorf("%d %s", resp.Status, resp.Body)
	}
}

// Nothing but a declaration of the journal's own institution, of this very epoch, that
// names what is anchored last and what the log goes on from, begins an epoch.
func TestEpochsNotDeclared(t *testing.T) {
	w := newWorld(t)
	before := newJournal(t, "office", 9, 9, "")
	w.write(w.anchored(before, 3, "alpha", "beta"), nil)
	stale := w.anchor()
	for _, m := range []string{"alpha", "beta"} {
		w.cosigned(m, before, 3, 7)
	}
	n, _ := checkpoint.Parse(before.note(7))
	for _, m := range []string{"alpha", "beta"} {
		line, err := n.Cosign(node(m), w.clock(), recordtest.Key(m))
		if err != nil || n.Add(line) != nil {
			t.Fatal(err)
		}
	}
	w.write(n.Bytes(), nil)
	log := newJournal(t, "office", 12, 4, "!")
	good := restored{log, 2, 4, w.anchor(), "office"}
	with := func(change func(*restored)) []byte {
		r := good
		change(&r)
		return r.declaration()
	}
	for name, c := range map[string]struct {
		declaration []byte
		old         int
		status      uint32
		says        string
	}{
		"not at all":              {nil, 4, 403, "0 bytes"},
		"garbage":                 {[]byte("x"), 4, 403, ""},
		"too large":               {make([]byte, record.MaxDeclaration+1), 4, 403, "bytes"},
		"by another institution":  {with(func(r *restored) { r.key = "beta" }), 4, 403, "no key in force"},
		"of another's journal":    {with(func(r *restored) { r.journal = newJournal(t, "beta", 12, 4, "!") }), 4, 403, "another journal"},
		"of another epoch":        {with(func(r *restored) { r.epoch = 3 }), 4, 403, "another journal or epoch"},
		"naming what is older":    {with(func(r *restored) { r.after = stale }), 4, 403, "last anchored"},
		"naming nothing":          {with(func(r *restored) { r.after = "" }), 4, 403, "last anchored"},
		"naming what is not":      {with(func(r *restored) { r.after = "x" }), 4, 403, "last anchored"},
		"proven from elsewhere":   {good.declaration(), 3, 409, "4\n"},
		"on another log than its": {with(func(r *restored) { r.journal = before; r.resumes = 5 }), 5, 422, "join"},
		"as if nothing was lost":  {with(func(r *restored) { r.resumes = 8 }), 7, 422, "join"},
	} {
		resp := w.tell("alpha", &good, c.old, 9, c.declaration)
		if resp.Status != c.status || !strings.Contains(string(resp.Body), c.says) {
			t.Errorf("%s: %d %s", name, resp.Status, resp.Body)
		}
	}
	if r := w.refused("alpha"); len(r) != 2 || !strings.Contains(r[0], "does not go on") {
		t.Errorf("kept: %q", r)
	}
	if f := w.findings("alpha"); len(f) > 0 {
		t.Error(f)
	}
	w.cosigned("alpha", before, 7, 9) // nothing began

	// The key that is retired declares no more.
	w.do(w.w.Command("office", &registrypb.Command_SetKey{SetKey: recordtest.KeyRecord("office", "office-2")}))
	old := recordtest.KeyRecord("office", "office")
	old.Retired = true
	w.do(w.w.Command("office", &registrypb.Command_SetKey{SetKey: old}))
	n2, err := checkpoint.SignIn(2, checkpoint.Origin(mesh, node("office")), 9, rootOf(t, log, 9), recordtest.Key("office-2"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.members[node("alpha")].HandleAddCheckpoint(t.Context(), node("office"), &registrypb.AddCheckpointRequest{
		Body: (&checkpoint.AddRequest{Old: 4, Proof: log.proof(4, 9), Note: n2}).Bytes(), Declaration: good.declaration(),
	})
	if err != nil || resp.Status != 403 || !strings.Contains(string(resp.Body), "no key in force") {
		t.Errorf("%d %s, %v", resp.Status, resp.Body, err)
	}
}

// A declaration that says that nothing anchored was lost is held to it, and one that is true
// goes through.
func TestEpochThatLostNothing(t *testing.T) {
	w := newWorld(t)
	log := newJournal(t, "office", 12, 12, "")
	w.write(w.anchored(log, 5, "alpha", "beta"), nil)
	r := &restored{log, 2, 8, w.anchor(), "office"}
	w.write(w.begun(r, 5, 9, "alpha", "gamma"), r.declaration())
	if w.size("office") != 9 {
		t.Error(w.size("office"))
	}
}

// However a journal goes about it, members accept record.MaxDeclared of its epochs in
// record.DeclaredPeriod: anchored or not, with numbers left out, over a restart of the member, and
// by a member that remembers nothing. What is refused is kept for all to see.
func TestEpochsAreBounded(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	w.open("alpha", dir)
	w.write(w.anchored(newJournal(t, "office", 9, 9, ""), 7, "alpha", "beta"), nil)
	story := func(epoch int64) *restored {
		return &restored{newJournal(t, "office", 9, 2, fmt.Sprint("story ", epoch)), epoch, 2, w.anchor(), "office"}
	}
	first := story(2)
	w.write(w.begun(first, 2, 5, "alpha", "beta"), first.declaration())
	w.pass(24 * time.Hour)
	w.begun(story(3), 2, 5, "alpha") // never anchored
	third := story(7)
	w.write(w.begun(third, 2, 6, "alpha", "beta"), third.declaration())
	refuse := func(member string, r *restored) {
		t.Helper()
		resp := w.tell(member, r, 2, 8, r.declaration())
		if resp.Status != 403 || !strings.Contains(string(resp.Body), "3 were declared within 30 days") {
			t.Errorf("%s: %d %s", member, resp.Status, resp.Body)
		}
	}
	refuse("alpha", story(8))
	refuse("alpha", story(8)) // is kept once
	live := w.members[node("alpha")]
	copied := t.TempDir()
	copyDir(t, dir, copied)
	w.open("alpha", copied) // as after a crash
	refuse("alpha", story(9))
	if r := w.refused("alpha"); len(r) != 2 || !slices.ContainsFunc(r, func(s string) bool { return strings.HasPrefix(s, "8: ") }) {
		t.Errorf("kept: %q", r)
	}
	w.members[node("alpha")] = live

	// gamma remembers nothing, and holds to the registry: two there, and one it accepts.
	w.begun(story(10), 2, 5, "gamma")
	refuse("gamma", story(11))
	if got := w.accepted(); !slices.Equal(got, []int64{2, 7}) {
		t.Error(got)
	}

	// The first is 30 days past, and its place free; it is not forgotten.
	w.pass(record.DeclaredPeriod - 24*time.Hour)
	r := story(12)
	w.write(w.begun(r, 2, 5, "alpha", "beta"), r.declaration())
	if got := w.accepted(); !slices.Equal(got, []int64{2, 7, 12}) {
		t.Error(got)
	}
	for m := range w.members {
		if f := w.findings(string(m.Institution)); len(f) > 0 {
			t.Errorf("%s: %q", m, f)
		}
	}
}

// Many declarations at once: no more are accepted than one after the other.
func TestEpochsAreBoundedUnderContention(t *testing.T) {
	w := newWorld(t)
	results := make(chan uint32)
	for i := range 12 {
		r := &restored{newJournal(t, "office", 6, 2, fmt.Sprint(i)), int64(2 + i), 2, "", "office"}
		body, raw := (&checkpoint.AddRequest{Old: 2, Proof: r.proof(2, 5), Note: r.noteIn(5)}).Bytes(), r.declaration()
		go func() {
			resp, err := w.members[node("alpha")].HandleAddCheckpoint(t.Context(), node("office"), &registrypb.AddCheckpointRequest{Body: body, Declaration: raw})
			if err != nil {
				t.Error(err)
			}
			results <- resp.GetStatus()
		}()
	}
	taken := 0
	for range 12 {
		if <-results == 200 {
			taken++
		}
	}
	if taken == 0 || taken > record.MaxDeclared {
		t.Errorf("%d epochs were accepted", taken)
	}
}

// When the memory cannot be written an epoch does not begin.
func TestNoEpochWithoutMemory(t *testing.T) {
	w := newWorld(t)
	r := &restored{newJournal(t, "office", 9, 9, ""), 2, 4, "", "office"}
	alpha := w.members[node("alpha")]
	if err := alpha.Close(); err != nil {
		t.Fatal(err)
	}
	resp, err := alpha.HandleAddCheckpoint(t.Context(), node("office"), &registrypb.AddCheckpointRequest{
		Body: (&checkpoint.AddRequest{Old: 4, Proof: r.proof(4, 9), Note: r.noteIn(9)}).Bytes(), Declaration: r.declaration(),
	})
	if err == nil || resp != nil {
		t.Error("cosigned", resp)
	}
	if _, err := alpha.Refused(); err == nil {
		t.Error("a closed memory answers")
	}
}

// The leader gets no epoch into the registry that was not declared, whoever cosigned.
func TestEpochNotWrittenWithoutDeclaration(t *testing.T) {
	w := newWorld(t)
	w.write(w.anchored(newJournal(t, "office", 9, 9, ""), 7, "alpha", "beta"), nil)
	r := &restored{newJournal(t, "office", 9, 4, "!"), 2, 4, w.anchor(), "office"}
	note := w.begun(r, 4, 5, "alpha", "beta")
	w.write(note, nil)
	if w.size("office") != 7 {
		t.Error("it is anchored")
	}
	w.write(note, r.declaration())
	if w.size("office") != 5 {
		t.Error("it is not anchored")
	}
}
