// Package chunk makes the preventive check for lots: the same question about many
// subjects, a chunk of them at a time. Each subject is decided by itself, by
// clearing.Decide, in one view; what is shared is the signature: one for each supplier and
// chunk, on a clearance that names that supplier's subjects alone, and one on the
// decision about the subjects that were refused.
//
//	requester                     clearing peer                     supplier
//	    │ order, all its subjects      │                                │
//	    │─ ChunkRequest ──────────────▶│ decides each                   │
//	    │◀─ a ChunkClearance for each supplier, a ChunkDecision ────────│
//	    │  order, the hash of the clearance                             │
//	    │─ ChunkDemand + ChunkClearance ───────────────────────────────▶│ checks everything
//
// The requester signs an order for the whole lot; its hash, and the ticket that is
// derived from it, tie the chunks together. A supplier never sees the ChunkRequest: it
// would learn of subjects on whom it has no file.
package chunk

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Limits of a chunk.
const (
	// MaxSubjects is how many subjects one chunk may be about.
	MaxSubjects = 4096
	// MaxBytes is how much room their numbers may take; see packed.Size.
	MaxBytes = 24 << 10
	// MaxGroups is how many groups of subjects a clearance or a decision may have.
	MaxGroups = 256
	// maxCleared bounds the suppliers that others cleared.
	maxCleared    = 1024
	maxFiledUnder = 8
	idSize        = 16
)

// Order is the signed order of a lot, read.
type Order struct {
	*registrypb.LotOrder
	Envelope []byte
	Hash     []byte // SHA-256 of Envelope
	Ticket   names.Ticket
	Signed   *envelope.Opened // whose signature was not verified
}

// OpenOrder reads an order and checks its form. It verifies no signature. The error wraps
// clearing.ErrMalformed.
func OpenOrder(mesh names.MeshID, raw []byte) (*Order, error) {
	o := &Order{LotOrder: new(registrypb.LotOrder), Envelope: raw}
	var err error
	if o.Signed, err = clearing.Open(envelope.LotOrder, raw, o.LotOrder); err != nil {
		return nil, fmt.Errorf("%w: order: %w", clearing.ErrMalformed, err)
	}
	o.Hash, o.Ticket = sum(raw), names.TicketOf(raw)
	if err := clearing.CheckForm(mesh, o.Request(o.TimeUnixMs)); err != nil {
		return nil, fmt.Errorf("%w: order: %w", clearing.ErrMalformed, err)
	}
	if o.Scheme == "" || len(o.LinesCommitment) != sha256.Size {
		return nil, fmt.Errorf("%w: order: it names no scheme, or commits to no file", clearing.ErrMalformed)
	}
	return o, nil
}

// Request gives what an order asks as the request of a consultation, about nobody yet.
func (o *Order) Request(timeUnixMs int64) *registrypb.Request {
	return &registrypb.Request{
		Mesh: o.Mesh, Nonce: o.Nonce, Requester: o.Requester, ClientTicket: o.ClientTicket, User: o.User, Application: o.Application,
		AuthLevel: o.AuthLevel, Purpose: o.Purpose, Mode: string(names.Batch), Dataset: o.Dataset, Fields: o.Fields,
		Subject: &registrypb.Subject{Scheme: o.Scheme}, Period: o.Period, Suppliers: o.Suppliers, TimeUnixMs: timeUnixMs, Channel: o.Channel,
	}
}

// Request is a chunk's request, read.
type Request struct {
	*registrypb.ChunkRequest
	Order  *Order
	Hash   []byte // SHA-256 of its envelope
	Signed *envelope.Opened
}

// OpenRequest reads a chunk's request, and the order in it, and checks their form: but not
// the numbers, which are judged. It verifies no signature. The error wraps
// clearing.ErrMalformed.
func OpenRequest(mesh names.MeshID, raw []byte) (*Request, error) {
	r := &Request{ChunkRequest: new(registrypb.ChunkRequest), Hash: sum(raw)}
	var err error
	if r.Signed, err = clearing.Open(envelope.LotChunk, raw, r.ChunkRequest); err != nil {
		return nil, fmt.Errorf("%w: %w", clearing.ErrMalformed, err)
	}
	if r.ChunkRequest.Order == nil || r.Mesh != string(mesh) || len(r.Nonce) != idSize {
		return nil, fmt.Errorf("%w: of another mesh, or without order or nonce", clearing.ErrMalformed)
	}
	if r.Order, err = OpenOrder(mesh, r.ChunkRequest.Order); err != nil {
		return nil, err
	}
	if err := packed.CheckForm(r.Subjects, MaxSubjects); err != nil {
		return nil, fmt.Errorf("%w: %w", clearing.ErrMalformed, err)
	}
	if r.Subjects.Scheme != r.Order.Scheme || packed.Size(r.Subjects) > MaxBytes || twice(r.Subjects) {
		return nil, fmt.Errorf("%w: numbers of another scheme than the order's, too long, or one of them twice", clearing.ErrMalformed)
	}
	return r, nil
}

// twice reports whether a number stands in more than one place.
func twice(lists ...*registrypb.Subjects) bool {
	seen := make(map[string]bool)
	for _, s := range lists {
		for _, n := range packed.All(s) {
			if seen[n] {
				return true
			}
			seen[n] = true
		}
	}
	return false
}

// YesNo reports whether an authorization that permits these fields permits a yes or no and
// nothing more: there is one, and by the dataset's schema it is boolean.
func YesNo(d *registrypb.Dataset, fields []string) bool {
	if len(fields) != 1 {
		return false
	}
	var schema struct {
		Properties map[string]struct{ Type any } `json:"properties"`
	}
	if json.Unmarshal([]byte(d.GetSchema()), &schema) != nil {
		return false
	}
	switch t := schema.Properties[fields[0]].Type.(type) {
	case string:
		return t == "boolean"
	case []any:
		other := func(x any) bool { return x != "boolean" && x != "null" }
		return slices.Contains(t, any("boolean")) && !slices.ContainsFunc(t, other)
	}
	return false
}

var errGroups = errors.New("it has no group of subjects, or too many")

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}
