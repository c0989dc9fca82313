package registry_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry"
)

// TestEveryDiskIsLost saves a snapshot, takes every member's disk away, and brings the
// mesh back from the file alone; damaged and foreign files restore nothing.
func TestEveryDiskIsLost(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	for _, id := range []string{"i1", "i2"} {
		m.admit(id)
	}
	last := m.do(registry.NewAuthor(m.at(node("w1")), m.file.Mesh, "w1", key("w1")), references("74071238186")).Index
	m.waitApplied(m.members[0], last)
	var b bytes.Buffer
	index, err := m.at(m.members[0]).SaveSnapshot(m.ctx(patience), &b)
	if err != nil || index < last {
		t.Fatalf("saved up to %d of %d: %v", index, last, err)
	}
	saved := b.Bytes()
	want := m.history(m.members[0])
	if _, err := m.at(node("w1")).SaveSnapshot(context.Background(), &b); !errors.Is(err, registry.ErrNotMember) {
		t.Errorf("a watcher saves a part: %v", err)
	}
	m.admit("lost") // after the snapshot

	inspect := func(raw []byte) (*registry.SnapshotInfo, error) {
		return registry.InspectSnapshot(context.Background(), m.file, nil, t.TempDir(), bytes.NewReader(raw))
	}
	info, err := inspect(saved)
	if err != nil || info.Index != index || len(info.Members) != 3 || info.Institutions != 6 || info.Counts.References != 1 {
		t.Fatalf("inspected: %+v, %v", info, err)
	}
	for _, at := range []int{len(saved) / 3, len(saved) / 2, len(saved) - 9} {
		bad := bytes.Clone(saved)
		bad[at] ^= 1
		if _, err := inspect(bad); !errors.Is(err, registry.ErrBadSnapshot) {
			t.Errorf("a bit flipped at %d: %v", at, err)
		}
	}
	if _, err := inspect(saved[:len(saved)-20]); !errors.Is(err, registry.ErrBadSnapshot) {
		t.Errorf("cut off: %v", err)
	}

	for _, n := range m.members {
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range m.members {
		cfg := m.config(n)
		if _, err := registry.RestoreSnapshot(context.Background(), cfg, bytes.NewReader(saved)); !errors.Is(err, registry.ErrNotEmpty) {
			t.Fatalf("restored over what is there: %v", err)
		}
		if err := os.RemoveAll(filepath.Join(m.dir, string(n.Institution))); err != nil {
			t.Fatal(err)
		}
		if _, err := registry.RestoreSnapshot(context.Background(), cfg, bytes.NewReader(saved[:len(saved)/2])); !errors.Is(err, registry.ErrBadSnapshot) {
			t.Fatalf("restored from half a file: %v", err)
		}
		if _, err := registry.RestoreSnapshot(context.Background(), cfg, bytes.NewReader(saved)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range m.members {
		m.start(n)
	}
	for _, n := range m.members {
		m.waitApplied(n, index)
	}
	if m.history(m.members[1]) != want {
		t.Error("another history than was saved")
	}
	if m.has(m.members[2], "lost") {
		t.Error("what came after the snapshot is there")
	}
	after := m.admit("after")
	for _, n := range m.members {
		m.waitApplied(n, after.Index)
	}
	// The watcher was ahead: it does not believe the past that came back, and says so.
	if err := m.ended(node("w1")); !errors.Is(err, registry.ErrGap) {
		t.Errorf("the watcher that was ahead: %v", err)
	}
}
