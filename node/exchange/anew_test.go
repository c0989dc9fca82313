package exchange

import (
	"slices"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// voters changes who is a member.
func (w *world) voters(institutions ...string) {
	w.t.Helper()
	all := new(registrypb.Members)
	for _, i := range institutions {
		all.Voters = append(all.Voters, ref(i))
	}
	w.submit(record.Operators, &registrypb.Command{Body: &registrypb.Command_SetMembers{SetMembers: all}})
}

// TestMemberLeavesDuringAnExchange removes each member, so also the one that cleared and
// the leader under whose grant it did, between clearing and presenting. What it cleared is
// honoured by nobody; the exchange goes on under what another one clears.
func TestMemberLeavesDuringAnExchange(t *testing.T) {
	refused := 0
	for _, leaves := range members {
		for name, take := range map[string]func(*world){"one clears": func(*world) {}, "two clear": (*world).takeTwo} {
			t.Run(leaves+", "+name, func(t *testing.T) {
				w := newDiskWorld(t)
				w.admit("delta", "registry-keeper", "")
				w.start("delta")
				take(w)
				for _, at := range []string{"pcsa", "office", "fund"} {
					w.realJournal(at)
				}
				w.afterClearing(func() {
					w.voters(append([]string{"delta"}, slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == leaves })...)...)
				})
				wantStatus(t, w.mustConsult(question()), nodepb.Status_DATA_FOUND, none)
				for _, s := range []string{"office", "fund"} {
					refused += len(w.node(s).journal.of(nodepb.Event_REFUSED))
					for _, e := range w.node(s).journal.of(nodepb.Event_SUPPLIED) {
						if e.GetClearer().GetInstitution() == leaves || e.GetSecondClearance().GetClearer().GetInstitution() == leaves {
							t.Errorf("%s supplied under a clearance of %s, which is no member", s, leaves)
						}
					}
				}
				for _, e := range w.node("pcsa").journal.of(nodepb.Event_ANSWERED) {
					if e.GetStatus() == nodepb.Status_NO_RESULT && e.GetReason() != registrypb.Reason_CLEARANCE_INVALID {
						t.Errorf("%v", e)
					}
				}
				if err := w.node("pcsa").outbox.Each(clearances, func(string, []byte) error { t.Error("a clearance that was settled is kept"); return nil }); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if refused == 0 {
		t.Error("no clearance was refused")
	}
}

// TestSuspendedMemberIsNotHonoured is the same for a clearing peer that is suspended; who
// asks may be served under another's clearance, and nobody under its own.
func TestSuspendedMemberIsNotHonoured(t *testing.T) {
	for _, id := range members {
		w := newWorld(t)
		w.afterClearing(func() { w.suspend(id) })
		wantStatus(t, w.mustConsult(question()), nodepb.Status_DATA_FOUND, none)
		for _, s := range []string{"office", "fund"} {
			for _, e := range w.node(s).journal.of(nodepb.Event_SUPPLIED) {
				if e.GetClearer().GetInstitution() == id {
					t.Errorf("%s supplied under a clearance of %s, which is suspended", s, id)
				}
			}
		}
	}
}
