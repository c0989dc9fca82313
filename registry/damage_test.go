package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// supervise starts a node again as often as it ends, as a supervisor does, until ready.
func (m *mesh) supervise(n names.NodeID, within time.Duration, ready func(*running) bool) error {
	deadline := time.Now().Add(within)
	var ends []error
	for time.Now().Before(deadline) && len(ends) < 5 {
		r, err := registry.Open(m.config(n))
		if err != nil {
			ends = append(ends, err)
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		run := &running{Registry: r, id: n, cancel: cancel, done: make(chan error, 1)}
		go func() { run.done <- r.Run(ctx) }()
		m.f.mu.Lock()
		m.f.nodes[n] = r
		m.f.mu.Unlock()
		m.nodes[n] = run
		for ended := false; !ended && time.Now().Before(deadline); {
			select {
			case err := <-run.done:
				run.done <- nil
				ends, ended = append(ends, err), true
				_ = m.stop(n)
			case <-time.After(5 * time.Millisecond):
				if why := run.Agreement().Diverged; why != nil { // it goes on without clearing, for an operator to look
					ends, ended = append(ends, why, m.stop(n)), true
				} else if ready(run) {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("not well within %s; it ended with: %w", within, errors.Join(ends...))
}

// verifications counts how often members have read all that they keep.
type verifications struct {
	slog.Handler
	n *atomic.Int32
}

func (v verifications) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "registry: all files hold what was written" {
		v.n.Add(1)
	}
	return v.Handler.Handle(ctx, r)
}

// damagedMesh gives members that told in log of every damage, with a snapshot each.
func damagedMesh(t *testing.T) (m *mesh, log *syncBuffer, verified *atomic.Int32) {
	m, log, verified = newMesh(t), new(syncBuffer), new(atomic.Int32)
	for _, n := range m.members {
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
	}
	m.log = slog.New(verifications{slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}), verified})
	for _, n := range m.members {
		m.start(n)
	}
	for i := range 30 {
		m.admit(fmt.Sprintf("office%d", i))
	}
	for _, n := range m.members {
		m.waitApplied(n, m.at(m.leader()).AppliedIndex())
		if _, err := m.at(n).Compact(m.ctx(patience)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all have read what they keep", func() bool { return int(verified.Load()) == len(m.members) })
	return m, log, verified
}

// well reports whether a member stands where another one does, with the same state, and
// has read all that it keeps since it was started.
func (m *mesh) well(n names.NodeID, verified *atomic.Int32) func(*running) bool {
	before, other := verified.Load(), m.at(m.others(n)[0])
	return func(r *running) bool {
		if _, err := r.Standing(); err != nil || r.AppliedIndex() < other.AppliedIndex() || verified.Load() == before {
			return false
		}
		mine, err := r.Now()
		theirs, err2 := other.Now()
		if err != nil || err2 != nil || mine.Index != theirs.Index {
			return false
		}
		if mine.Root != theirs.Root {
			m.t.Error("it stands with another state")
		}
		return true
	}
}

// What lies before its last snapshot a member reads only when it leads and another one
// needs it: two would fail at once then, and no majority be left. So it is noticed before.
func TestDamageThatNobodyReads(t *testing.T) {
	t.Parallel()
	m, _, verified := damagedMesh(t)
	first := m.leader()
	n, cut := m.others(first)[0], m.others(first)[1]
	if err := m.stop(n); err != nil {
		t.Fatal(err)
	}
	path := m.fileOf(n, ".wal", rand.New(rand.NewPCG(1, 1)))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(bytes.TrimRight(b, "\x00"))/3] ^= 4
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	m.start(n)
	if err := m.ended(n); !errors.Is(err, registry.ErrLogDamaged) {
		t.Fatal(err)
	}
	if err := m.supervise(n, patience, m.well(n, verified)); err != nil {
		t.Fatal(err)
	}
	// Now it leads, and another one needs everything from it.
	eventually(t, "it leads", func() bool {
		_ = m.at(m.leader()).HandOver(n)
		return m.leader() == n
	})
	if err := m.stop(cut); err != nil {
		t.Fatal(err)
	}
	path = m.fileOf(cut, ".wal", rand.New(rand.NewPCG(1, 1)))
	if b, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(bytes.TrimRight(b, "\x00"))/2)); err != nil {
		t.Fatal(err)
	}
	if err := m.supervise(cut, patience, m.well(cut, verified)); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedFilesOfAMinority flips bits in, and cuts, every kind of file that a member
// keeps. Whatever that does, the member never stands with another state than the others,
// and comes back, started again as often as it ends. More: REGISTRY_DAMAGES=200
func TestDamagedFilesOfAMinority(t *testing.T) {
	t.Parallel()
	rounds := 13
	if testing.Short() {
		rounds = 3
	}
	if n, err := strconv.Atoi(os.Getenv("REGISTRY_DAMAGES")); err == nil {
		rounds = n
	}
	dice := rand.New(rand.NewPCG(uint64(rounds), 7))
	m, log, verified := damagedMesh(t)
	kinds := []string{".wal", "wal-meta.db", ".mem", ".vlog", "MANIFEST", "KEYREGISTRY", "CURRENT", "state.bin", "meta.json", ".sst", "DISCARD", ".run", ".wal"}
	noticed, kept := 0, 0
	for round := range rounds {
		kind := kinds[round%len(kinds)]
		if round%2 == 1 { // each must be able to give others what they lost
			if err := m.at(m.leader()).HandOver(m.others(m.leader())[dice.IntN(2)]); err != nil {
				t.Log(err)
			}
		}
		n := m.others(m.leader())[dice.IntN(2)]
		m.admit(fmt.Sprintf("later%d", round))
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
		path := m.fileOf(n, kind, dice)
		if path == "" {
			if err := m.supervise(n, patience, m.well(n, verified)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		before := len(log.String())
		how := damage(t, path, dice)
		m.admitThrough(m.others(n)[0], fmt.Sprintf("after%d", round))
		m.do(m.operators(m.others(n)[0]), suspend(fmt.Sprintf("after%d", round), true))
		err := m.supervise(n, patience, m.well(n, verified))
		if err != nil {
			t.Fatalf("round %d, %s: %v", round, how, err)
		}
		if said := log.String()[before:]; strings.Contains(said, "level=ERROR") {
			noticed++
		} else {
			kept++
		}
	}
	t.Logf("%d damages: %d told of, %d of what nobody reads again, or that was rewritten", rounds, noticed, kept)
}

// fileOf gives a file of that kind in the node's directory, or "".
func (m *mesh) fileOf(n names.NodeID, kind string, dice *rand.Rand) string {
	var found []string
	_ = filepath.WalkDir(filepath.Join(m.dir, string(n.Institution), "member"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, kind) && !strings.Contains(path, "set-aside") {
			if info, err := d.Info(); err == nil && info.Size() > 0 {
				found = append(found, path)
			}
		}
		return nil
	})
	if len(found) == 0 {
		return ""
	}
	return found[dice.IntN(len(found))]
}

// damage flips one bit of what a file holds, or cuts it, and says what it did.
func damage(t *testing.T, path string, dice *rand.Rand) string {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(b)
	for used > 1 && b[used-1] == 0 { // files are made larger than they are used
		used--
	}
	name := filepath.Base(path)
	if strings.HasSuffix(path, ".sst") {
		used /= 2 // what its end says makes Badger panic, see TestTablesThatEndTheProgram
	} else if dice.IntN(3) == 0 {
		if err := os.Truncate(path, int64(used/2)); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s cut at %d of %d", name, used/2, used)
	}
	at := dice.IntN(used)
	b[at] ^= 1 << dice.IntN(8)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s: a bit of byte %d of %d flipped", name, at, used)
}

// bbolt, which holds how a member voted, trusts its file. Wherever that is cut, and whatever
// is written over it, the log is opened or an error says why not.
func TestBookkeepingThatIsDamaged(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	log, err := registry.Files.OpenLog(from, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.SetUint64([]byte("CurrentTerm"), 3), log.StoreLog(&raft.Log{Index: 1, Data: []byte("x")}), log.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(from, "wal-meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(from, "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	refused := 0
	try := func(meta []byte) {
		t.Helper()
		dir := t.TempDir()
		if err := errors.Join(os.Link(segments[0], filepath.Join(dir, filepath.Base(segments[0]))), os.WriteFile(filepath.Join(dir, "wal-meta.db"), meta, 0o600)); err != nil {
			t.Fatal(err)
		}
		log, err := registry.Files.OpenLog(dir, hclog.NewNullLogger())
		if err != nil {
			refused++
			return
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
	for size := 1; size < len(whole); size += 1 << 10 {
		try(whole[:size])
	}
	dice := rand.New(rand.NewPCG(3, 3))
	for range 40 {
		b := bytes.Clone(whole)
		for i := range 64 {
			b[dice.IntN(len(b)/64)*64+i] = byte(dice.Uint32())
		}
		try(b)
	}
	if refused == 0 {
		t.Error("everything was opened")
	}
}

// Badger ends the process when a table was cut. When that has happened twice, the tables
// are set aside.
func TestTablesThatEndTheProgram(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.admit("pcsa")
	n := m.others(m.leader())[0]
	m.waitApplied(n, m.at(m.leader()).AppliedIndex())
	if err := m.stop(n); err != nil {
		t.Fatal(err)
	}
	path := m.fileOf(n, ".sst", rand.New(rand.NewPCG(1, 1)))
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, string(n.Institution), "member", "OPENING"), []byte(".."), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start(n)
	if _, err := m.at(n).WaitStanding(m.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	if !m.has(n, "pcsa") {
		t.Error("it was not made anew")
	}
}
