package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func filled(t testing.TB, w *recordtest.World) *Store {
	s := open(t, "", w)
	apply(t, s, Entry{1, w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})},
		Entry{2, w.Declare("office", recordtest.Reference(recordtest.Person(1), "x"))},
		Entry{7, w.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")})})
	return s
}

func snapshotOf(t testing.TB, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDamagedSnapshot flips and cuts: the store stays as it is.
func TestDamagedSnapshot(t *testing.T) {
	w := recordtest.New(t, "alpha")
	good := snapshotOf(t, filled(t, w))
	fingerprint := w.Rules.Fingerprint()
	read := func(b []byte) error {
		_, err := readSnapshot(bytes.NewReader(b), fingerprint, func(uint64, []byte) error { return nil })
		return err
	}
	if err := read(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := read(bad); !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
		if err := read(good[:i]); !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	s := open(t, t.TempDir(), w)
	apply(t, s, Entry{1, nil})
	before := dump(t, s)
	if err := s.Restore(bytes.NewReader(good[:len(good)-5])); !errors.Is(err, ErrBadSnapshot) {
		t.Errorf("restored a cut snapshot: %v", err)
	}
	broken := errors.New("broken wire")
	if err := s.Restore(io.MultiReader(bytes.NewReader(good[:200]), errReader{broken})); !errors.Is(err, broken) {
		t.Errorf("restored over a broken wire: %v", err)
	}
	if !maps.Equal(before, dump(t, s)) {
		t.Error("a failed restore changed rows")
	}
	apply(t, s, Entry{2, nil})
	others := recordtest.New(t, "beta")
	if err := s.Restore(bytes.NewReader(snapshotOf(t, filled(t, others)))); !errors.Is(err, record.ErrOtherRules) {
		t.Errorf("restored another mesh: %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestForgedSnapshot: well-formed snapshots by a member that lies.
func TestForgedSnapshot(t *testing.T) {
	w := recordtest.New(t, "alpha")
	admit := w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"})
	draft := w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")})
	good := w.Sign(draft, "office")
	for name, commands := range map[string][][]byte{
		"unsigned by its author": {admit, w.Sign(draft, "alpha")},
		"left out":               {good},
		"twice":                  {admit, admit},
		"nonsense":               {admit, []byte("nonsense!")},
	} {
		s := open(t, "", w)
		if err := s.Restore(bytes.NewReader(forge(w.Rules, 9, commands...))); !errors.Is(err, ErrBadSnapshot) {
			t.Errorf("%s: %v", name, err)
		}
		if s.AppliedIndex() != 0 {
			t.Errorf("%s: the index moved", name)
		}
	}
	s := open(t, "", w)
	if err := s.Restore(bytes.NewReader(forge(w.Rules, 9, admit, good))); err != nil || s.AppliedIndex() != 9 {
		t.Errorf("an honest one: %v", err)
	}
	if err := s.Restore(bytes.NewReader(forge(w.Rules, 2, admit, good))); !errors.Is(err, ErrBadSnapshot) {
		t.Errorf("an older one: %v", err)
	}
	if err := s.Restore(bytes.NewReader(forge(w.Rules, 1, admit, good))); !errors.Is(err, ErrBadSnapshot) {
		t.Errorf("one that goes past its own index: %v", err)
	}
}

func forge(r *record.Rules, applied uint64, commands ...[]byte) []byte {
	var b bytes.Buffer
	f := &Frozen{rules: r, index: applied}
	w := newFrameWriter(&b)
	w.head(f)
	for i, c := range commands {
		w.command(uint64(i+1), c)
	}
	if err := w.end(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// TestRestoreOnDisk: the new tables survive, the old are gone, and a restore that
// a crash interrupted leaves nothing behind.
func TestRestoreOnDisk(t *testing.T) {
	w := recordtest.New(t, "alpha")
	source := filled(t, w)
	dir := t.TempDir()
	s := open(t, dir, w)
	frozen, err := s.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	restored := make(chan struct{})
	var nils int
	s.OnApply(func(_ uint64, changes []Change) {
		if changes == nil {
			nils++
		}
		close(restored)
	})
	done := make(chan error)
	go func() { done <- s.Restore(bytes.NewReader(snapshotOf(t, source))) }()
	<-restored // what was frozen is still there to be written
	if _, err := frozen.WriteTo(io.Discard); err != nil || frozen.Index() != 0 {
		t.Errorf("frozen at %d: %v", frozen.Index(), err)
	}
	frozen.Release()
	frozen.Release()
	if err := <-done; err != nil || nils != 1 {
		t.Fatal(err)
	}
	want := dump(t, source)
	if !maps.Equal(want, dump(t, s)) {
		t.Error("restored other rows")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	leftover := filepath.Join(dir, "tables-3")
	if err := os.MkdirAll(leftover, 0o700); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, w)
	if !maps.Equal(want, dump(t, s)) || s.AppliedIndex() != 7 {
		t.Error("reopened with other rows")
	}
	names, err := filepath.Glob(filepath.Join(dir, "tables-*"))
	if err != nil || len(names) != 1 || filepath.Base(names[0]) != "tables-2" {
		t.Errorf("left on disk: %v, %v", names, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "CURRENT"), []byte("../elsewhere"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(badgerdb.Config{Dir: dir}, w.Rules); err == nil {
		t.Error("opened what is no database of its own")
	}
}

func FuzzReadSnapshot(f *testing.F) {
	w := recordtest.New(f, "alpha")
	f.Add(snapshotOf(f, filled(f, w)))
	f.Add(forge(w.Rules, 3, []byte("nonsense!")))
	huge := []byte(snapshotMagic)
	f.Add(binary.BigEndian.AppendUint64(huge, 1<<63))
	fingerprint := w.Rules.Fingerprint()
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.New()
		if _, err := readSnapshot(bytes.NewReader(b), fingerprint, func(_ uint64, e []byte) error { sum.Write(e); return nil }); err != nil && !errors.Is(err, ErrBadSnapshot) {
			t.Fatal(err)
		}
	})
}

// TestExpect wants a snapshot to end where its receiver was told, and to pass whole.
func TestExpect(t *testing.T) {
	w := recordtest.New(t, "alpha")
	from := filled(t, w)
	good := snapshotOf(t, from)
	for _, r := range []io.Reader{bytes.NewReader(good), iotest.OneByteReader(bytes.NewReader(good)), iotest.DataErrReader(bytes.NewReader(good))} {
		if got, err := io.ReadAll(Expect(from.AppliedIndex(), r)); err != nil || !bytes.Equal(got, good) {
			t.Errorf("%d of %d bytes passed: %v", len(got), len(good), err)
		}
	}
	to := open(t, t.TempDir(), w)
	for _, index := range []uint64{0, 6, 8, 1 << 62} {
		if err := to.Restore(Expect(index, bytes.NewReader(good))); !errors.Is(err, ErrBadSnapshot) {
			t.Errorf("a snapshot of index 7 is taken for one of %d: %v", index, err)
		}
	}
	for cut := range len(snapshotMagic) + 60 {
		if err := to.Restore(Expect(7, bytes.NewReader(good[:cut]))); !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	if to.AppliedIndex() != 0 {
		t.Errorf("it stands at %d", to.AppliedIndex())
	}
	if err := to.Restore(Expect(7, bytes.NewReader(good))); err != nil || to.AppliedIndex() != 7 {
		t.Error(to.AppliedIndex(), err)
	}
}
