package record_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestPastsFindWhereHistoriesPart: two histories are the same up to some index. The first of
// the points of one that the other shares, or else the beginning, lies there or before, and no
// further back than four times what came after, and a little.
func TestPastsFindWhereHistoriesPart(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		one, other := founded(t), founded(t)
		same := rapid.IntRange(0, 60).Draw(rt, "same")
		after := rapid.IntRange(1, 60).Draw(rt, "after")
		gap := rapid.IntRange(0, 9).Draw(rt, "entries between two")
		for i := range same + after {
			raw := one.w.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")})
			one.index += uint64(gap)
			one.ok(raw)
			if i < same {
				other.index += uint64(gap)
				other.ok(raw)
			}
		}
		parted := other.index
		near := func(rt *rapid.T, from uint64) {
			if back := one.index - parted; from+4*(back+uint64(gap)+1) < parted {
				rt.Fatalf("they part %d before %d, and the point is %d", back, one.index, from)
			}
		}
		pasts, err := record.NewView(one.state).Pasts()
		if err != nil || len(pasts) == 0 {
			rt.Fatal(pasts, err)
		}
		for i, p := range pasts {
			if i > 0 && p.Index >= pasts[i-1].Index {
				rt.Fatalf("%d after %d", p.Index, pasts[i-1].Index)
			}
			shared, err := record.NewView(other.state).Shares(p, p.Index)
			if err != nil {
				rt.Fatal(err)
			}
			if shared != (p.Index <= parted) {
				rt.Fatalf("index %d is shared: %v; they part after %d", p.Index, shared, parted)
			}
			if shared {
				near(rt, p.Index)
				return
			}
		}
		near(rt, 0) // from the beginning, then
	})
}
