package exchange

import (
	"errors"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// nonceSize is the size of a request's nonce in bytes.
const nonceSize = 16

// decodeRequest reads a request that a peer sent and insists that its names are
// well formed, so that they may stand in a journal. It verifies no signature. Its error may
// repeat what the peer wrote, and is for nobody.
func decodeRequest(raw []byte, mesh names.MeshID, schemes subject.Schemes) (*registrypb.Request, error) {
	r := new(registrypb.Request)
	if err := openInto(envelope.Request, raw, r); err != nil {
		return nil, err
	}
	return r, wellFormed(r, mesh, schemes)
}

// wellFormed insists on the form of everything that a request names.
func wellFormed(r *registrypb.Request, mesh names.MeshID, schemes subject.Schemes) error {
	if len(r.GetFields()) > maxFields || len(r.GetSuppliers()) > maxSuppliers {
		return errors.New("too many fields or suppliers")
	}
	if r.GetMesh() != string(mesh) || len(r.GetNonce()) != nonceSize {
		return errors.New("of another mesh, or without a nonce")
	}
	id, err := schemes.Parse(subject.Scheme(r.GetSubject().GetScheme()), r.GetSubject().GetNumber())
	if err != nil || id.Number() != r.GetSubject().GetNumber() {
		return errors.New("number not in canonical form")
	}
	errs := []error{
		record.NodeID(r.GetRequester()).Validate(),
		names.ClientTicket(r.GetClientTicket()).Validate(),
		names.UserID(r.GetUser()).Validate(),
		names.Purpose(r.GetApplication()).Validate(),
		names.Purpose(r.GetChannel()).Validate(),
		names.Purpose(r.GetPurpose()).Validate(),
		names.Mode(r.GetMode()).Validate(),
		names.DatasetID(r.GetDataset()).Validate(),
		record.Period(r.GetPeriod()).Validate(),
	}
	for _, f := range r.GetFields() {
		errs = append(errs, names.FieldName(f).Validate())
	}
	for _, i := range r.GetSuppliers() {
		errs = append(errs, names.InstitutionID(i).Validate())
	}
	return errors.Join(errs...)
}
