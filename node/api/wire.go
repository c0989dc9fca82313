package api

import (
	"encoding/json"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// The JSON bodies of the interface, as server and client share them. Times are RFC
// 3339 in UTC, dates YYYY-MM-DD, hashes hexadecimal.

// Subject is a number under its identifier scheme. It is personal data.
type Subject struct {
	Scheme string `json:"scheme"`
	Number string `json:"number"`
}

// ConsultationRequest asks for one dataset about one subject.
type ConsultationRequest struct {
	// ClientTicket is the application's own number of the question; asking again
	// under the same one is asking once. Empty: the node makes one.
	ClientTicket names.ClientTicket    `json:"client_ticket,omitempty"`
	Subject      Subject               `json:"subject"`
	Dataset      names.DatasetID       `json:"dataset"`
	Fields       []names.FieldName     `json:"fields,omitempty"` // none: all that the authorization allows
	Purpose      names.Purpose         `json:"purpose"`
	Period       *names.Period         `json:"period"`
	Suppliers    []names.InstitutionID `json:"suppliers,omitempty"` // none: all that can
}

// Consultation is the outcome of one.
type Consultation struct {
	Ticket       names.Ticket       `json:"ticket"`
	ClientTicket names.ClientTicket `json:"client_ticket"`
	// Status is DATA_FOUND, NO_DATA_FOUND, INCOMPLETE_DATA or NO_RESULT.
	Status string `json:"status"`
	// Reason and its Explanation come with NO_RESULT and INCOMPLETE_DATA.
	Reason      string `json:"reason,omitempty"`
	Explanation string `json:"explanation,omitempty"`
	// Successor comes with the reason REPLACED_NUMBER.
	Successor     *Subject              `json:"successor,omitempty"`
	Authorization names.AuthorizationID `json:"authorization,omitempty"`
	// Withheld are fields that were asked and are not permitted.
	Withheld  []names.FieldName `json:"withheld,omitempty"`
	Suppliers []SupplierResult  `json:"suppliers"`
}

// SupplierResult is what one supplier answered.
type SupplierResult struct {
	Supplier    names.InstitutionID `json:"supplier"`
	Status      string              `json:"status"`
	Reason      string              `json:"reason,omitempty"`
	Explanation string              `json:"explanation,omitempty"`
	// Records is an array of objects with the permitted fields.
	Records  json.RawMessage   `json:"records,omitempty"`
	Withheld []names.FieldName `json:"withheld,omitempty"`
}

// List is one public table, as this node knows it.
type List[T any] struct {
	// RegistryIndex is how far this node has followed the registry.
	RegistryIndex uint64 `json:"registry_index"`
	Items         []T    `json:"items"`
	// ConfirmedMsAgo is how many milliseconds ago at most this was the newest there is;
	// not there while nobody has confirmed it.
	ConfirmedMsAgo *int64 `json:"confirmed_ms_ago,omitempty"`
}

// Institution is a member of the network.
type Institution struct {
	ID            names.InstitutionID   `json:"id"`
	Name          string                `json:"name"`
	Type          names.InstitutionType `json:"type"`
	Sector        names.SectorID        `json:"sector,omitempty"`
	ManagingBody  bool                  `json:"managing_body,omitempty"`
	Suspended     bool                  `json:"suspended,omitempty"`
	NumberSchemes []string              `json:"number_schemes,omitempty"`
	Nodes         []InstitutionNode     `json:"nodes"`
}

// InstitutionNode is one node of an institution.
type InstitutionNode struct {
	Name    names.NodeName `json:"name"`
	Address string         `json:"address"`
	Voter   bool           `json:"voter,omitempty"` // votes in the registry
}

// Dataset is a type of message.
type Dataset struct {
	ID        names.DatasetID `json:"id"`
	Title     string          `json:"title"`
	Scheme    string          `json:"scheme"`
	Qualities []names.Quality `json:"qualities,omitempty"`
	Schema    json.RawMessage `json:"schema"` // JSON Schema of one record
}

// Offering is one row of what is available where.
type Offering struct {
	Institution names.InstitutionID `json:"institution"`
	Dataset     names.DatasetID     `json:"dataset"`
	Qualities   []names.Quality     `json:"qualities"`
	Period      names.Period        `json:"period"`
}

// Authorization is one row of who may obtain what.
type Authorization struct {
	ID                 names.AuthorizationID `json:"id"`
	Deliberation       names.Deliberation    `json:"deliberation"`
	LegalBasis         string                `json:"legal_basis,omitempty"`
	RequesterType      names.InstitutionType `json:"requester_type"`
	RequesterQualities []names.Quality       `json:"requester_qualities"`
	Dataset            names.DatasetID       `json:"dataset"`
	Fields             []names.FieldName     `json:"fields"`
	Purpose            names.Purpose         `json:"purpose"`
	Modes              []names.Mode          `json:"modes"`
	Period             names.Period          `json:"period"`
	Revoked            bool                  `json:"revoked,omitempty"`
	MinAuthLevel       uint32                `json:"min_auth_level,omitempty"`
	SecondClearingPeer bool                  `json:"second_clearing_peer,omitempty"`
	MandateRequired    bool                  `json:"mandate_required,omitempty"`
	Law                *Law                  `json:"law,omitempty"` // in place of the committee's decision
}

// Law is what an authorization rests on when no committee decided.
type Law struct {
	Title     string `json:"title"`
	Article   string `json:"article"`
	Published string `json:"published"`
}

// Reference says that this institution has a file on a subject.
type Reference struct {
	Subject Subject       `json:"subject"`
	Quality names.Quality `json:"quality"`
	Period  names.Period  `json:"period"`
}

// References is what is declared or withdrawn at once.
type References struct {
	References []Reference `json:"references"`
}

// SubjectQuery asks about one subject.
type SubjectQuery struct {
	Subject Subject `json:"subject"`
}

// Submitted is what became of a registry command.
type Submitted struct {
	Index    uint64 `json:"index"`
	Accepted bool   `json:"accepted"`
	Refusal  string `json:"refusal,omitempty"`  // why it changed nothing
	Repeated bool   `json:"repeated,omitempty"` // it had been decided before, at Index
}

// RegistryStatus is how this node stands to the registry.
type RegistryStatus struct {
	Node   string `json:"node"`
	Leader string `json:"leader,omitempty"`
	// State is leader, follower, candidate or watcher.
	State        string `json:"state"`
	Term         uint64 `json:"term"`
	AppliedIndex uint64 `json:"applied_index"`
	CommitIndex  uint64 `json:"commit_index"`
	// GrantValid: a member has lately confirmed what this node knows.
	GrantValid bool   `json:"grant_valid"`
	Subjects   uint64 `json:"subjects"`
	References uint64 `json:"references"`
	// Verifying: the node reads through what it keeps, or is about to after its start;
	// Verified is how many rows and log entries it has read so far.
	Verifying bool   `json:"verifying,omitempty"`
	Verified  uint64 `json:"verified,omitempty"`
	// State is how the hash of what this node holds compares with what the members signed;
	// nil: none was compared yet.
	StateHash *RegistryState `json:"state_hash,omitempty"`
}

// RegistryState is the hash of the registry's tables as this node holds them, at Index, and
// what the members signed of theirs there.
type RegistryState struct {
	Index uint64 `json:"index"`
	Root  string `json:"root"` // hexadecimal; on a watcher over the public tables
	// Same, Differ and Silent are members.
	Same   []string `json:"same"`
	Differ []string `json:"differ"`
	Silent []string `json:"silent"`
	// Diverged says why this node's state must not be relied on; empty: it may.
	Diverged string `json:"diverged,omitempty"`
}

// ChainHead is the end of an author's chain of commands: the next one has Sequence
// + 1 and Hash as its previous.
type ChainHead struct {
	Sequence uint64 `json:"sequence"` // 0: there is none yet
	Hash     string `json:"hash"`     // SHA-256 of its payload, hexadecimal
}

// JournalQuery searches the node's own journal segment. What is left out does not
// narrow the search.
type JournalQuery struct {
	Ticket  names.Ticket `json:"ticket,omitempty"`
	Subject *Subject     `json:"subject,omitempty"`
	User    names.UserID `json:"user,omitempty"`
	From    *time.Time   `json:"from,omitempty"`
	Until   *time.Time   `json:"until,omitempty"`
	Limit   int          `json:"limit,omitempty"` // 1 to 1000; 0: 100
}

// JournalEntries is what a search found, oldest first.
type JournalEntries struct {
	Items []JournalEntry `json:"items"`
	// Erased says, in words, which months of the time asked were erased, for whoever may
	// search: what was in them is not found.
	Erased []string `json:"erased,omitempty"`
}

// JournalEntry is one event in the journal. It holds no content.
type JournalEntry struct {
	Sequence        uint64             `json:"sequence"`
	Time            time.Time          `json:"time"`
	Role            string             `json:"role"`
	Event           string             `json:"event"`
	Ticket          names.Ticket       `json:"ticket,omitempty"`
	ClientTicket    names.ClientTicket `json:"client_ticket,omitempty"`
	Requester       string             `json:"requester,omitempty"` // institution/node
	Supplier        string             `json:"supplier,omitempty"`
	Clearer         string             `json:"clearer,omitempty"`
	User            names.UserID       `json:"user,omitempty"`
	AuthLevel       uint32             `json:"auth_level,omitempty"`
	Application     string             `json:"application,omitempty"`
	Channel         string             `json:"channel,omitempty"`
	Purpose         string             `json:"purpose,omitempty"`
	Mode            string             `json:"mode,omitempty"`
	Dataset         string             `json:"dataset,omitempty"`
	Fields          []string           `json:"fields,omitempty"`
	Withheld        []string           `json:"withheld,omitempty"`
	Subject         *Subject           `json:"subject,omitempty"`
	Period          *names.Period      `json:"period,omitempty"`
	Authorization   string             `json:"authorization,omitempty"`
	Deliberation    string             `json:"deliberation,omitempty"`
	Outcome         string             `json:"outcome,omitempty"`
	Status          string             `json:"status,omitempty"`
	Reason          string             `json:"reason,omitempty"`
	RequestHash     string             `json:"request_hash,omitempty"`
	ClearanceID     string             `json:"clearance_id,omitempty"`
	ClearanceHash   string             `json:"clearance_hash,omitempty"`
	AnswerCommitted string             `json:"answer_commitment,omitempty"`
	RegistryIndex   uint64             `json:"registry_index,omitempty"`
	Detail          string             `json:"detail,omitempty"`
	Lot             *LotPart           `json:"lot,omitempty"`
	// Institution is the cooperating one, and Pseudonym under which its user stands
	// outside; both in the sector's own journal only.
	Institution string `json:"institution,omitempty"`
	Pseudonym   string `json:"pseudonym,omitempty"`
	// Mandate is that which the event rests on, or is about.
	Mandate names.MandateID `json:"mandate,omitempty"`
	// Inquiry is the ticket of the inquiry of which this consultation is a part; Parts
	// are those of one.
	Inquiry names.Ticket       `json:"inquiry,omitempty"`
	Parts   []JournalEntryPart `json:"parts,omitempty"`
}

// JournalEntryPart is one consultation of an inquiry; ticket and outcome stand there once
// it was concluded.
type JournalEntryPart struct {
	Dataset      names.DatasetID    `json:"dataset"`
	ClientTicket names.ClientTicket `json:"client_ticket"`
	Ticket       names.Ticket       `json:"ticket,omitempty"`
	Status       string             `json:"status,omitempty"`
	Reason       string             `json:"reason,omitempty"`
}

// LotPart is what an entry on a lot, or on a chunk of one, tells of it. It names nobody.
type LotPart struct {
	Chunk    uint32 `json:"chunk,omitempty"` // from 0
	Lines    uint64 `json:"lines,omitempty"`
	Subjects uint64 `json:"subjects,omitempty"`
}

// Readiness is what /readyz tells.
type Readiness struct {
	Ready   bool         `json:"ready"`
	Node    string       `json:"node"`
	Mesh    names.MeshID `json:"mesh"`
	Version string       `json:"version"`
	Checks  []Checked    `json:"checks"`
}

// Checked is the outcome of one check.
type Checked struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Says string `json:"says,omitempty"` // what is wrong, in plain words
}
