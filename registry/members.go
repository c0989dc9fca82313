package registry

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

const (
	membersEvery  = time.Second     // how often the membership is compared
	membersChange = 5 * time.Second // for raft to take up one change
)

// keepMembers makes raft's configuration follow the members record, which M of N
// operators signed, while this member leads; and cuts consensus connections with
// those that neither the record nor raft holds any longer, always. Nothing else changes the configuration.
func (m *member) keepMembers(ctx context.Context) error {
	var known names.NodeID
	tick := time.NewTicker(membersEvery)
	defer tick.Stop()
	for {
		if now, ok := m.leader(); ok && now != known {
			known = now
			m.log.Info("registry leader", "leader", now.String(), "term", m.raft().CurrentTerm())
		}
		want, settings, err := m.wanted()
		if err != nil {
			return err
		}
		m.stream.drop()
		if m.leads() && m.reg.Sound() != nil {
			if err := m.raft().LeadershipTransfer().Error(); err != nil {
				m.log.Warn("registry: this member leads, must not, and found nobody to take over yet", "error", err)
			}
		} else if m.leads() {
			m.pilot.look(ctx, want, settings)
			if err := m.change(want, settings); err != nil && ctx.Err() == nil {
				m.log.Warn("registry membership not changed yet", "error", err)
			}
		} else {
			m.pilot.forget()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// wanted reads the members record, and how raft is to follow it.
func (m *member) wanted() (want []names.NodeID, settings record.Autopilot, err error) {
	err = m.reg.store.View(func(v record.View) error {
		if want, err = v.Members(); err != nil {
			return err
		}
		settings, err = v.Autopilot()
		return err
	})
	return want, settings, err
}

// change makes at most one change. Who is new comes in without a vote, so that it
// weakens no majority while it catches up; who has kept up gets its vote; who the record
// does not hold goes, the leader itself last; and a voter that has been silent for long
// loses its vote until it is back, while enough others remain.
func (m *member) change(want []names.NodeID, settings record.Autopilot) error {
	r := m.raft()
	f := r.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	have := f.Configuration().Servers
	for _, w := range want {
		s := server(w)
		at := slices.IndexFunc(have, func(h raft.Server) bool { return h.ID == s.ID })
		switch {
		case at < 0:
			m.log.Info("registry member joins, without a vote until it has caught up", "member", w.String())
			return r.AddNonvoter(s.ID, s.Address, f.Index(), membersChange).Error()
		case have[at].Suffrage != raft.Voter && m.pilot.stable(w, settings):
			m.log.Info("registry member has caught up and votes", "member", w.String())
			return r.AddVoter(s.ID, s.Address, f.Index(), membersChange).Error()
		}
	}
	for _, h := range slices.Backward(sortedLast(have, m.conf.LocalID)) {
		if slices.ContainsFunc(want, func(w names.NodeID) bool { return raft.ServerID(w.String()) == h.ID }) {
			continue
		}
		if h.ID == m.conf.LocalID { // so that nobody waits for an election
			m.log.Info("registry leader hands over, since the members record names it no more")
			if err := r.LeadershipTransfer().Error(); err == nil {
				return nil
			}
		}
		m.log.Info("registry member leaves", "member", string(h.ID))
		return r.RemoveServer(h.ID, f.Index(), membersChange).Error()
	}
	if dead, ok := m.pilot.dead(have, want, settings); ok {
		m.log.Warn("registry member was silent for too long, and does not vote until it is back; operators may replace it", "member", string(dead))
		return r.DemoteVoter(dead, f.Index(), membersChange).Error()
	}
	return nil
}

// sortedLast gives the servers with one of them in front.
func sortedLast(have []raft.Server, front raft.ServerID) []raft.Server {
	out := make([]raft.Server, 0, len(have))
	for _, h := range have {
		if h.ID == front {
			out = slices.Insert(out, 0, h)
		} else {
			out = append(out, h)
		}
	}
	return out
}

// consents reports whether a node may take part in consensus: it stands in the members
// record, or raft has not let it go yet. If those whom a new record leaves out were cut off
// at once, and are more than half, raft could never take up the change. Who is suspended,
// or was removed by its institution, is cut off at once all the same.
func (m *member) consents(n names.NodeID) bool {
	if m.reg.isVoter(n) {
		return true
	}
	r := m.raft()
	if r == nil || !slices.ContainsFunc(r.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return s.ID == raft.ServerID(n.String()) }) {
		return false
	}
	stands := false
	err := m.reg.PublicView(func(v record.View) (err error) {
		stands, err = v.NodeStands(n)
		return err
	})
	return err == nil && stands
}
