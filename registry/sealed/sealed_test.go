package sealed_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/sealed"
)

var storageKey = bytes.Repeat([]byte{7}, 32)

func TestLog(t *testing.T) {
	below := raft.NewInmemStore()
	s, err := sealed.Logs(below, storageKey)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("74071238186")
	if err := s.StoreLogs([]*raft.Log{{Index: 1, Term: 1, Data: secret}, {Index: 2, Term: 1}}); err != nil {
		t.Fatal(err)
	}
	var got, kept raft.Log
	if err := s.GetLog(1, &got); err != nil || !bytes.Equal(got.Data, secret) {
		t.Error(got.Data, err)
	}
	if err := s.GetLog(2, &got); err != nil || len(got.Data) != 0 {
		t.Error(got.Data, err)
	}
	if err := s.GetLog(3, &got); !errors.Is(err, raft.ErrLogNotFound) {
		t.Error("raft must recognise a missing entry:", err)
	}
	if err := below.GetLog(1, &kept); err != nil || bytes.Contains(kept.Data, secret) {
		t.Error("the entry lies open below", err)
	}
	// Another place, a changed bit, another key.
	moved := kept
	moved.Index = 5
	changed := kept
	changed.Index, changed.Data = 6, append([]byte{kept.Data[0] ^ 1}, kept.Data[1:]...)
	short := raft.Log{Index: 7, Data: []byte{1}}
	if err := below.StoreLogs([]*raft.Log{&moved, &changed, &short}); err != nil {
		t.Fatal(err)
	}
	for _, i := range []uint64{5, 6, 7} {
		if err := s.GetLog(i, &got); !errors.Is(err, sealed.ErrSealed) {
			t.Errorf("entry %d: %v", i, err)
		}
	}
	other, err := sealed.Logs(below, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.GetLog(1, &got); !errors.Is(err, sealed.ErrSealed) {
		t.Error(err)
	}
}

func TestSnapshots(t *testing.T) {
	dir := t.TempDir()
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, 10, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	s, err := sealed.Snapshots(files, storageKey)
	if err != nil {
		t.Fatal(err)
	}
	const chunk = 64 << 10
	for i, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 3*chunk + 17} {
		want := bytes.Repeat([]byte("secret"), size/6+1)[:size]
		sink, err := s.Create(1, uint64(i+1), 1, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(sink, io.LimitReader(bytes.NewReader(want), int64(size))); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		metas, err := s.List()
		if err != nil || metas[0].Size != int64(size) {
			t.Fatalf("listed %d bytes of %d: %v", metas[0].Size, size, err)
		}
		meta, r, err := s.Open(metas[0].ID)
		if err != nil || meta.Size != int64(size) {
			t.Fatal(meta, err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %d came back, %v", size, len(got), err)
		}
		disk, err := os.ReadFile(filepath.Join(dir, "snapshots", sink.ID(), "state.bin"))
		if err != nil || bytes.Contains(disk, []byte("secretsecret")) {
			t.Error("the snapshot lies open below", err)
		}
	}
}

// files is a raft.SnapshotStore of one snapshot of given bytes.
type files struct {
	raft.SnapshotStore
	raw []byte
}

func (f files) Open(string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return &raft.SnapshotMeta{Size: int64(len(f.raw))}, io.NopCloser(bytes.NewReader(f.raw)), nil
}

func TestDamagedSnapshot(t *testing.T) {
	dir := t.TempDir()
	below, err := raft.NewFileSnapshotStoreWithLogger(dir, 1, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	s, _ := sealed.Snapshots(below, storageKey)
	sink, err := s.Create(1, 1, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write(make([]byte, 200_000)); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "snapshots", sink.ID(), "state.bin"))
	if err != nil {
		t.Fatal(err)
	}
	const first, chunk = 32, 64<<10 + 16
	swapped := bytes.Clone(raw)
	copy(swapped[first:], raw[first+chunk:first+2*chunk])
	copy(swapped[first+chunk:], raw[first:first+chunk])
	flipped := bytes.Clone(raw)
	flipped[len(raw)-1] ^= 1
	for what, bad := range map[string][]byte{
		"empty": nil, "only a salt": raw[:first], "cut at a chunk": raw[:first+2*chunk], "cut within": raw[:first+chunk+9],
		"chunks exchanged": swapped, "one bit": flipped, "without its first chunk": append(bytes.Clone(raw[:first]), raw[first+chunk:]...),
	} {
		d, _ := sealed.Snapshots(files{below, bad}, storageKey)
		_, r, err := d.Open("x")
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, sealed.ErrSealed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzLog: no bytes that lie in a log are given as an entry, sealed or checked, but those
// that were stored there.
func FuzzLog(f *testing.F) {
	secret := []byte("74071238186")
	below := raft.NewInmemStore()
	whole, err := sealed.Logs(below, storageKey)
	if err != nil {
		f.Fatal(err)
	}
	checked := sealed.CheckedStore{LogStore: raft.NewInmemStore()}
	var one, two raft.Log
	for _, s := range []raft.LogStore{whole, checked} {
		if err := s.StoreLog(&raft.Log{Index: 1, Term: 1, Data: secret}); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(below.GetLog(1, &one), checked.LogStore.GetLog(1, &two)); err != nil {
		f.Fatal(err)
	}
	f.Add(one.Data, uint64(1), uint64(1))
	f.Add(two.Data, uint64(1), uint64(1))
	f.Add(two.Data, uint64(1), uint64(2))
	f.Add([]byte{}, uint64(1), uint64(1))
	f.Fuzz(func(t *testing.T, data []byte, index, term uint64) {
		if index == 0 {
			return
		}
		for i, open := range []func(raft.LogStore) (raft.LogStore, error){
			func(l raft.LogStore) (raft.LogStore, error) { return sealed.Logs(l, storageKey) },
			func(l raft.LogStore) (raft.LogStore, error) { return sealed.CheckedStore{LogStore: l}, nil },
		} {
			raw := raft.NewInmemStore()
			if err := raw.StoreLog(&raft.Log{Index: index, Term: term, Data: data}); err != nil {
				t.Fatal(err)
			}
			s, err := open(raw)
			if err != nil {
				t.Fatal(err)
			}
			var got raft.Log
			err = s.GetLog(index, &got)
			if err != nil && !errors.Is(err, sealed.ErrSealed) {
				t.Fatal(err)
			}
			if i == 0 && err == nil && (index != 1 || term != 1 || !bytes.Equal(got.Data, secret)) {
				t.Fatalf("%q was opened", got.Data)
			}
		}
	})
}

// TestChecked: any flipped bit, another place, or a cut, is noticed.
func TestChecked(t *testing.T) {
	below := raft.NewInmemStore()
	s := sealed.CheckedStore{LogStore: below}
	if err := s.StoreLogs([]*raft.Log{{Index: 1, Term: 3, Data: []byte("command")}, {Index: 2, Term: 3}}); err != nil {
		t.Fatal(err)
	}
	var got, kept raft.Log
	if err := s.GetLog(1, &got); err != nil || string(got.Data) != "command" {
		t.Fatal(got, err)
	}
	if err := s.GetLog(2, &got); err != nil || len(got.Data) != 0 {
		t.Fatal(got, err)
	}
	if err := s.GetLog(3, &got); !errors.Is(err, raft.ErrLogNotFound) {
		t.Fatal(err)
	}
	if err := below.GetLog(1, &kept); err != nil {
		t.Fatal(err)
	}
	wrong := func(l raft.Log) {
		t.Helper()
		if err := below.StoreLog(&l); err != nil {
			t.Fatal(err)
		}
		if err := s.GetLog(l.Index, &got); !errors.Is(err, sealed.ErrSealed) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for i := range 8 * len(kept.Data) {
		l := kept
		l.Data = bytes.Clone(kept.Data)
		l.Data[i/8] ^= 1 << (i % 8)
		wrong(l)
	}
	for i := range kept.Data {
		l := kept
		l.Data = kept.Data[:i]
		wrong(l)
	}
	moved, later, other := kept, kept, kept
	moved.Index, later.Term, other.Type = 4, 9, raft.LogConfiguration
	wrong(moved)
	wrong(later)
	wrong(other)
}

func TestCheckedStable(t *testing.T) {
	below := raft.NewInmemStore()
	s := sealed.CheckedStable{StableStore: quiet{below}}
	term, vote := []byte("CurrentTerm"), []byte("LastVoteCand")
	if n, err := s.GetUint64(term); n != 0 || err != nil {
		t.Errorf("of nothing: %d, %v", n, err)
	}
	if err := errors.Join(s.SetUint64(term, 7), s.Set(vote, []byte("m1/a"))); err != nil {
		t.Fatal(err)
	}
	n, err := s.GetUint64(term)
	v, err2 := s.Get(vote)
	if n != 7 || string(v) != "m1/a" || err != nil || err2 != nil {
		t.Errorf("%d %q %v %v", n, v, err, err2)
	}
	// Every flipped bit, every cut, and another key's value.
	kept, err := below.Get(term)
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(b []byte, what string) {
		t.Helper()
		if err := below.Set(term, b); err != nil {
			t.Fatal(err)
		}
		if n, err := s.GetUint64(term); !errors.Is(err, sealed.ErrSealed) {
			t.Errorf("%s: %d, %v", what, n, err)
		}
	}
	for i := range len(kept) * 8 {
		b := bytes.Clone(kept)
		b[i/8] ^= 1 << (i % 8)
		wrong(b, "a bit flipped")
	}
	for i := 1; i < len(kept); i++ {
		wrong(bytes.Clone(kept[:i]), "cut")
	}
	other, err := below.Get(vote)
	if err != nil {
		t.Fatal(err)
	}
	wrong(other, "another's")
}

// quiet says nothing of keys that are not there, as raft-wal does.
type quiet struct{ *raft.InmemStore }

func (q quiet) Get(k []byte) ([]byte, error) {
	v, err := q.InmemStore.Get(k)
	if err != nil {
		return nil, nil
	}
	return v, nil
}
