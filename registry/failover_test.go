package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// With the timeouts that nodes really run with.
func TestKilledLeaderIsReplaced(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	for _, n := range m.members {
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
		m.tuning[n] = registry.Tuning{}
	}
	for _, n := range m.members {
		m.start(n)
	}
	for round := range 2 {
		m.admit(fmt.Sprintf("before%d", round))
		leader := m.leader()
		rest := m.others(leader)
		m.f.isolate(leader, m.members, true) // silent, as a dead machine is
		begin := time.Now()
		m.do(m.operators(rest[0]), institution(fmt.Sprintf("after%d", round)))
		t.Logf("leader gone to the next command decided: %s", time.Since(begin).Round(time.Millisecond))
		if err := m.stop(leader); err != nil {
			t.Fatal(err)
		}
		m.f.isolate(leader, m.members, false)
		m.start(leader)
	}
}

// Authors at every node write while leaders come and go. Whatever one was told is
// accepted must be there, once, on every replica.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1", "w2")
	stop := make(chan struct{})
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	lost := 0
	m.f.mu.Lock()
	m.f.lose = func(names.NodeID, string) bool { // every fifth answer
		mu.Lock()
		defer mu.Unlock()
		lost++
		return lost%5 == 0
	}
	m.f.mu.Unlock()
	var wg sync.WaitGroup
	for i, n := range []names.NodeID{m.members[0], m.members[1], m.members[2], node("w1"), node("w2")} {
		author := m.operators(n) // all write the same chain
		wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("i%d-%d", i, k)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				resp, err := author.Do(ctx, institution(id))
				cancel()
				if errors.Is(err, registry.ErrOutrun) {
					continue
				}
				if err != nil || !resp.Accepted {
					t.Errorf("%s: %v %v", id, resp, err)
					return
				}
				mu.Lock()
				acknowledged[id] = true
				mu.Unlock()
			}
		})
	}
	more := func() {
		mu.Lock()
		enough := len(acknowledged) + 10
		mu.Unlock()
		eventually(t, "ten more commands", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acknowledged) >= enough || t.Failed()
		})
	}
	for range 3 {
		more()
		leader := m.leader()
		m.f.isolate(leader, m.members, true)
		more()
		m.f.isolate(leader, m.members, false)
	}
	more()
	close(stop)
	wg.Wait()
	end := m.admit("end")
	t.Logf("%d commands acknowledged", len(acknowledged))
	for n := range m.nodes {
		m.waitApplied(n, end.Index)
		for id := range acknowledged {
			if !m.has(n, id) {
				t.Errorf("%s lacks %s, which was acknowledged", n, id)
			}
		}
	}
	for _, n := range m.members[1:] {
		if m.history(n) != m.history(m.members[0]) {
			t.Errorf("%s differs from %s", n, m.members[0])
		}
	}
}

// Two authors that know nothing of each other write one chain.
func TestAuthorsRace(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var wg sync.WaitGroup
	for i := range 3 {
		author := m.operators(m.members[i])
		wg.Go(func() {
			for k := range 5 {
				resp, err := author.Do(m.ctx(patience), institution(fmt.Sprintf("i%d-%d", i, k)))
				if err != nil || !resp.Accepted {
					t.Errorf("%v %v", resp, err)
				}
			}
		})
	}
	wg.Wait()
	resp, err := m.operators(m.members[0]).Do(m.ctx(patience), suspend("nobody", true))
	if err != nil || resp.Accepted || resp.Refusal == "" {
		t.Errorf("a command without sense: %v %v", resp, err)
	}
}

func TestSubmitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	leader := m.leader()
	rest := m.others(leader)
	for _, n := range m.members {
		m.f.isolate(n, m.members, true)
	}
	_, err := m.at(rest[0]).Submit(m.ctx(300*time.Millisecond), []byte("no majority decides on this"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
