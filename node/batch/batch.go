// Package batch carries out lots: one question about the many subjects of a file, with a
// voucher at once, and a result for every line.
//
// A [Consultant] spools the file, signs an order for the lot, and works through it a chunk
// at a time, several at once: each chunk is cleared with a decision on every subject, and
// presented to all suppliers in parallel, who each learn of their own subjects only. A
// [Supplier] answers for its institution, a [Decisions] keeps what a clearing peer decided.
// The check itself is in registry/clearing/chunk.
//
//	application      consultant             clearing peer          supplier
//	    │ file            │                       │                    │
//	    │────────────────▶│ spool, LOT_SUBMITTED  │                    │
//	    │◀── voucher ─────│                       │                    │
//	    │     for each chunk:                     │                    │
//	    │                 │ request kept, REQUESTED                    │
//	    │                 │──────────────────────▶│ decides each       │
//	    │                 │                       │ kept, DECIDED      │
//	    │                 │◀─ clearances, decision│                    │
//	    │                 │ kept                                       │
//	    │                 │── demand + clearance ─────────────────────▶│ checks, fetches, cuts
//	    │                 │                                            │ mark + answer kept
//	    │                 │                                            │ SUPPLIED
//	    │                 │◀─ one signed answer ───────────────────────│
//	    │                 │ ANSWERED, results spooled, chunk done      │
//	    │                 │── acknowledgement ────────────────────────▶│ forgets the answer
//	    │◀── results ─────│ LOT_ENDED
//
// What holds for a consultation holds for each subject of a lot. DESIGN.md says what a crash
// leaves between any two of these steps, and what "once" means then.
package batch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/node/batch/lines"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The outbox tables of this package.
const (
	lotRows    outbox.Table = 30 // ticket → KeptLot
	lotNames   outbox.Table = 31 // application, client ticket → ticket
	chunkRows  outbox.Table = 32 // ticket, chunk → KeptChunk
	followRows outbox.Table = 33 // ticket, number → line: asked instead of a number it replaced
	decided    outbox.Table = 34 // what was asked of a clearing peer → ClearChunkResponse
	marks      outbox.Table = 35 // request hash → KeptChunkAnswer
	answers    outbox.Table = 36 // request hash → ChunkResponse
)

var (
	// ErrNotFound means that there is no such lot of this application.
	ErrNotFound = errors.New("no such lot")
	// ErrTooLarge means a file of more lines than a lot may have.
	ErrTooLarge = errors.New("lot too large")
	// ErrTooMany means that the application has as many lots under way as it may.
	ErrTooMany = errors.New("too many lots under way")
	// ErrTicketReused means that the client ticket stands for another lot.
	ErrTicketReused = errors.New("client ticket already used for another lot")
	// ErrState means that a lot's state does not allow what was asked.
	ErrState = errors.New("the lot's state does not allow that")
	// ErrEmpty means a file without a line.
	ErrEmpty = errors.New("the file has no line")
	// ErrUnavailable means that journal, outbox or spool cannot be written.
	ErrUnavailable = errors.New("lots cannot be kept")
)

// Busy is what a supplier or clearing peer says that takes no chunk of this institution now.
type Busy struct{ After time.Duration }

// Error says it.
func (b *Busy) Error() string { return fmt.Sprintf("takes no chunk now; come back in %v", b.After) }

// Question is what is asked of every subject of a file.
type Question struct {
	exchange.Caller
	ClientTicket names.ClientTicket // empty: one is made
	Purpose      names.Purpose
	Dataset      names.DatasetID
	Fields       []names.FieldName // empty: all that the authorization allows
	Scheme       subject.Scheme
	Period       names.Period
	Suppliers    []names.InstitutionID // empty: all that can
	Format       lines.Format
}

// Lot is how a lot stands.
type Lot struct {
	Voucher      names.Ticket // its ticket
	ClientTicket names.ClientTicket
	Application  string
	User         names.UserID
	Purpose      names.Purpose
	Dataset      names.DatasetID
	State        nodepb.LotState
	Submitted    time.Time
	Ended        time.Time // zero: it has not
	Until        time.Time // when it is forgotten
	Lines        uint64
	Subjects     uint64 // asked about, each once
	Done         uint64 // lines that have their result
	// Tally counts the lines that have their result: by reason where there is one, else by status.
	Tally map[string]uint64
	// Waits says why it does not get on at present, in words; empty: it does, or has ended.
	Waits string
}

// Line is the result of one line.
type Line struct {
	Line      uint64 // from 1
	Number    string // canonical; empty: it was malformed
	Reference string
	*nodepb.ResultLine
}

// Journal is the node's own journal segment; journal.Journal is one.
type Journal interface {
	Append(ctx context.Context, e *nodepb.Entry) (uint64, error)
	Find(ctx context.Context, q journal.Query) ([]journal.Stored, error)
}

// Peers carries calls to other nodes. A refusal comes back as an *exchange.Refusal, a peer
// that takes no chunk now as a *Busy; every other error means that it is not known what the
// peer did.
type Peers interface {
	ClearChunk(ctx context.Context, to names.NodeID, req *registrypb.ClearChunkRequest) (*registrypb.ClearChunkResponse, error)
	PresentChunk(ctx context.Context, to names.NodeID, req *nodepb.ChunkPresentation) (*nodepb.ChunkResponse, error)
	AcknowledgeChunk(ctx context.Context, to names.NodeID, req *nodepb.ChunkAcknowledgement) (*nodepb.ChunkAcknowledgeResponse, error)
	Order(candidates []names.NodeID) []names.NodeID
}
