package registry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Whoever leaves the members lives on, and is sent nothing more. A watcher that followed it
// turns to another one before its standing ends, whichever it was.
func TestWatchersStandWhileMembersLeave(t *testing.T) {
	t.Parallel()
	for leaves := range 3 {
		synctest.Test(t, func(t *testing.T) {
			x := newExchanges(t, uint64(leaves), rand.New(rand.NewPCG(1, 1)))
			defer x.sim.stop()
			defer x.kill(x.supplier)
			defer x.kill(x.requester)
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			watchers := []*simMember{x.requester, x.supplier}
			for _, w := range watchers {
				if _, err := w.running().WaitStanding(ctx); err != nil {
					t.Fatal(err)
				}
			}
			all := new(registrypb.Members)
			for i, m := range x.members {
				if i != leaves {
					all.Voters = append(all.Voters, &registrypb.NodeRef{Institution: string(m.id.Institution), Node: string(m.id.Node)})
				}
			}
			x.members[0], x.members[leaves] = x.members[leaves], x.members[0]
			done := make(chan struct{})
			go func() {
				defer close(done)
				x.by = x.members[1]
				x.set(record.Operators, "operator1", &registrypb.Command{Body: &registrypb.Command_SetMembers{SetMembers: all}})
				for i := range 5 { // what only members hear of
					x.set(record.Operators, "operator1", institution(fmt.Sprintf("later%d", i)))
					time.Sleep(2 * time.Second) // virtual
				}
			}()
			for ended := false; !ended; {
				select {
				case <-done:
					ended = true
				case <-time.After(20 * time.Millisecond):
				}
				for _, w := range watchers {
					if _, err := w.running().Standing(); err != nil {
						t.Fatalf("without m%d: %s: %v", leaves+1, w.id, err)
					}
				}
			}
		})
	}
}
