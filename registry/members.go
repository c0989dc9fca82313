package registry

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

const (
	membersEvery  = time.Second     // how often the membership is compared
	membersChange = 5 * time.Second // for raft to take up one change
)

// keepMembers makes raft's configuration follow the members record, which M of N
// operators signed, while this member leads; and cuts consensus connections with
// those the record no longer holds, always. Nothing else changes the configuration.
func (m *member) keepMembers(ctx context.Context) error {
	var known names.NodeID
	tick := time.NewTicker(membersEvery)
	defer tick.Stop()
	for {
		if now, ok := m.leader(); ok && now != known {
			known = now
			m.log.Info("registry leader", "leader", now.String(), "term", m.raft().CurrentTerm())
		}
		want, err := m.reg.voters()
		if err != nil {
			return err
		}
		m.stream.drop()
		if m.leads() && m.reg.Sound() != nil {
			if err := m.raft().LeadershipTransfer().Error(); err != nil {
				m.log.Warn("registry: this member leads, must not, and found nobody to take over yet", "error", err)
			}
		} else if m.leads() {
			if err := m.change(want); err != nil {
				m.log.Warn("registry membership not changed yet", "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// change makes at most one change: first add, then remove, so that a replaced
// member does not leave a smaller majority than before or after.
func (m *member) change(want []names.NodeID) error {
	r := m.raft()
	f := r.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	have := f.Configuration().Servers
	for _, w := range want {
		s := server(w)
		if !slices.Contains(have, s) {
			m.log.Info("registry member joins", "member", w.String())
			return r.AddVoter(s.ID, s.Address, f.Index(), membersChange).Error()
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w names.NodeID) bool { return raft.ServerID(w.String()) == h.ID }) {
			m.log.Info("registry member leaves", "member", string(h.ID))
			return r.RemoveServer(h.ID, f.Index(), membersChange).Error()
		}
	}
	return nil
}
