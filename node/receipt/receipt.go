// Package receipt makes and verifies receipts: one file that shows, without any
// node's help, what happened under a ticket as far as one party's journal tells.
//
// A receipt is JSON:
//
//	{
//	  "format": "crossroads-receipt/1",
//	  "mesh": "demo.example",
//	  "ticket": "454x5a6etg9x1yp4grvc4gg6ac",
//	  "journal": "pcsa-ghent/n1",
//	  "entries": [{"sequence": 41, "entry": "CJ...", "salt": "...", "commitment": "..."}, ...],
//	  "registry": ["CiFhc...", ...]
//	}
//
// entries are those of one node's journal, each with the salt that opens its
// commitment, and within each the signed messages that it rests on: the request, the
// clearances, the answers; with its proof it is in the log that the node published, and
// cosigned by most members it can neither have been put there later nor be taken out.
// registry holds the signed commands by which the keys of all
// who signed were registered, who clears, and the authorization that was cited, so
// that Verify trusts nothing but the genesis file. Bytes are base64, and what they
// hold is the published protobuf of node/nodepb and registry/registrypb.
//
// No content is in a receipt, nor anything from which it can be guessed: of an answer
// it holds SHA-256(blinding ‖ content), and the blinding is in no journal. It does hold
// the subject's number and the user: keep it as you keep the file it belongs to.
//
// What a receipt cannot show: that the other parties' journals tell the same (a trace
// does), and that a key was not retired, or an authorization not revoked, by a command
// that whoever made the receipt left out.
package receipt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Format is the first field of the file.
const Format = "crossroads-receipt/1"

// Limits of what is read.
const (
	MaxSize     = 16 << 20 // bytes of the file
	MaxEntries  = trace.MaxEntries
	MaxCommands = 4096
)

// ErrMalformed means that a file is no receipt.
var ErrMalformed = errors.New("malformed receipt")

// Receipt is the file. What Parse gives has the form of one; nothing of it is
// verified.
type Receipt struct {
	Format  string       `json:"format"`
	Mesh    names.MeshID `json:"mesh"`
	Ticket  names.Ticket `json:"ticket"`
	Journal string       `json:"journal"` // institution/node
	Entries []Entry      `json:"entries"`
	// Registry holds envelopes of registry commands, in the order of the registry.
	Registry [][]byte `json:"registry"`
}

// Entry is one journal entry, opened.
type Entry struct {
	Sequence   uint64 `json:"sequence"` // place in the journal, from 0
	Entry      []byte `json:"entry"`    // exactly the bytes that were committed to
	Salt       []byte `json:"salt"`
	Commitment []byte `json:"commitment"` // HMAC-SHA256(salt, entry)
	// Proof shows that the entry is in the log that its node published, and who
	// cosigned that: C2SP tlog-proof. Empty: the log did not yet hold it.
	Proof string `json:"proof,omitempty"`
}

// Parse reads a receipt. The error wraps ErrMalformed.
func Parse(b []byte) (*Receipt, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrMalformed, len(b), MaxSize)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	r := new(Receipt)
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows it", ErrMalformed)
	}
	if r.Format != Format {
		return nil, fmt.Errorf("%w: its format is not %s", ErrMalformed, Format)
	}
	_, err := names.ParseNodeID(r.Journal)
	if err := errors.Join(r.Mesh.Validate(), r.Ticket.Validate(), err); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(r.Entries) == 0 || len(r.Entries) > MaxEntries || len(r.Registry) > MaxCommands {
		return nil, fmt.Errorf("%w: %d entries and %d commands, want 1 to %d and at most %d", ErrMalformed, len(r.Entries), len(r.Registry), MaxEntries, MaxCommands)
	}
	return r, nil
}

// Bytes gives the file.
func (r *Receipt) Bytes() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}

// segment gives the entries as a node would show them.
func (r *Receipt) segment() trace.Segment {
	var s trace.Segment
	for _, e := range r.Entries {
		s.Proofs = append(s.Proofs, []byte(e.Proof))
		s.Entries = append(s.Entries, &nodepb.StoredEntry{Sequence: e.Sequence, Entry: e.Entry, Salt: e.Salt, Commitment: e.Commitment})
	}
	return s
}
