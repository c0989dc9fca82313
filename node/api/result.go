package api

import (
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func resultOf(r *exchange.Result) Consultation {
	c := Consultation{
		Ticket: r.Ticket, ClientTicket: r.ClientTicket, Status: r.Status.String(),
		Authorization: r.Authorization, Withheld: r.Withheld, Suppliers: []SupplierResult{},
	}
	c.Reason, c.Explanation = reasonOf(r.Reason)
	if !r.Successor.IsZero() {
		c.Successor = &Subject{Scheme: string(r.Successor.Scheme()), Number: r.Successor.Number()}
	}
	for _, s := range r.Suppliers {
		out := SupplierResult{Supplier: s.Supplier, Status: s.Status.String(), Records: s.Records, Withheld: s.Withheld}
		out.Reason, out.Explanation = reasonOf(s.Reason)
		c.Suppliers = append(c.Suppliers, out)
	}
	return c
}

func reasonOf(r registrypb.Reason) (word, explanation string) {
	if r == registrypb.Reason_REASON_UNSPECIFIED {
		return "", ""
	}
	return r.String(), explanations[r]
}

// explanations say each reason to the person at the screen. They tell no more than the
// reason does.
var explanations = map[registrypb.Reason]string{
	registrypb.Reason_UNKNOWN_SUBJECT:        "No institution that may supply this has a file on the subject for this period.",
	registrypb.Reason_REPLACED_NUMBER:        "The number was replaced; ask again under its successor.",
	registrypb.Reason_MALFORMED_NUMBER:       "The number is not well formed; check it for a typing error.",
	registrypb.Reason_DECEASED_SUBJECT:       "The subject has died.",
	registrypb.Reason_CANCELLED_NUMBER:       "The number was cancelled.",
	registrypb.Reason_NOT_INTEGRATED:         "The subject is not sufficiently integrated for your organisation: it has declared no file of the right quality in this period.",
	registrypb.Reason_NOT_ALLOWED:            "This is not allowed with the given legal context and credentials.",
	registrypb.Reason_NO_ELIGIBLE_CLEARER:    "Every registry member that could clear this is a party to it.",
	registrypb.Reason_REQUESTER_NOT_ADMITTED: "Your organisation is not admitted to the network, or is suspended.",
	registrypb.Reason_NO_PERMITTED_FIELD:     "None of the fields asked is within the authorization.",
	registrypb.Reason_AUTH_LEVEL_TOO_LOW:     "The authorization asks for a stronger authentication of the user.",
	registrypb.Reason_MANDATE_MISSING:        "The authorization asks for a mandate, and none is in force.",
	registrypb.Reason_SUPPLIER_UNAVAILABLE:   "The supplier could not be reached; ask again later, under a new client ticket.",
	registrypb.Reason_SUPPLIER_REFUSED:       "The supplier did not accept the clearance.",
	registrypb.Reason_SUPPLIER_ERROR:         "The supplier's own system failed.",
	registrypb.Reason_CLEARANCE_REPLAYED:     "The clearance had been used already.",
	registrypb.Reason_CLEARANCE_EXPIRED:      "The clearance came too late; ask again.",
	registrypb.Reason_CLEARANCE_INVALID:      "The supplier found the clearance invalid.",
	registrypb.Reason_REVOKED:                "The right was taken away between the check and the answer.",
	registrypb.Reason_REGISTRY_STALE:         "A node could not be sure of what is public; ask again later, under a new client ticket.",
	registrypb.Reason_JOURNAL_UNAVAILABLE:    "A journal could not be written, so nothing was answered.",
	registrypb.Reason_LOCAL_POLICY:           "Your organisation's own policy does not let this application ask this.",
	registrypb.Reason_SECTOR_FAILED:          "The sector has no answer now; why is not told, so as not to tell who in it. Ask again later, under a new client ticket.",
	registrypb.Reason_CLEARING_UNAVAILABLE:   "No registry member that could clear this was reached; ask again later, under a new client ticket.",
	registrypb.Reason_PUBLICATION_INVALID:    "The key that signed the publication is no longer in force; publish it again.",
	registrypb.Reason_DELIVERY_EXPIRED:       "It waited longer than it is kept.",
	registrypb.Reason_INBOX_FULL:             "The recipient's own system takes nothing.",
	registrypb.Reason_DUPLICATE_LINE:         "Another line of the lot is about the same subject; it has the result.",
	registrypb.Reason_LOT_CANCELLED:          "The lot was cancelled before this line was asked.",
	registrypb.Reason_CHUNK_TOO_LARGE:        "The supplier could not answer about so many at once, nor about one.",
	registrypb.Reason_STALE_REQUEST:          "The clock of your organisation's node and that of the network differ too much.",
}
