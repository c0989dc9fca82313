package registry_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// meddle changes rows of a stopped node's tables; with unhash, as a program would that
// computes something else, so that the hash is of the changed rows.
func (m *mesh) meddle(n names.NodeID, unhash bool, rows map[string]string) {
	m.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(m.dir, string(n.Institution), "*", "state", "tables-*"))
	if err != nil || len(dirs) != 1 {
		m.t.Fatal(dirs, err)
	}
	storageKey := sha256.Sum256([]byte("disk of " + n.String()))
	db, err := badgerdb.Open(badgerdb.Config{Dir: dirs[0], Key: storageKey[:]})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := db.Update(func(txn *badger.Txn) error {
		if unhash {
			if err := txn.Delete(record.StateHashKey('v')); err != nil {
				return err
			}
			for b := range 256 {
				if err := txn.Delete(record.StateHashKey('s', byte(b))); err != nil {
					return err
				}
			}
		}
		for k, v := range rows {
			if err := txn.Set([]byte(k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		m.t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// A member whose tables hold what no command wrote stops, says which row it is, and comes
// back with tables made anew; the others go on, and name it.
func TestOneThatDiffersStopsAndSaysWhere(t *testing.T) {
	t.Parallel()
	for name, hashed := range map[string]bool{"it computed something else": true, "its disk was changed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			log := new(syncBuffer)
			m.log = slog.New(slog.NewTextHandler(log, nil))
			m.admit("pcsa")
			wrong := m.others(m.leader())[0]
			m.waitApplied(wrong, m.at(m.leader()).AppliedIndex())
			if err := m.stop(wrong); err != nil {
				t.Fatal(err)
			}
			m.meddle(wrong, hashed, map[string]string{"spcsa": "\x01"}) // suspended, here alone
			run := m.start(wrong)
			m.admitThrough(m.others(wrong)[0], "other")
			m.do(m.operators(m.others(wrong)[0]), suspend("other", true))
			eventually(t, "it stops", func() bool { return run.Sound() != nil })
			if _, err := run.Standing(); !errors.Is(err, registry.ErrStale) {
				t.Errorf("it stands: %v", err)
			}
			if hashed {
				eventually(t, "the row is named", func() bool {
					return strings.Contains(log.String(), "the row pcsa of table 's' is here and not there")
				})
				for _, n := range m.others(wrong) {
					eventually(t, "it is named", func() bool { return slices.Equal(m.at(n).Agreement().Differ, []names.NodeID{wrong}) })
				}
			}
			for _, n := range m.others(wrong) {
				if err := m.at(n).Sound(); err != nil {
					t.Errorf("%s: %v", n, err)
				}
			}
			if err := m.stop(wrong); err != nil {
				t.Fatal(err)
			}
			again := m.start(wrong)
			m.admitThrough(m.others(wrong)[0], "later")
			m.do(m.operators(m.others(wrong)[0]), suspend("later", true))
			if _, err := again.WaitStanding(m.ctx(patience)); err != nil {
				t.Errorf("it was not healed: %v", err)
			}
			if m.suspended(wrong, "pcsa") || !m.suspended(wrong, "later") {
				t.Error("its tables are not those of the others")
			}
		})
	}
}

// A watcher compares the public tables, and begins anew when most members signed others.
func TestWatcherThatDiffersBeginsAnew(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	m.admit("pcsa")
	w := node("w1")
	m.waitApplied(w, m.at(m.leader()).AppliedIndex())
	if err := m.stop(w); err != nil {
		t.Fatal(err)
	}
	m.meddle(w, true, map[string]string{"spcsa": "\x01"})
	run := m.start(w)
	m.admit("other")
	m.do(m.operators(m.members[0]), suspend("other", true))
	select {
	case err := <-run.done:
		if !errors.Is(err, registry.ErrGap) {
			t.Fatalf("it ended with %v", err)
		}
		run.done <- nil
	case <-time.After(patience):
		t.Fatal("it goes on with a suspension that nobody decided")
	}
	if err := m.stop(w); err != nil {
		t.Fatal(err)
	}
	again := m.start(w)
	if _, err := again.WaitStanding(m.ctx(patience)); err != nil {
		t.Fatal(err)
	}
	m.waitApplied(w, m.at(m.leader()).AppliedIndex())
	if m.suspended(w, "pcsa") || !m.suspended(w, "other") {
		t.Error("it holds other tables than the members")
	}
}
