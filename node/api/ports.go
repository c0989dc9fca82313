package api

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/node/receipt"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Registry is this node's view of the registry; registry.Registry is one.
type Registry interface {
	// View shows one consistent state.
	View(fn func(record.View) error) error
	// Submit returns when the command has been decided, and for one that takes a
	// right away when that holds everywhere.
	Submit(ctx context.Context, envelope []byte) (*registrypb.SubmitResponse, error)
	Status() (*registrypb.StatusResponse, error)
	// WaitApplied returns when View shows what was decided at index.
	WaitApplied(ctx context.Context, index uint64) error
	// Head gives the end of an author's chain, as of index at the earliest.
	Head(ctx context.Context, author string, chain registrypb.Chain, index uint64) (sequence uint64, hash []byte, err error)
}

// Author signs commands of the institution and submits them; registry.Author is one.
type Author interface {
	Do(ctx context.Context, c *registrypb.Command) (*registrypb.SubmitResponse, error)
}

// Journal is the node's own segment; journal.Journal is one.
type Journal interface {
	// Append returns when the entry is durable.
	Append(ctx context.Context, e *nodepb.Entry) (uint64, error)
	Find(ctx context.Context, q journal.Query) ([]journal.Stored, error)
}

// Tree is the Merkle tree over the node's own segment; tlog.Log is one.
type Tree interface {
	// Checkpoint gives the last signed one; it covers only entries that are durable.
	Checkpoint() []byte
	// Tile gives the hashes at a path. The error wraps tlog.ErrNotInTree when the
	// last checkpoint does not cover them.
	Tile(path string) ([]byte, error)
}

// Tracer joins the segments of one ticket.
type Tracer interface {
	Trace(ctx context.Context, t names.Ticket) (*trace.Story, error)
}

// Witnessing is what the node knows of the checkpoints of the mesh's journals.
type Witnessing interface {
	// Anchors gives the last checkpoint of every journal that a majority cosigned.
	Anchors(ctx context.Context) ([]*checkpoint.Note, error)
	// Evidence gives the contradictions that this node found, as registry member.
	Evidence() ([]*checkpoint.Evidence, error)
	// Declared gives the epochs that journals declared, as this node knows of them as
	// registry member: those that members accepted, and those that this one did not.
	Declared() ([]DeclaredEpoch, error)
}

// Receipts makes the receipt of a ticket that this node's journal holds.
type Receipts interface {
	Receipt(ctx context.Context, t names.Ticket) (*receipt.Receipt, error)
}

// Readings gives others than the parties what they may read of journals;
// reading.Service is one. It journals every reading itself.
type Readings interface {
	Nonce(who reading.Reader, from, until time.Time) (*reading.Challenge, error)
	Subject(ctx context.Context, who reading.Reader, token []byte) (*reading.SubjectView, error)
	// Admit checks a token for a view that this node alone can give.
	Admit(ctx context.Context, who reading.Reader, token []byte) (*reading.Admitted, error)
	Search(ctx context.Context, who reading.Reader, q reading.Search) (*reading.Found, error)
	Report(ctx context.Context, who reading.Reader, q reading.ReportQuery) (*reading.Report, error)
	Inspect(ctx context.Context, who reading.Reader, order []byte) (*reading.Inspection, error)
}

// fresh gives 32 random bytes.
func fresh() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}
