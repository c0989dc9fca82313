package node

import (
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/audit"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// A trace names the clearing peer only when most of those who decided again say so.
func TestRedecidedInTrace(t *testing.T) {
	liar, a, b := names.NodeID{Institution: "liar", Node: "n1"}, names.NodeID{Institution: "a", Node: "n1"}, names.NodeID{Institution: "b", Node: "n1"}
	for name, tt := range map[string]struct {
		verdict audit.Verdict
		kind    trace.Kind
		by, say string
	}{
		"the same":  {audit.Verdict{Clearer: liar, Index: 7, Same: []names.NodeID{a}}, trace.Redecided, "liar/n1", "as of index 7, by a/n1: the same"},
		"wrong":     {audit.Verdict{Clearer: liar, Permits: true, Against: []names.NodeID{a, b}, Says: "the registry said DENY, NOT_INTEGRATED"}, trace.Disagreement, "liar/n1", "permitted what it must not: the registry said DENY"},
		"refused":   {audit.Verdict{Clearer: liar, Against: []names.NodeID{a}, Says: "it said DENY, and the registry PERMIT"}, trace.Disagreement, "liar/n1", "refused what it must permit, or for another reason: it said DENY"},
		"disputed":  {audit.Verdict{Clearer: liar, Against: []names.NodeID{a}, Same: []names.NodeID{b}}, trace.Unverified, "liar/n1 a/n1", "otherwise"},
		"not asked": {audit.Verdict{Clearer: liar, Unknown: "no other member could be asked"}, trace.Redecided, "liar/n1", "not decided again"},
	} {
		f := redecided(tt.verdict)
		if f.Kind != tt.kind || strings.Join(f.By, " ") != tt.by || !strings.Contains(f.Says, tt.say) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
