package names

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
)

// Ticket is the unique number of a transaction: it stands in the receipt, in
// every log and in every complaint (domain page, section 2). It is 26 characters
// of lower-case base32, derived from the signed request, so that every node that
// sees the same request computes the same ticket and none can choose it.
type Ticket string

var ticketEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// TicketOf derives the ticket of a signed request from its envelope as sent.
func TicketOf(requestEnvelope []byte) Ticket {
	h := sha256.New()
	h.Write([]byte("crossroads ticket v1\x00"))
	h.Write(requestEnvelope)
	return Ticket(ticketEncoding.EncodeToString(h.Sum(nil)[:16]))
}

// Validate reports whether t has the form of a ticket.
func (t Ticket) Validate() error {
	if len(t) != 26 {
		return fmt.Errorf("%w: ticket %q: want 26 characters", ErrMalformed, clip(string(t)))
	}
	if _, err := ticketEncoding.DecodeString(string(t)); err != nil {
		return fmt.Errorf("%w: ticket %q: not base32", ErrMalformed, clip(string(t)))
	}
	return nil
}

// ClientTicket is the requester's own number of a transaction, at most 36
// printable characters; it travels along and comes back, and asking again under
// the same one is asking once (domain page, section 3).
type ClientTicket string

// Validate reports whether c is present, printable ASCII and at most 36 bytes.
func (c ClientTicket) Validate() error { return check("client ticket", string(c), 36, isPrintable) }
