package registry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// ask asks m for a grant of its own.
func (m *simMember) ask(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	_, err := m.running().HandleGrant(ctx, m.id, &registrypb.GrantRequest{Nonce: make([]byte, lease.NonceSize)})
	return err
}

// leader waits until one of some members leads.
func (s *sim) leader(among ...*simMember) *simMember {
	s.t.Helper()
	for range 3000 {
		for _, m := range among {
			if st, err := m.running().Status(); err == nil && st.State == "leader" {
				return m
			}
		}
		time.Sleep(10 * time.Millisecond) // virtual
	}
	s.t.Fatal("no leader")
	return nil
}

// The worst case: answers to heartbeats that left long ago reach a leader when
// another one leads already. raft's VerifyLeader counts them as the majority's word.
func TestLateAnswersMakeNoGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1, 3, func(s *sim) {
			// One member goes on leading for long without hearing anybody.
			s.members[0].tuning = simTuning
			s.members[0].tuning.Heartbeat, s.members[0].tuning.Election = 50*time.Second, 50*time.Second
			s.members[0].tuning.LeaderLease, s.members[0].tuning.RPC = 50*time.Second, 100*time.Second
		})
		defer s.stop()
		first, others := s.members[0], s.members[1:]
		if err := s.leader(others...).running().HandOver(first.id); err != nil {
			t.Fatal(err)
		}
		s.leader(first)
		for first.ask(time.Second) != nil {
			time.Sleep(10 * time.Millisecond) // virtual
		}
		answers, rest := s.net.hold(first.id)
		defer rest()
		s.leader(others...)
		granted, majority := make(chan error, 1), make(chan error, 1)
		go func() { granted <- first.ask(30 * time.Second) }()
		go func() { majority <- first.running().MajoritySays() }()
		synctest.Wait()
		if st, err := first.running().Status(); err != nil || st.State != "leader" {
			t.Fatalf("it does not believe any more to lead: %v, %v", st, err)
		}
		answers()
		if err := <-granted; err == nil {
			t.Error("a deposed leader gave a grant")
		}
		if err := <-majority; err != nil {
			t.Errorf("raft's VerifyLeader saw through it, so that this attacks nothing: %v", err)
		}
	})
}
