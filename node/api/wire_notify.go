package api

import (
	"encoding/json"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// PublicationRequest publishes a change about a subject.
type PublicationRequest struct {
	// ClientTicket is the application's own number of the change; publishing again under
	// the same one is publishing once. Empty: the node makes one.
	ClientTicket names.ClientTicket `json:"client_ticket,omitempty"`
	Subject      Subject            `json:"subject"`
	Dataset      names.DatasetID    `json:"dataset"`
	Period       *names.Period      `json:"period"` // the days that the change is about
	Record       json.RawMessage    `json:"record"` // one object that matches the dataset's schema
	// Fields are those that changed. None: all that the record holds.
	Fields []names.FieldName `json:"fields,omitempty"`
	// Change is CHANGED (the default), CORRECTED or CANCELLED; the latter two refer to the
	// ticket of what was published before.
	Change   string       `json:"change,omitempty"`
	RefersTo names.Ticket `json:"refers_to,omitempty"`
	CausedBy names.Ticket `json:"caused_by,omitempty"` // of the declaration that led to it
}

// Publication is what an application gets for a change.
type Publication struct {
	Ticket       names.Ticket       `json:"ticket"`
	ClientTicket names.ClientTicket `json:"client_ticket"`
	// Status is ACCEPTED: everybody concerned will be told; or REFUSED, with a reason.
	Status      string     `json:"status"`
	Reason      string     `json:"reason,omitempty"`
	Explanation string     `json:"explanation,omitempty"`
	Time        *time.Time `json:"time,omitempty"`
}

// PublicationBatch publishes several changes in one request, at most notify.MaxChanges. Each
// has a client ticket; it stands in the batch once.
type PublicationBatch struct {
	Items []PublicationRequest `json:"items"`
}

// PublicationOutcomes is what came of each change of a batch, in order.
type PublicationOutcomes struct {
	Items []PublicationOutcome `json:"items"`
}

// PublicationOutcome holds one of the two: what Publish gives, or its problem.
type PublicationOutcome struct {
	Publication *Publication `json:"publication,omitempty"`
	Problem     *Problem     `json:"problem,omitempty"`
}

// PublicationStatus is how far a change has come.
type PublicationStatus struct {
	Ticket names.Ticket `json:"ticket"`
	// Decided: who is to be told is known.
	Decided     bool                   `json:"decided"`
	Reason      string                 `json:"reason,omitempty"` // why nobody is told
	Explanation string                 `json:"explanation,omitempty"`
	Incomplete  bool                   `json:"incomplete,omitempty"` // for some nobody could decide
	Recipients  []PublicationRecipient `json:"recipients"`
}

// PublicationRecipient is one who is told.
type PublicationRecipient struct {
	Recipient names.InstitutionID `json:"recipient"`
	Purpose   names.Purpose       `json:"purpose"`
	State     string              `json:"state"` // DELIVERED, WAITING, DEAD
}

// Delivery is a notification that its recipient does not have.
type Delivery struct {
	Ticket    names.Ticket        `json:"ticket"`
	Recipient names.InstitutionID `json:"recipient"`
	Purpose   names.Purpose       `json:"purpose"`
	Dataset   names.DatasetID     `json:"dataset,omitempty"`
	Queued    time.Time           `json:"queued"`
	Refused   int                 `json:"refused,omitempty"` // how often the recipient did
	Reason    string              `json:"reason,omitempty"`  // the last time
	Dead      bool                `json:"dead,omitempty"`    // given up until it is driven again
	HeldBack  bool                `json:"held_back,omitempty"`
	Replayed  bool                `json:"replayed,omitempty"`
}

// Deliveries is a list of them.
type Deliveries struct {
	Items []Delivery `json:"items"`
}

// DeliveryLag is how far one recipient is behind.
type DeliveryLag struct {
	Recipient names.InstitutionID `json:"recipient"`
	Purpose   names.Purpose       `json:"purpose"`
	Waiting   int                 `json:"waiting"`
	Dead      int                 `json:"dead"`
	Oldest    *time.Time          `json:"oldest,omitempty"`
	// SilentSince is when it stopped answering, and Why.
	SilentSince *time.Time `json:"silent_since,omitempty"`
	Why         string     `json:"why,omitempty"`
}

// DeliveryLags is how far all are behind.
type DeliveryLags struct {
	Pending int           `json:"pending"` // publications that wait for a clearing peer
	Items   []DeliveryLag `json:"items"`
}

// DeliverySelection says which deliveries are meant. Nothing: all.
type DeliverySelection struct {
	Recipient names.InstitutionID `json:"recipient,omitempty"`
	Ticket    names.Ticket        `json:"ticket,omitempty"`
}

// ReplayRequest has everything that was told since a time told again: to a recipient, or
// by a publisher.
type ReplayRequest struct {
	Institution names.InstitutionID `json:"institution"`
	Since       time.Time           `json:"since"`
}

// Count is how many it were.
type Count struct {
	Count int `json:"count"`
}

// InboxQuery takes what waits.
type InboxQuery struct {
	Max        int               `json:"max,omitempty"`                // 1 to 1000; 0: 100
	Visibility int               `json:"visibility_seconds,omitempty"` // for which it is the taker's; 0: 60
	Kinds      []string          `json:"kinds,omitempty"`              // notification, declaration, result; none: all
	Datasets   []names.DatasetID `json:"datasets,omitempty"`           // none: all
	Tickets    []names.Ticket    `json:"tickets,omitempty"`            // none: all
}

// InboxItems is what was taken, oldest first.
type InboxItems struct {
	Items []InboxItem `json:"items"`
}

// InboxItem is one thing that arrived for this institution.
type InboxItem struct {
	ID      uint64    `json:"id"`
	Lease   string    `json:"lease"` // goes with the acknowledgement
	Expires time.Time `json:"expires"`

	Kind         string              `json:"kind"`
	Ticket       names.Ticket        `json:"ticket"`
	From         names.InstitutionID `json:"from"`
	Dataset      names.DatasetID     `json:"dataset,omitempty"`
	Purpose      names.Purpose       `json:"purpose,omitempty"`
	Subject      *Subject            `json:"subject,omitempty"`     // as the sender named it
	Current      *Subject            `json:"current,omitempty"`     // the number now in use, if that is another
	FiledUnder   []Subject           `json:"filed_under,omitempty"` // the numbers of own files that gave the right to it
	Period       *names.Period       `json:"period,omitempty"`
	Fields       []names.FieldName   `json:"fields,omitempty"` // that may be known
	Change       string              `json:"change,omitempty"`
	RefersTo     names.Ticket        `json:"refers_to,omitempty"`
	CausedBy     names.Ticket        `json:"caused_by,omitempty"`
	Status       string              `json:"status,omitempty"`        // of a result
	ClientTicket names.ClientTicket  `json:"client_ticket,omitempty"` // the sender's, or of a result the own one
	Replayed     bool                `json:"replayed,omitempty"`      // it was told before, and asked for again
	Received     time.Time           `json:"received"`
	Records      json.RawMessage     `json:"records,omitempty"`
}

// InboxReceipts names items that were taken.
type InboxReceipts struct {
	Items []InboxReceipt `json:"items"`
}

// InboxReceipt names one.
type InboxReceipt struct {
	ID    uint64 `json:"id"`
	Lease string `json:"lease"`
}

// InboxState is how much waits: for the application that asks, and, if it is an admin, for
// the systems that are sent what arrives.
type InboxState struct {
	Waiting int         `json:"waiting"`
	Oldest  *time.Time  `json:"oldest,omitempty"`
	Pushes  []PushState `json:"pushes,omitempty"`
}

// The states of a system that is sent what arrives.
const (
	PushWorks  = "WORKS"
	PushFails  = "FAILS"  // it is tried again, ever later
	PushPaused = "PAUSED" // it accepts nothing from this node, and is left alone for a while
)

// PushState is how one of them does.
type PushState struct {
	Name         string        `json:"name"`
	State        string        `json:"state"`
	Waiting      int           `json:"waiting"`
	Oldest       *time.Time    `json:"oldest,omitempty"`
	Delivered    uint64        `json:"delivered"`          // since the node started
	Failures     int           `json:"failures,omitempty"` // in a row
	FailingSince *time.Time    `json:"failing_since,omitempty"`
	Next         *time.Time    `json:"next,omitempty"` // before which nothing is sent
	Why          string        `json:"why,omitempty"`
	Refused      int           `json:"refused,omitempty"` // items that are set aside
	Trouble      []PushTrouble `json:"trouble,omitempty"` // those not accepted, at most 100
}

// PushTrouble is an item that was not accepted.
type PushTrouble struct {
	ID       uint64       `json:"id"`
	Ticket   names.Ticket `json:"ticket"`
	Attempts int          `json:"attempts"`
	Since    time.Time    `json:"since"`
	Next     time.Time    `json:"next"`
	Refused  bool         `json:"refused,omitempty"` // set aside
	Why      string       `json:"why"`
}

// PushResume names a system that is to be sent at once what it did not accept.
type PushResume struct {
	Name string `json:"name"`
}

// Subscription is one row of who wants which changes.
type Subscription struct {
	Institution names.InstitutionID `json:"institution"`
	Dataset     names.DatasetID     `json:"dataset"`
	Purpose     names.Purpose       `json:"purpose"`
	Qualities   []names.Quality     `json:"qualities"`
	Fields      []names.FieldName   `json:"fields,omitempty"` // none: all that the authorization allows
	Period      names.Period        `json:"period"`
}

// SubscriptionRequest subscribes the node's own institution, or withdraws.
type SubscriptionRequest struct {
	Dataset   names.DatasetID   `json:"dataset"`
	Purpose   names.Purpose     `json:"purpose"`
	Qualities []names.Quality   `json:"qualities,omitempty"`
	Fields    []names.FieldName `json:"fields,omitempty"`
	Period    *names.Period     `json:"period,omitempty"` // none: from today on, without end
	Withdrawn bool              `json:"withdrawn,omitempty"`
}

// DeclarationRequest declares something to the authentic source.
type DeclarationRequest struct {
	ClientTicket names.ClientTicket `json:"client_ticket,omitempty"`
	Subject      Subject            `json:"subject"`
	Dataset      names.DatasetID    `json:"dataset"`
	Purpose      names.Purpose      `json:"purpose"`
	Period       *names.Period      `json:"period"`
	Record       json.RawMessage    `json:"record"`
	Change       string             `json:"change,omitempty"` // CHANGED (the default: a declaration), CORRECTED, CANCELLED
	RefersTo     names.Ticket       `json:"refers_to,omitempty"`
	Fields       []names.FieldName  `json:"fields,omitempty"` // not looked at: a declaration is whole
}

// Declaration is what is known of one.
type Declaration struct {
	Ticket       names.Ticket       `json:"ticket"`
	ClientTicket names.ClientTicket `json:"client_ticket,omitempty"`
	// State is REFUSED (by the network, with a reason), SENT (the source has not received
	// it yet), RECEIVED, ACCEPTED, DECLINED (with reasons), AMENDED or ANNULLED.
	State        string              `json:"state"`
	Source       names.InstitutionID `json:"source,omitempty"`
	Reason       string              `json:"reason,omitempty"`
	Explanation  string              `json:"explanation,omitempty"`
	Reasons      []FieldReason       `json:"reasons,omitempty"`
	Published    names.Ticket        `json:"published,omitempty"`     // under which others are told
	SupersededBy names.Ticket        `json:"superseded_by,omitempty"` // the correction or cancellation
	Receipt      []byte              `json:"receipt,omitempty"`       // signed by the source
	Signed       []byte              `json:"signed,omitempty"`        // the state, likewise
}

// FieldReason says what is wrong with one field of a declaration; no field: the whole.
type FieldReason struct {
	Field names.FieldName `json:"field,omitempty"`
	Code  string          `json:"code"`
	Text  string          `json:"text,omitempty"`
}

// DecisionRequest decides on a declaration.
type DecisionRequest struct {
	Decision string        `json:"decision"` // ACCEPTED or DECLINED
	Reasons  []FieldReason `json:"reasons,omitempty"`
}
