// Package clearing refuses everything until registry/clearing lands.
package clearing

import (
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"time"
)

type Bounds struct{ Lease, PresentLife, ReleaseLife, Skew time.Duration }

func Rank(members []names.NodeID, requestHash []byte) []names.NodeID { return members }

type Checked struct{}
type Refusal struct {
	Reason registrypb.Reason
	Detail string
}

func Check(v record.View, now time.Time, b Bounds, mesh names.MeshID, self, from names.NodeID, request, clearance []byte) (*Checked, *Refusal) {
	return nil, &Refusal{Reason: registrypb.Reason_CLEARANCE_INVALID}
}
