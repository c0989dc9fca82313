package registry_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/recovery"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// clock is a wall clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// TestLostOperatorsAreReplaced walks a whole mesh through it: the operators' keys are
// lost, recovery announces, everybody can see it, the members' clocks run, and the new
// operators then admit an institution. One member whose clock runs wild hurries nothing.
func TestLostOperatorsAreReplaced(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1")
	clocks := make(map[names.NodeID]*clock)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, n := range append(m.members, node("w1")) {
		clocks[n] = &clock{now: time.Now()}
		w := recovery.New(recovery.Config{
			Self: n.Institution, Delay: m.file.RecoveryDelay, Registry: m.at(n), Now: clocks[n].Now, Log: slog.New(slog.DiscardHandler),
			Author: registry.NewAuthor(m.at(n), m.file.Mesh, string(n.Institution), key(string(n.Institution))),
		})
		wg.Go(func() { _ = w.Run(ctx) })
	}
	pending := func(n names.NodeID) (all []record.PendingRecovery) {
		if err := m.at(n).View(func(v record.View) (err error) { all, err = v.PendingRecoveries(); return err }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	seen := func() (count int) {
		_ = m.at(m.members[0]).View(func(v record.View) error {
			for _, n := range m.members {
				if c, err := v.RecoveryConfirmation(record.Operators, n.Institution); err == nil && !c.Seen.IsZero() {
					count++
				}
			}
			return nil
		})
		return count
	}

	next := [][]byte{public("next1"), public("next2")}
	recoverers := registry.NewAuthor(m.at(m.members[0]), m.file.Mesh, record.Recovery, key("recovery1"), key("recovery2"), key("next1"), key("next2"))
	said := m.do(recoverers, &registrypb.Command{Body: &registrypb.Command_AnnounceRecovery{AnnounceRecovery: &registrypb.RecoveryAnnouncement{
		Group: &registrypb.Group{Name: record.Operators, Threshold: 2, PublicKeys: next}, Reason: "both offices burned down"}}})
	m.waitApplied(node("w1"), said.Index)
	if all := pending(node("w1")); len(all) != 1 || all[0].Index != said.Index {
		t.Fatalf("a watcher sees %+v", all)
	}
	eventually(t, "every member says that it sees it", func() bool { return seen() == 3 })

	own := registry.NewAuthor(m.at(m.members[0]), m.file.Mesh, "m1", key("m1"))
	wake := func() { m.do(own, setNode("m1")) } // a command has everybody look
	// One clock alone is no majority.
	clocks[m.members[2]].advance(1000 * time.Hour)
	wake()
	eventually(t, "the wild clock is counted", func() bool {
		all := pending(m.members[0])
		return len(all) == 1 && all[0].Confirmed == 1
	})
	fresh := registry.NewAuthor(m.at(m.members[0]), m.file.Mesh, record.Operators, key("next1"), key("next2"))
	if resp, err := fresh.Do(m.ctx(patience), institution("mafia")); err != nil || resp.Accepted {
		t.Fatalf("the new keys sign before their time: %v, %v", resp, err)
	}
	clocks[m.members[0]].advance(m.file.RecoveryDelay - time.Second)
	wake()
	clocks[m.members[0]].advance(2 * time.Second)
	wake() // not by operators: who they are is about to change
	eventually(t, "the new keys stand", func() bool { return len(pending(m.members[0])) == 0 })
	m.do(fresh, institution("i4"))
	if resp, err := m.operators(m.members[0]).Do(m.ctx(patience), institution("mafia")); err != nil || resp.Accepted {
		t.Fatalf("the lost keys still sign: %v, %v", resp, err)
	}
}
