// Package trace joins what the journals of several nodes hold about one ticket
// into one story: who asked, for which user, about whom, why, under which
// authorization and deliberation, which fields left and which were withheld,
// with what result, when, and how long each step took. It checks that what each
// node shows is what it once committed to, and that they all tell the same; what
// is missing, altered or contradicted is said in plain words, with whom it
// concerns.
//
// Everything here is pure: Parties says whom to ask, the node asks, Build judges.
//
//	own := trace.Own(found)                            // the consultant's own segment
//	segments := map[names.NodeID]trace.Segment{self: own}
//	for _, n := range trace.Parties(self, own.Entries) {
//		segments[n] = ask(n)                           // or Segment{Err: err}
//	}
//	story := trace.Build(ticket, segments, trace.Means{Keys: keys})
//	story.Write(os.Stdout)
//
// Entries carry the signed messages that they rest on, and every signature is
// verified. What a requester merely asserts (its user, the authentication level) is
// labelled as asserted.
package trace

import (
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Segment is what one node showed of its journal, or why it showed nothing.
type Segment struct {
	Entries []*nodepb.StoredEntry
	// Proofs shows, for each entry, that it is in the log that the node published
	// (C2SP tlog-proof); empty where there is none. May be shorter than Entries.
	Proofs [][]byte
	Err    error
}

// Own makes a segment of entries of this node's own journal.
func Own(found []journal.Stored) Segment {
	s := Segment{Entries: make([]*nodepb.StoredEntry, len(found))}
	for i, e := range found {
		s.Entries[i] = e.Proto()
	}
	return s
}

// Verdict is the story in one word.
type Verdict string

// The verdicts, the best first.
const (
	// Consistent: every journal is there, and they agree.
	Consistent Verdict = "consistent"
	// Incomplete: what is there agrees, but something is missing or not finished.
	Incomplete Verdict = "incomplete"
	// Contradicted: something was altered, or journals contradict one another.
	Contradicted Verdict = "contradicted"
	// Unknown: no journal holds anything under this ticket.
	Unknown Verdict = "unknown"
)

// Kind says what sort of thing a finding is.
type Kind string

// The kinds of findings.
const (
	Altered       Kind = "altered"        // not what was committed to, or not an entry at all
	Disagreement  Kind = "contradicted"   // two journals, or an entry and a rule, contradict each other
	Missing       Kind = "missing"        // a segment could not be read
	Unverified    Kind = "not verified"   // a signature could not be checked
	Unfinished    Kind = "unfinished"     // a step that should follow does not
	Undelivered   Kind = "undelivered"    // released by the supplier, not received by the consultant
	ExpiredUnused Kind = "expired unused" // a permission nobody used
	Clocks        Kind = "clocks"         // an effect stands before its cause
	Asserted      Kind = "asserted"       // only the requester says so
	Hedged        Kind = "released twice" // by two nodes of a supplier, to one question
	Redecided     Kind = "decided again"  // what others make of a decision
	NotAnchored   Kind = "not yet anchored"
)

// verdict gives what a finding makes of the whole story.
func (k Kind) verdict() Verdict {
	switch k {
	case Altered, Disagreement:
		return Contradicted
	case Missing, Unverified, Unfinished, Undelivered:
		return Incomplete
	}
	return Consistent
}

// Finding is one remark on the story. Says never holds a subject's number.
type Finding struct {
	Kind Kind     `json:"kind"`
	By   []string `json:"by,omitempty"` // the nodes it concerns: institution/node
	Says string   `json:"says"`
}

// Subject is whom the exchange is about. It is personal data: Story.HideSubject
// removes it for a reader who is not entitled to it.
type Subject struct {
	Scheme string `json:"scheme"`
	Number string `json:"number"`
}

// Story is everything the journals tell about one ticket. Facts that the
// journals disagree about are given as the consultant has them, and a finding
// says so.
type Story struct {
	Ticket  names.Ticket `json:"ticket"`
	Verdict Verdict      `json:"verdict"`
	Summary string       `json:"summary"`

	ClientTicket names.ClientTicket `json:"client_ticket,omitempty"`
	Requester    string             `json:"requester,omitempty"` // institution/node
	User         names.UserID       `json:"user,omitempty"`
	AuthLevel    uint32             `json:"auth_level,omitempty"` // as the requester asserts
	Application  string             `json:"application,omitempty"`
	Channel      string             `json:"channel,omitempty"`
	Subject      *Subject           `json:"subject,omitempty"`
	Purpose      names.Purpose      `json:"purpose,omitempty"`
	Mode         names.Mode         `json:"mode,omitempty"`
	Dataset      names.DatasetID    `json:"dataset,omitempty"`
	Period       *names.Period      `json:"period,omitempty"`
	Asked        []names.FieldName  `json:"asked,omitempty"` // empty: all that is permitted

	// Inquiry is the ticket of the inquiry of which this is a part, if the journal of who
	// asked was read. Parts are those of an inquiry.
	Inquiry names.Ticket `json:"inquiry,omitempty"`
	Parts   []Part       `json:"parts,omitempty"`

	Lot       *Lot       `json:"lot,omitempty"`       // of a lot: what came of all its subjects
	Refusal   *Refusal   `json:"refusal,omitempty"`   // when (some of) it was not permitted
	Exchanges []Exchange `json:"exchanges,omitempty"` // one for each clearance
	// Recipients are those of a publication.
	Recipients []Recipient `json:"recipients,omitempty"`

	Steps    []Step    `json:"steps,omitempty"` // in order of the time that each node noted
	Journals []Journal `json:"journals,omitempty"`
	Findings []Finding `json:"findings,omitempty"` // the gravest first
}

// Refusal is a decision not to permit.
type Refusal struct {
	Outcome       string                `json:"outcome"` // DENY or NOT_APPLICABLE; empty: nobody decided
	Reason        string                `json:"reason,omitempty"`
	Clearer       string                `json:"clearer,omitempty"`
	Authorization names.AuthorizationID `json:"authorization,omitempty"`
}

// Exchange is what became of one clearance.
type Exchange struct {
	ClearanceID   string                `json:"clearance_id"`        // hexadecimal
	Supplier      string                `json:"supplier"`            // institution, or institution/node
	Recipient     string                `json:"recipient,omitempty"` // of a notification, likewise
	Clearer       string                `json:"clearer,omitempty"`
	SecondClearer string                `json:"second_clearer,omitempty"` // where two must clear
	Authorization names.AuthorizationID `json:"authorization,omitempty"`
	Deliberation  names.Deliberation    `json:"deliberation,omitempty"`
	RegistryIndex uint64                `json:"registry_index,omitempty"`
	Mandate       *Mandate              `json:"mandate,omitempty"`
	Fields        []names.FieldName     `json:"fields,omitempty"` // permitted
	Withheld      []names.FieldName     `json:"withheld,omitempty"`
	Status        string                `json:"status,omitempty"`
	Reason        string                `json:"reason,omitempty"`
	// How long each leg took, by the clocks of the two nodes it joins; nil when
	// one end is not known.
	Clearing  *Millis `json:"clearing_ms,omitempty"`  // request to decision
	Supplying *Millis `json:"supplying_ms,omitempty"` // decision to release
	Receiving *Millis `json:"receiving_ms,omitempty"` // release to receipt
	Total     *Millis `json:"total_ms,omitempty"`     // request to receipt, by one clock
}

// Mandate is what a clearance says of the mandate that it rests on.
type Mandate struct {
	ID        names.MandateID  `json:"id"`
	Provider  names.ProviderID `json:"provider"` // that attests that its giver gave it
	AuthLevel uint32           `json:"auth_level"`
	OnBehalf  *Subject         `json:"on_behalf,omitempty"` // the enterprise for which the requester says it uses it
}

// Millis is a span of time in milliseconds; negative when clocks disagree.
type Millis int64

// Step is one entry of one journal.
type Step struct {
	Time     time.Time `json:"time"`
	After    Millis    `json:"after_ms"` // since the first step
	Node     string    `json:"node"`
	Sequence uint64    `json:"sequence"` // place in that node's journal
	Role     string    `json:"role"`
	Event    string    `json:"event"`
	Says     string    `json:"says"`
}

// Journal is what one node showed.
type Journal struct {
	Node    string `json:"node"`
	Entries int    `json:"entries"`
	// Anchored is how many of them are shown to be in a log that most members cosigned.
	Anchored int    `json:"anchored,omitempty"`
	Says     string `json:"says,omitempty"` // why there is nothing
}

// HideSubject removes the subject's number, for readers who are not entitled to it.
func (s *Story) HideSubject() {
	if s.Subject != nil {
		s.Subject.Number = ""
	}
	for _, p := range s.Parts {
		if p.Story != nil {
			p.Story.HideSubject()
		}
	}
}
