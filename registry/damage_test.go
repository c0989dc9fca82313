package registry_test

import (
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
	"testing"
	"time"

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

// TestDamagedFilesOfAMinority flips bits in, and cuts, every kind of file that a member
// keeps. Whatever that does, the member never stands with another state than the others,
// and comes back, started again as often as it ends. More: REGISTRY_DAMAGES=200
func TestDamagedFilesOfAMinority(t *testing.T) {
	t.Parallel()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	if n, err := strconv.Atoi(os.Getenv("REGISTRY_DAMAGES")); err == nil {
		rounds = n
	}
	dice := rand.New(rand.NewPCG(uint64(rounds), 7))
	m := newMesh(t)
	log := new(syncBuffer)
	m.log = slog.New(slog.NewTextHandler(log, nil))
	for i := range 30 {
		m.admit(fmt.Sprintf("office%d", i))
	}
	for _, n := range m.members {
		m.waitApplied(n, m.at(m.leader()).AppliedIndex())
		if err := m.at(n).TakeSnapshot(); err != nil {
			t.Fatal(err)
		}
	}
	kinds := []string{".wal", "wal-meta.db", ".mem", ".vlog", "MANIFEST", "KEYREGISTRY", "CURRENT", "state.bin", "meta.json", ".sst", "DISCARD", ".run"}
	noticed, kept := 0, 0
	for round := range rounds {
		kind := kinds[round%len(kinds)]
		n := m.others(m.leader())[dice.IntN(2)]
		m.admit(fmt.Sprintf("later%d", round))
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
		path := m.fileOf(n, kind, dice)
		if path == "" {
			m.start(n)
			continue
		}
		before := len(log.String())
		how := damage(t, path, dice)
		m.admitThrough(m.others(n)[0], fmt.Sprintf("after%d", round))
		m.do(m.operators(m.others(n)[0]), suspend(fmt.Sprintf("after%d", round), true))
		other := m.at(m.others(n)[0])
		err := m.supervise(n, 30*time.Second, func(r *running) bool {
			if _, err := r.Standing(); err != nil || r.AppliedIndex() < other.AppliedIndex() {
				return false
			}
			mine, err := r.Now()
			theirs, err2 := other.Now()
			if err != nil || err2 != nil || mine.Index != theirs.Index {
				return false
			}
			if mine.Root != theirs.Root {
				t.Errorf("%s: it stands with another state", how)
			}
			return true
		})
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
	if _, err := m.at(n).WaitStanding(m.ctx(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if !m.has(n, "pcsa") {
		t.Error("it was not made anew")
	}
}
