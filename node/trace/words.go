package trace

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var reasonWords = map[registrypb.Reason]string{
	registrypb.Reason_UNKNOWN_SUBJECT:        "nobody who may supply has a file on this subject",
	registrypb.Reason_REPLACED_NUMBER:        "the number was replaced by another",
	registrypb.Reason_MALFORMED_NUMBER:       "the number is malformed",
	registrypb.Reason_DECEASED_SUBJECT:       "the subject has died",
	registrypb.Reason_CANCELLED_NUMBER:       "the number was cancelled",
	registrypb.Reason_NOT_INTEGRATED:         "not sufficiently integrated for this organisation",
	registrypb.Reason_NOT_ALLOWED:            "not allowed with the given legal context and credentials",
	registrypb.Reason_NO_ELIGIBLE_CLEARER:    "no member that is not itself a party could clear it",
	registrypb.Reason_REQUESTER_NOT_ADMITTED: "the requester is not admitted, or is suspended",
	registrypb.Reason_NO_PERMITTED_FIELD:     "none of the fields asked is within the authorization",
	registrypb.Reason_AUTH_LEVEL_TOO_LOW:     "the user's authentication level is too low",
	registrypb.Reason_MANDATE_MISSING:        "the mandate that is required is missing",
	registrypb.Reason_SUPPLIER_UNAVAILABLE:   "the supplier could not be reached",
	registrypb.Reason_SUPPLIER_REFUSED:       "the supplier did not accept the clearance",
	registrypb.Reason_SUPPLIER_ERROR:         "the supplier's own system failed",
	registrypb.Reason_CLEARANCE_REPLAYED:     "the clearance had been used before",
	registrypb.Reason_CLEARANCE_EXPIRED:      "the clearance had expired",
	registrypb.Reason_CLEARANCE_INVALID:      "the clearance was not valid",
	registrypb.Reason_REVOKED:                "a right was revoked between clearing and release",
	registrypb.Reason_REGISTRY_STALE:         "the node could not be sure of what is public",
	registrypb.Reason_JOURNAL_UNAVAILABLE:    "a journal could not be written",
	registrypb.Reason_LOCAL_POLICY:           "the institution's own policy forbids it",
	registrypb.Reason_CLEARING_UNAVAILABLE:   "no clearing peer could be reached",
	registrypb.Reason_PUBLICATION_INVALID:    "the key that signed the publication is no longer in force",
	registrypb.Reason_DELIVERY_EXPIRED:       "it waited longer than it is kept",
	registrypb.Reason_INBOX_FULL:             "the inbox was full",
	registrypb.Reason_STALE_REQUEST:          "the request's time is too far from the clearing peer's",
}

// eventWords are those of automatic communications.
var eventWords = map[nodepb.Event]string{
	nodepb.Event_PUBLISHED:          "published a change",
	nodepb.Event_CLEARED:            "decided who is to be told",
	nodepb.Event_ADDRESSED:          "nobody, or not everybody, is told",
	nodepb.Event_NOTICE_SENT:        "told",
	nodepb.Event_NOTICE_RECEIVED:    "was told, and stored it",
	nodepb.Event_NOTICE_AGAIN:       "was told again what it had",
	nodepb.Event_NOTICE_REFUSED:     "was refused, or refused",
	nodepb.Event_NOTICE_DELIVERED:   "holds the receipt",
	nodepb.Event_NOTICE_LAPSED:      "did not tell: it may not any more",
	nodepb.Event_NOTICE_DEAD:        "gave up until it is tried again",
	nodepb.Event_NOTICE_REDRIVEN:    "was made to try again, or to forget",
	nodepb.Event_REPLAY_ASKED:       "a replay was asked for",
	nodepb.Event_SUBMISSION_DECIDED: "decided on the declaration",
	nodepb.Event_SUBMISSION_TOLD:    "was told what became of the declaration",
	nodepb.Event_TAKEN:              "the application took it",
	nodepb.Event_INBOX_ENDED:        "nobody took it while it was kept",
}

var statusWords = map[nodepb.Status]string{
	nodepb.Status_DATA_FOUND:      "data found",
	nodepb.Status_NO_DATA_FOUND:   "no data found",
	nodepb.Status_INCOMPLETE_DATA: "incomplete data",
	nodepb.Status_NO_RESULT:       "no result",
}

var roleWords = map[string]string{
	nodepb.Role_CONSULTANT.String():    "consultant",
	nodepb.Role_CLEARING_PEER.String(): "clearing peer",
	nodepb.Role_PUBLISHER.String():     "publisher",
	nodepb.Role_RECIPIENT.String():     "recipient",
	nodepb.Role_SUPPLIER.String():      "supplier",
}

// reasonName gives the code, empty for none.
func reasonName(r registrypb.Reason) string {
	if r == registrypb.Reason_REASON_UNSPECIFIED {
		return ""
	}
	return r.String()
}

func statusName(s nodepb.Status) string {
	if s == nodepb.Status_STATUS_UNSPECIFIED {
		return ""
	}
	return s.String()
}

// reasonText puts a reason code into words.
func reasonText(code string) string {
	if w := reasonWords[registrypb.Reason(registrypb.Reason_value[code])]; w != "" {
		return w
	}
	return code
}

// statusText puts a status code into words.
func statusText(code string) string {
	if w := statusWords[nodepb.Status(nodepb.Status_value[code])]; w != "" {
		return w
	}
	return code
}

// because adds the reason, if there is one.
func because(what string, r registrypb.Reason) string {
	if r == registrypb.Reason_REASON_UNSPECIFIED {
		return what
	}
	return what + ": " + reasonText(r.String())
}

// says puts one entry into words.
func says(e *nodepb.Entry) string {
	switch e.Event {
	case nodepb.Event_REQUESTED:
		return "asked"
	case nodepb.Event_DECIDED:
		switch e.Outcome {
		case registrypb.Outcome_PERMIT:
			if e.Supplier != nil {
				return "permitted, at " + e.Supplier.Institution
			}
			return "permitted"
		case registrypb.Outcome_OUTCOME_UNSPECIFIED:
			return "stepped aside, being a party itself"
		case registrypb.Outcome_NOT_APPLICABLE:
			return because("not applicable", e.Reason)
		}
		return because("denied", e.Reason)
	case nodepb.Event_SUPPLIED:
		return because("released: "+statusText(e.Status.String()), e.Reason)
	case nodepb.Event_REFUSED:
		return because("refused", e.Reason)
	case nodepb.Event_ANSWERED:
		what := statusText(e.Status.String())
		if e.Supplier != nil {
			what += " from " + e.Supplier.Institution
		}
		return because("received "+what, e.Reason)
	case nodepb.Event_EXPIRED_UNUSED:
		return "a clearance expired unused, at " + e.Supplier.GetInstitution()
	case nodepb.Event_INQUIRED:
		return fmt.Sprintf("asked for %d datasets at once", len(e.Parts))
	case nodepb.Event_CONCLUDED:
		return "concluded the inquiry"
	case nodepb.Event_RESENT:
		return "sent the same answer once more"
	}
	if words := eventWords[e.Event]; words != "" {
		if other := e.Requester.GetInstitution(); other != "" && e.Role != nodepb.Role_RECIPIENT {
			words += ": " + other
		}
		return because(words, e.Reason)
	}
	return e.Event.String()
}

// summary puts the whole story into one sentence.
func summary(s *Story) string {
	n := 0
	for _, j := range s.Journals {
		if j.Says == "" {
			n++
		}
	}
	switch s.Verdict {
	case Unknown:
		return "No journal that was read holds anything under this ticket."
	case Contradicted:
		return "The journals do not tell one story: see the findings."
	case Incomplete:
		return "What is there agrees, but something is missing: see the findings."
	}
	if n == 1 {
		return "One journal was read, and it agrees with itself."
	}
	return fmt.Sprintf("All %d journals are there, and they agree.", n)
}

// oneLine makes a text that came from elsewhere fit to be shown: no control
// characters, one line, of bearable length.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + "…"
	}
	return strings.TrimRight(strings.TrimSpace(s), ".")
}
