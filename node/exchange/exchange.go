// Package exchange carries out consultations: one question about one subject,
// put to the institutions that hold a file on it.
//
// A [Consultant] asks for an application of its own institution. It signs the
// request, has it cleared by registry members that are no party, presents the
// clearances to the suppliers directly, verifies what they answer, and only when
// journal and outbox hold the outcome hands it to the application.
//
// A [Supplier] answers for its institution. It believes nothing that it can check
// itself: clearance, requester, time, and everything public in its own view of
// the registry; it lets out the permitted fields only, and looks at revocations
// once more just before.
//
//	application     consultant          clearing peer      supplier
//	    │ question      │                     │                │
//	    │──────────────▶│ outbox: request     │                │
//	    │               │ journal: REQUESTED  │                │
//	    │               │────────────────────▶│ DECIDED        │
//	    │               │◀── clearances ──────│                │
//	    │               │ outbox: clearances                   │
//	    │               │── request + clearance ──────────────▶│ checks, fetch, filter
//	    │               │                                      │ outbox: seen-mark + answer
//	    │               │                                      │ journal: SUPPLIED
//	    │               │◀── signed answer ────────────────────│
//	    │               │ journal: ANSWERED                    │
//	    │               │ outbox: result                       │
//	    │◀── result ────│── acknowledgement ──────────────────▶│ forgets the answer
//
// What must hold, and where it is kept: no content without a standing clearance
// (Supplier), no answer or refusal before its journal entry is durable (both), one
// effect however often the same question is asked (both, through package outbox).
// DESIGN.md says what follows from a crash between any two of these steps.
//
// Protocol times are wall-clock times taken from the Now of the configuration.
// Everything exported is safe for concurrent use.
package exchange

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var (
	// ErrTicketReused means that the client ticket already stands for another
	// question of the same application.
	ErrTicketReused = errors.New("client ticket already used for another question")
	// ErrAcknowledged means that the application acknowledged the answer under
	// this client ticket, so that it is no longer kept.
	ErrAcknowledged = errors.New("answer was acknowledged and is no longer kept: ask under a new client ticket")
	// ErrBadQuestion is wrapped by every *QuestionError.
	ErrBadQuestion = errors.New("bad question")
	// ErrJournalUnavailable means that journal or outbox could not be written, so
	// nothing was answered. Asking again under the same client ticket is safe.
	ErrJournalUnavailable = errors.New("journal unavailable")
	// ErrRegistryStale means that this node cannot be sure of what is public: no
	// registry member has confirmed its view lately. Asking again is safe.
	ErrRegistryStale = errors.New("registry view is stale")
	// ErrTurnedAway means that too many presentations of one institution were refused
	// lately, so that this one was not read. It may be presented again, later.
	ErrTurnedAway = errors.New("too many presentations were refused")
	// ErrNotFound means that nothing is kept under this application and client ticket.
	ErrNotFound = errors.New("no such consultation")
)

// QuestionError says which part of a question is wrong and how to mend it. It
// wraps ErrBadQuestion and never holds a subject's number.
type QuestionError struct {
	Field  string // as the field is named in the API
	Remedy string
	// Faults says it for each place of a record, if it is one; at most MaxFaults.
	Faults []Fault
}

// Error gives field and remedy.
func (e *QuestionError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrBadQuestion, e.Field, e.Remedy)
}

// Unwrap gives ErrBadQuestion.
func (e *QuestionError) Unwrap() error { return ErrBadQuestion }

// Refusal is what a supplier answers instead of data, and all that a peer learns
// of it. The supplier's journal says more.
type Refusal struct {
	Reason registrypb.Reason
}

// Error gives the reason's word.
func (r *Refusal) Error() string { return "refused: " + r.Reason.String() }

// Caller is the application that asks, and the human user it asks for.
type Caller struct {
	Application string // at most 63 bytes, as a label
	User        names.UserID
	AuthLevel   uint32 // of the user, as the application asserts
	Channel     string // api, cli, batch ...
}

// Question asks for one dataset about one subject.
type Question struct {
	Caller
	ClientTicket names.ClientTicket // empty: one is generated
	Purpose      names.Purpose
	Dataset      names.DatasetID
	Fields       []names.FieldName // empty: all that the authorization allows
	Scheme       subject.Scheme
	Number       string // as the user wrote it; may carry separators
	Period       names.Period
	Suppliers    []names.InstitutionID // empty: all that can
	// By is when the consultation is concluded with what there is: who has not answered
	// then is unavailable. Zero: as long as the context lasts, and then nothing is
	// concluded. It is no part of the question, but of this asking of it.
	By time.Time
	// Inquiry is the ticket of the inquiry that this is a part of, for the own journal.
	Inquiry names.Ticket
}

// Result is the outcome of a consultation. It is kept until the outbox life ends
// and given again, unchanged, to whoever asks the same under the same client ticket.
type Result struct {
	Ticket        names.Ticket
	ClientTicket  names.ClientTicket
	Status        nodepb.Status
	Reason        registrypb.Reason // with NO_RESULT and INCOMPLETE_DATA
	Successor     subject.ID        // with REPLACED_NUMBER
	Authorization names.AuthorizationID
	Withheld      []names.FieldName // asked and not permitted, by any supplier's clearance
	Suppliers     []SupplierResult  // in order of institution
}

// SupplierResult is the part of one supplier.
type SupplierResult struct {
	Supplier names.InstitutionID
	Status   nodepb.Status
	Reason   registrypb.Reason // with NO_RESULT
	Records  json.RawMessage   // a JSON array of objects; nil unless DATA_FOUND or NO_DATA_FOUND
	Withheld []names.FieldName
}
