package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// maxReceipt is the largest receipt that is read, in bytes.
const maxReceipt = 8 << 10

var errFull = errors.New("its inbox is full: its own system takes nothing")

// conclude takes in what the recipient answered: it journals what is delivered before it
// forgets it, and notes what was refused.
func (c *courier) conclude(ctx context.Context, going []*flight, to names.NodeID, outcomes []*nodepb.DeliveryOutcome) error {
	var entries []*nodepb.Entry
	var changes []outbox.Change
	var done []*flight
	var full error
	now := c.cfg.Now()
	err := c.cfg.Registry.View(func(v record.View) error {
		for i, f := range going {
			o := outcomes[i]
			if len(o.Receipt) > 0 {
				r, err := c.openReceipt(v, f, to, o.Receipt)
				if err == nil {
					entries, done = append(entries, c.delivered(f, to, r, o.Receipt)), append(done, f)
					changes = append(changes, outbox.Change{Key: deliveryKey(c.address, f.sequence), Delete: true})
					if c.cfg.Received != nil && f.used.Publication.Mode != "" {
						changes = append(changes, c.cfg.Received(f.used.Told, to, o.Receipt)...)
					}
					continue
				}
				c.cfg.Log.Warn("receipt does not verify", "recipient", c.address, "ticket", f.used.Ticket, "err", err)
				o = &nodepb.DeliveryOutcome{Reason: registrypb.Reason_SUPPLIER_ERROR}
			}
			if o.Reason == registrypb.Reason_INBOX_FULL {
				full = errFull
			}
			e, change, err := c.refused(f, to, o, now)
			if err != nil {
				return err
			}
			if e != nil {
				entries, changes = append(entries, e), append(changes, change)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := appendAll(ctx, c.cfg.Journal, entries); err != nil {
		return err
	}
	if len(changes) > 0 {
		if err := c.cfg.Queue.Write(changes...); err != nil {
			return err
		}
	}
	for _, f := range done {
		f.settled = true
	}
	return full
}

func (c *courier) delivered(f *flight, to names.NodeID, r *nodepb.NoticeReceipt, raw []byte) *nodepb.Entry {
	e := c.entry(f, nodepb.Event_NOTICE_DELIVERED, to)
	e.Evidence = [][]byte{f.message.Clearance, raw}
	if r.Had {
		e.Detail = "the recipient had it before: this one had no effect"
	}
	return e
}

// openReceipt insists that the recipient signed for this very notice.
func (c *courier) openReceipt(v record.View, f *flight, from names.NodeID, raw []byte) (*nodepb.NoticeReceipt, error) {
	if len(raw) > maxReceipt {
		return nil, errors.New("too large")
	}
	opened, err := envelope.Open(envelope.NoticeReceipt, raw)
	if err != nil {
		return nil, err
	}
	r := new(nodepb.NoticeReceipt)
	if err := proto.Unmarshal(opened.Payload, r); err != nil {
		return nil, errors.New("not protobuf")
	}
	for _, is := range [...]struct {
		what  string
		wrong bool
	}{
		{"mesh", r.Mesh != string(c.cfg.Mesh)},
		{"ticket", r.Ticket != string(f.used.Ticket)},
		{"recipient", record.NodeID(r.Recipient) != from},
		{"publisher", r.Publisher != string(c.cfg.Self.Institution)},
		{"publication", !bytes.Equal(r.PublicationHash, f.used.PublicationHash)},
		{"clearance", !bytes.Equal(r.ClearanceHash, f.used.Hash)},
		{"content", !bytes.Equal(r.Commitment, f.commitment)},
	} {
		if is.wrong {
			return nil, fmt.Errorf("it is for another %s", is.what)
		}
	}
	for _, id := range opened.KeyIDs() {
		k, err := v.Key(id)
		if err != nil {
			return nil, err
		}
		if k != nil && !k.Retired && k.Institution == string(from.Institution) && c.receipts.VerifiedBy(opened, k.PublicKey) {
			return r, nil
		}
	}
	return nil, errors.New("no key in force of the recipient signed it")
}

// refused notes that a delivery was refused. If the recipient may think otherwise later
// it is tried again; else it counts, and ends as a dead letter. The entry and change are
// nil when there is nothing to keep.
func (c *courier) refused(f *flight, to names.NodeID, o *nodepb.DeliveryOutcome, now time.Time) (*nodepb.Entry, outbox.Change, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.HeldBack {
		return nil, outbox.Change{}, nil
	}
	c.cfg.Log.Info("delivery refused", "recipient", c.address, "ticket", f.used.Ticket, "reason", o.Reason.String(), "again", o.Retry)
	rest := c.cfg.RetryFirst << min(f.kept.Refused+f.tries, 10)
	f.retryAt = now.Add(min(rest, c.cfg.RetryMost))
	if o.Retry {
		f.tries++
		return nil, outbox.Change{}, nil
	}
	f.kept.Refused++
	f.kept.Reason = o.Reason
	event, detail := nodepb.Event_NOTICE_REFUSED, "the recipient refused it; it is tried again"
	if f.kept.Refused >= uint32(c.cfg.Refusals) {
		f.kept.Dead = true
		c.dead++
		event, detail = nodepb.Event_NOTICE_DEAD, fmt.Sprintf("refused %d times: given up until it is driven again", f.kept.Refused)
	}
	change, err := changeOf(deliveryKey(c.address, f.sequence), f.kept, time.Time{})
	e := c.entry(f, event, to)
	e.Status, e.Outcome, e.Reason, e.Detail, e.Evidence = nodepb.Status_NO_RESULT, registrypb.Outcome_PERMIT, o.Reason, detail, [][]byte{f.message.Clearance}
	return e, change, err
}
