package exchange

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// ErrSourceUnavailable is wrapped by a Source whose system cannot be reached or
// does not answer in time. Any other error of a Source means that the system did
// answer, and wrongly.
var ErrSourceUnavailable = errors.New("source unavailable")

// Source is the institution's own system for one dataset; adapters implement it.
// It is called by many exchanges at once.
type Source interface {
	// Fetch gives every record of the dataset about one subject that touches the
	// period. No record is an empty slice and no error. It must return soon after
	// ctx is done. Its error must not hold a subject's number.
	Fetch(ctx context.Context, q Query) ([]Record, error)
}

// Query is what a Source is asked.
type Query struct {
	Dataset   names.DatasetID
	Subject   subject.ID
	Period    names.Period
	Qualities []names.Quality // of the own files that give the right to answer
	// Fields are those that will leave. A source may spare itself other ones, but
	// not those that the dataset's schema requires: each record is checked against
	// the schema before the other fields are taken out.
	Fields []names.FieldName
}

// Record is one JSON object as the source gave it. The bytes of a field's value
// are passed on unchanged.
type Record = json.RawMessage

// Journal is the node's own journal segment.
type Journal interface {
	// Append returns once the entry is durable, and gives its place.
	Append(ctx context.Context, e *nodepb.Entry) (uint64, error)
}

// Peers carries calls to other nodes. A peer's refusal comes back as a *Refusal
// (in the chain of the error); every other error means that the peer could not
// be reached or did not answer, and that it is not known what it did.
type Peers interface {
	Clear(ctx context.Context, to names.NodeID, req *registrypb.ClearRequest) (*registrypb.ClearResponse, error)
	Present(ctx context.Context, to names.NodeID, req *nodepb.Presentation) (*nodepb.PresentResponse, error)
	Acknowledge(ctx context.Context, to names.NodeID, req *nodepb.Acknowledgement) (*nodepb.AcknowledgeResponse, error)
	// Order puts candidates that seem alive before those that seem dead, and
	// keeps the order otherwise. It leaves none out.
	Order(candidates []names.NodeID) []names.NodeID
}
