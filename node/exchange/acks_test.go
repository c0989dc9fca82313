package exchange

import (
	"fmt"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// TestAcksGoTogether joins acknowledgements: none is lost, each goes to its own
// supplier, and no message carries more than a supplier reads.
func TestAcksGoTogether(t *testing.T) {
	suppliers := []names.NodeID{{Institution: "nic", Node: "n1"}, {Institution: "fpd", Node: "n1"}}
	var waiting []acknowledgement
	const each = 2*maxAcks + 3
	for i := range each * len(suppliers) {
		to := suppliers[i%len(suppliers)]
		waiting = joinAck(waiting, acknowledgement{to, &nodepb.Acknowledgement{Ticket: fmt.Sprint(to.Institution, i)}})
	}
	found := map[string]bool{}
	for _, a := range waiting {
		all := append([]*nodepb.Acknowledgement{a.msg}, a.msg.More...)
		if len(all) > maxAcks {
			t.Errorf("%d in one message, at most %d are read", len(all), maxAcks)
		}
		for _, m := range all {
			if ticket := m.GetTicket(); ticket[:3] != string(a.to.Institution) || found[ticket] {
				t.Errorf("%s went to %s, or twice", ticket, a.to)
			}
			found[m.GetTicket()] = true
		}
	}
	if len(found) != each*len(suppliers) || len(waiting) != 6 {
		t.Errorf("%d acknowledgements in %d messages, want %d in 6", len(found), len(waiting), each*len(suppliers))
	}
}
