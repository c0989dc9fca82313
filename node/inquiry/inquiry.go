// Package inquiry asks many sources one question: several datasets on one subject, for
// one purpose, each at whoever supplies it, all at the same time, with one answer that
// tells for each source what came of it. A social inquiry of a PCSA is one.
//
// An inquiry is a number of consultations (package exchange), its parts. Each is cleared,
// signed, journaled and traced by itself, so nobody gets more rights by asking for much at
// once, and no party learns what else was asked: that these consultations belong together
// stands in the own journal alone.
//
//	question ─▶ outbox: its parts   journal: INQUIRED
//	            │
//	            ├─ part 1: consultation ─▶ result ┐  until the caller's deadline, less
//	            ├─ part 2: consultation ─▶ result ├─ what it takes to write down; then
//	            └─ part 3: consultation ─▶ result ┘  who has not answered is unavailable
//	            │
//	            journal: CONCLUDED  ─▶ outbox: the outcome ─▶ answer
//
// Asking again under the same client ticket is asking once: a part that was begun goes on
// with the request that it had signed, a part that has ended gives its result again, and
// an inquiry that was concluded never changes. That holds across kill -9, since the parts
// and their client tickets are kept before any of them is asked.
package inquiry

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/keylock"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// MaxParts is how many datasets one inquiry may ask.
const MaxParts = 32

// table holds the inquiries: application, client ticket → KeptInquiry.
const table outbox.Table = 10

// ErrNothingAllowed means that no dataset was named, and that no authorization in force
// gives this institution any for the purpose.
var ErrNothingAllowed = errors.New("no authorization in force gives this institution any dataset for this purpose")

// Consultations carries out the parts; exchange.Consultant is one.
type Consultations interface {
	Consult(ctx context.Context, q exchange.Question) (*exchange.Result, error)
	Acknowledge(ctx context.Context, application string, t names.ClientTicket) error
}

// Journal is the node's own segment.
type Journal interface {
	// Append returns when the entry is durable.
	Append(ctx context.Context, e *nodepb.Entry) (uint64, error)
}

// Outbox keeps what a crash must not lose; *outbox.Outbox is one.
type Outbox interface {
	Get(k outbox.Key) ([]byte, error)
	Write(changes ...outbox.Change) error
}

// Config is what an Inquirer needs. Everything is required unless it says otherwise.
type Config struct {
	Self          names.NodeID
	Consultations Consultations
	Journal       Journal
	Outbox        Outbox
	// Registry tells what this institution may ask, for who names no dataset.
	Registry interface {
		View(fn func(v record.View) error) error
	}
	Schemes subject.Schemes
	// Life is how long an inquiry is kept for the same client ticket, no longer than its
	// consultations are. 0: 10 minutes.
	Life time.Duration
	// Limit is how long an inquiry takes at most when its caller sets no deadline. 0: 10 s.
	Limit time.Duration
	Now   func() time.Time // wall clock; nil: time.Now
	Log   *slog.Logger     // nil: silent
}

// Inquirer carries out inquiries. It is safe for concurrent use, and starts nothing that
// outlives a call.
type Inquirer struct {
	cfg   Config
	locks keylock.Locks
}

// New makes an Inquirer.
func New(cfg Config) *Inquirer {
	cfg.Life = cmp.Or(cfg.Life, 10*time.Minute)
	cfg.Limit = cmp.Or(cfg.Limit, 10*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Inquirer{cfg: cfg}
}

// Question asks several datasets about one subject.
type Question struct {
	exchange.Caller
	ClientTicket names.ClientTicket // empty: one is generated
	Purpose      names.Purpose
	Scheme       subject.Scheme
	Number       string
	Period       names.Period
	// Parts are what is asked, each dataset once, at most MaxParts. None: every dataset
	// that an authorization in force gives this institution for the purpose.
	Parts []Part
	// Permits is the institution's own policy for the application: a dataset that it
	// refuses is not asked. Nil: none is refused. It is no part of the question.
	Permits func(names.DatasetID) bool
}

// Part is one dataset of an inquiry.
type Part struct {
	Dataset   names.DatasetID
	Fields    []names.FieldName     // empty: all that the authorization allows
	Suppliers []names.InstitutionID // empty: all that can
}

// Result is the outcome of an inquiry.
type Result struct {
	Ticket       names.Ticket
	ClientTicket names.ClientTicket
	// Status is DATA_FOUND or NO_DATA_FOUND when every source told what it has;
	// INCOMPLETE_DATA when some did not, or were not to be asked; NO_RESULT when none did.
	Status    nodepb.Status
	Reason    registrypb.Reason // with INCOMPLETE_DATA and NO_RESULT: of the first part that lacks
	Successor subject.ID        // with REPLACED_NUMBER
	Parts     []PartResult      // in the order asked
}

// PartResult is what came of one dataset. Its consultation's own ticket traces it.
type PartResult struct {
	Dataset names.DatasetID
	*exchange.Result
}
