// Package clearing makes the preventive check: before anything is exchanged, a
// registry member that is no party decides whether it may be, and signs a
// short-lived clearance for each supplier.
//
// Decide is the check itself, pure, in the order of docs/architecture.md: it says
// the same on every member that stands at the same registry index. Service makes
// decisions for others: it insists on the requester's signature and on a standing
// grant, and writes each decision down durably before it answers. Check is what a
// supplier makes of a clearance that is presented to it; it believes nothing that
// it can look up.
//
// A clearing peer sees who asks what about whom, and never any content. To one that
// is not integrated it says nothing that depends on the subject.
//
// Where an authorization asks for a mandate, the clearing peer looks for one in force and
// the clearance names it. Where it asks for a second clearing peer, two that have nothing
// to do with each other each decide by themselves, and the supplier wants both clearances.
// See DESIGN.md.
package clearing

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Limits on what a request or a clearance may hold.
const (
	MaxSuppliers = 64 // in one reply; more are left to another peer
	// maxFiledUnder bounds the line of numbers that one subject had.
	maxFiledUnder = 8
	maxFields     = 256      // asked
	maxCleared    = 1024     // suppliers that others cleared
	maxMessage    = 64 << 10 // bytes of the envelope of a request or a clearance
	nonceSize     = 16       // bytes of a request's nonce and of a clearance's id
	maxNumber     = 63       // bytes of a subject's number
)

// ErrMalformed means a request that is not well formed, or of another mesh. It is
// no decision and stands in no journal.
var ErrMalformed = errors.New("malformed request")

// Rank orders members by a hash of the request, so that nobody chooses who clears:
// the same request gives the same order everywhere, different ones spread evenly.
func Rank(members []names.NodeID, requestHash []byte) []names.NodeID {
	type ranked struct {
		id    names.NodeID
		score [sha256.Size]byte
	}
	scores := make([]ranked, len(members))
	for i, m := range members {
		h := sha256.New()
		h.Write([]byte("crossroads rank v1\x00"))
		h.Write(requestHash)
		h.Write([]byte(m.String()))
		scores[i].id = m
		h.Sum(scores[i].score[:0])
	}
	slices.SortFunc(scores, func(a, b ranked) int { return bytes.Compare(b.score[:], a.score[:]) })
	order := make([]names.NodeID, len(scores))
	for i, s := range scores {
		order[i] = s.id
	}
	return order
}

// openRequest reads a request's envelope strictly, and checks its form: everything
// but the subject's number, which is judged. No signature is verified.
func openRequest(mesh names.MeshID, raw []byte) (*registrypb.Request, *envelope.Opened, error) {
	req := new(registrypb.Request)
	opened, err := open(envelope.Request, raw, req)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := checkRequest(mesh, req); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return req, opened, nil
}

// open reads an envelope with one signature. Fields that this version does not
// know are refused: they might restrict what the others say.
func open(t envelope.Type, raw []byte, m proto.Message) (*envelope.Opened, error) {
	if len(raw) > maxMessage {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(raw), maxMessage)
	}
	opened, err := envelope.Open(t, raw)
	if err != nil {
		return nil, err
	}
	if n := len(opened.KeyIDs()); n != 1 {
		return nil, fmt.Errorf("%d signatures, want one", n)
	}
	if err := proto.Unmarshal(opened.Payload, m); err != nil {
		return nil, errors.New("not protobuf")
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		return nil, errors.New("it holds fields this version does not know")
	}
	return opened, nil
}

func checkRequest(mesh names.MeshID, req *registrypb.Request) error {
	s := req.GetSubject()
	switch {
	case req.Mesh != string(mesh):
		return errors.New("it is for another mesh")
	case len(req.Nonce) != nonceSize:
		return fmt.Errorf("nonce of %d bytes, want %d", len(req.Nonce), nonceSize)
	case s == nil || len(s.Scheme) > maxNumber || len(s.Number) > maxNumber:
		return errors.New("no subject, or a number longer than any")
	case req.Period == nil:
		return errors.New("no period")
	case len(req.Fields) > maxFields || len(req.Suppliers) > MaxSuppliers:
		return fmt.Errorf("more than %d fields or %d suppliers", maxFields, MaxSuppliers)
	}
	checks := []error{
		record.NodeID(req.Requester).Validate(), names.UserID(req.User).Validate(), names.Purpose(req.Purpose).Validate(),
		names.Mode(req.Mode).Validate(), names.DatasetID(req.Dataset).Validate(), record.Period(req.Period).Validate(),
	}
	if req.ClientTicket != "" {
		checks = append(checks, names.ClientTicket(req.ClientTicket).Validate())
	}
	for _, label := range []string{req.Application, req.Channel} {
		if label != "" {
			checks = append(checks, names.Purpose(label).Validate())
		}
	}
	for _, f := range req.Fields {
		checks = append(checks, names.FieldName(f).Validate())
	}
	for _, i := range req.Suppliers {
		checks = append(checks, names.InstitutionID(i).Validate())
	}
	return errors.Join(checks...)
}

// signedBy reports whether a key of the institution that is not retired signed.
func signedBy(v record.View, verifier *envelope.Verifier, o *envelope.Opened, by names.InstitutionID) (bool, error) {
	for _, id := range o.KeyIDs() {
		k, err := v.Key(id)
		if err != nil {
			return false, err
		}
		if k != nil && !k.Retired && k.Institution == string(by) && verifier.VerifiedBy(o, k.PublicKey) {
			return true, nil
		}
	}
	return false, nil
}

// party reports whether two institutions are one, or of one sector.
func party(a, b *registrypb.Institution) bool {
	return a.GetId() == b.GetId() || a.GetSector() != "" && a.GetSector() == b.GetSector()
}

// permitted splits the fields asked into those that an authorization allows and
// those that it withholds, in the order asked. None asked: all that it allows.
func permitted(asked, allowed []string) (fields, withheld []string) {
	if len(asked) == 0 {
		return allowed, nil
	}
	for i, f := range asked {
		switch {
		case slices.Contains(asked[:i], f):
		case slices.Contains(allowed, f):
			fields = append(fields, f)
		default:
			withheld = append(withheld, f)
		}
	}
	return fields, withheld
}
