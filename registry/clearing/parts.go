package clearing

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// What follows is for package chunk, which clears and checks many subjects at once by the
// same rules.

// Open reads an envelope with one signature into m, strictly. It verifies no signature.
func Open(t envelope.Type, raw []byte, m proto.Message) (*envelope.Opened, error) {
	return open(t, raw, m)
}

// CheckForm checks everything of a request's form but the subject's number.
func CheckForm(mesh names.MeshID, req *registrypb.Request) error { return checkRequest(mesh, req) }

// SignedBy reports whether a key of the institution that is not retired signed.
func SignedBy(v record.View, verifier *envelope.Verifier, o *envelope.Opened, by names.InstitutionID) (bool, error) {
	return signedBy(v, verifier, o, by)
}

// Fresh reports whether a request made at made may be decided at now.
func Fresh(now, made time.Time, b genesis.Bounds) bool { return fresh(now, made, b) }

// RulingOn gives what a clearing peer signed as one that was read; either is nil.
func RulingOn(c *registrypb.Clearance, d *registrypb.Decision) *Ruling {
	if d != nil {
		return &Ruling{Clearer: record.NodeID(d.Clearer), Ticket: names.Ticket(d.Ticket), RegistryIndex: d.RegistryIndex, mesh: d.Mesh,
			requestHash: d.RequestHash, at: time.UnixMilli(d.TimeUnixMs), decision: d}
	}
	return &Ruling{Clearer: record.NodeID(c.Clearer), Ticket: names.Ticket(c.Ticket), RegistryIndex: c.RegistryIndex, mesh: c.Mesh,
		requestHash: c.RequestHash, at: time.UnixMilli(c.IssuedUnixMs), clearance: c}
}

// DecideAgain decides in the clearer's place, as of the ruling's index. Nothing is checked
// of who signed it. The error is record.ErrNotReached, that of stop, or the view's.
func (r *Redecider) DecideAgain(v record.View, req *registrypb.Request, was *Ruling, stop func() error) (*registrypb.RedecideResponse, error) {
	resp := &registrypb.RedecideResponse{RegistryIndex: was.RegistryIndex}
	return resp, r.decideAgain(v, asked{request: req, about: req.GetSubject()}, was, stop, resp)
}
