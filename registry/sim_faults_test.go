package registry_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"math/rand/v2"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/agree"
)

func groupKeys(role string) []ed25519.PublicKey { return []ed25519.PublicKey{public(role + "1")} }

func shaOf(b []byte) agree.CommandHash { return sha256.Sum256(b) }

// faults plays one fault after another, some of them at the same time, until ctx ends.
func (s *sim) faults(ctx context.Context, dice *rand.Rand) {
	names := []string{"kill", "pause", "partition", "asymmetric", "loss", "transfer", "full", "sync error", "slow sync", "kill all"}
	for {
		select {
		case <-time.After(time.Duration(500+dice.IntN(2500)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		name := names[dice.IntN(len(names))]
		m := s.members[dice.IntN(len(s.members))]
		if dice.IntN(2) == 0 { // half of them hit whoever leads
			if l := s.leads(); l != nil {
				m = l
			}
		}
		lasts := time.Duration(200+dice.IntN(6000)) * time.Millisecond
		s.took[name]++
		switch name {
		case "kill":
			s.kill(m)
			s.wait(ctx, lasts)
			s.start(m)
		case "kill all":
			for _, x := range s.members {
				s.kill(x)
			}
			for _, x := range s.members {
				s.start(x)
			}
		case "pause": // nothing reaches it or leaves it: what does so later, a real freeze adds, see the command
			s.isolate(m, true, true)
			s.wait(ctx, lasts)
			s.isolate(m, false, false)
		case "partition":
			side := dice.Perm(len(s.members))[:1+dice.IntN(len(s.members)/2)]
			for _, i := range side {
				s.split(i, side, true)
			}
			s.wait(ctx, lasts)
			for _, i := range side {
				s.split(i, side, false)
			}
		case "asymmetric":
			in := dice.IntN(2) == 0
			s.isolate(m, in, !in)
			s.wait(ctx, lasts)
			s.isolate(m, false, false)
		case "loss":
			s.net.setLoss(0.2)
			s.wait(ctx, lasts)
			s.net.setLoss(0)
		case "transfer":
			s.transfer(dice)
		default:
			s.breakDisk(ctx, m, name, lasts, dice)
		}
		s.revive()
	}
}

// breakDisk lets a disk misbehave for a while.
func (s *sim) breakDisk(ctx context.Context, m *simMember, how string, lasts time.Duration, dice *rand.Rand) {
	set := func(full bool, fail int, takes time.Duration) {
		m.disk.mu.Lock()
		defer m.disk.mu.Unlock()
		m.disk.full, m.disk.failSyncs, m.disk.syncTakes = full, fail, takes
	}
	switch how {
	case "full":
		set(true, 0, 0)
	case "sync error":
		set(false, 1+dice.IntN(4), 0)
	case "slow sync":
		set(false, 0, 500*time.Millisecond)
	}
	s.wait(ctx, lasts)
	set(false, 0, 0)
}

func (s *sim) wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// isolate cuts what comes in, and what goes out.
func (s *sim) isolate(m *simMember, in, out bool) {
	for _, o := range s.members {
		if o != m {
			s.net.setCut(o.id, m.id, in)
			s.net.setCut(m.id, o.id, out)
		}
	}
}

func (s *sim) split(i int, side []int, cut bool) {
	for j, o := range s.members {
		inside := false
		for _, k := range side {
			inside = inside || k == j
		}
		if !inside {
			s.net.setCut(o.id, s.members[i].id, cut)
			s.net.setCut(s.members[i].id, o.id, cut)
		}
	}
}

func (s *sim) leads() *simMember {
	for _, m := range s.members {
		if r := m.running(); r != nil {
			if l, ok := r.Leader(); ok && l == m.id {
				return m
			}
		}
	}
	return nil
}

func (s *sim) transfer(dice *rand.Rand) {
	if l := s.leads(); l != nil {
		to := s.members[dice.IntN(len(s.members))]
		if to != l {
			_ = l.running().HandOver(to.id) // it may well fail
		}
	}
}

// revive starts again whoever halted: a supervisor does.
func (s *sim) revive() {
	for _, m := range s.members {
		if m.running() == nil {
			s.kill(m)
			s.start(m)
		}
	}
}
