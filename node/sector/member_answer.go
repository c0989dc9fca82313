package sector

import (
	"bytes"
	"context"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// permitted is a permission that was checked: about one subject, or a share of a chunk.
type permitted interface {
	GetId() []byte
	GetTicket() string
	GetRequestHash() []byte
	GetAnswerByUnixMs() int64
}

// answerer is what the two differ in.
type answerer interface {
	// what is the hash of what is asked.
	what() []byte
	// fetch asks the source, and cuts what it gives to what is permitted.
	fetch(ctx context.Context) (*nodepb.KeptSectorContent, *refusal)
	// stands looks once more at what may fall away.
	stands() *refusal
	// supplied begins the entry of an answer with this content.
	supplied(content []byte) (*nodepb.Entry, error)
}

// answer gets the content and lets it out once it is kept and journaled. kind is that of
// the answer's envelope, hash that of the permission's.
func (m *Member) answer(ctx context.Context, p permitted, hash []byte, kind envelope.Type, x answerer) (*nodepb.ForwardResponse, *refusal) {
	key := outbox.Key{Table: forwards, ID: string(p.GetId())}
	kept := new(nodepb.KeptForward)
	seen, err := m.load(key, kept)
	if err != nil {
		return nil, refuse(registrypb.Reason_JOURNAL_UNAVAILABLE, "the outbox cannot be read")
	}
	if seen && !bytes.Equal(kept.GetPermissionHash(), hash) {
		return nil, refuse(registrypb.Reason_CLEARANCE_REPLAYED, "another permission had this id")
	}
	resp, detail := kept.GetResponse(), "the answer kept from before: the source was not asked again"
	if !seen {
		found, old, no := m.obtain(ctx, p, x)
		if no != nil {
			return nil, no
		}
		if !old {
			detail = ""
		}
		if no := x.stands(); no != nil { // the source may have taken long
			return nil, no
		}
		if resp, no = m.seal(p, hash, kind, found); no != nil {
			return nil, no
		}
		rows := []outbox.Change{row(key, &nodepb.KeptForward{PermissionHash: hash, Response: resp},
			time.UnixMilli(p.GetAnswerByUnixMs()).Add(m.Bounds.Skew+seenMargin))}
		if !old {
			rows = append(rows, row(contentKey(p), found, m.Now().Add(m.Life)))
		}
		if m.keep(rows...) != nil {
			return nil, refuse(registrypb.Reason_JOURNAL_UNAVAILABLE, "the outbox cannot be written")
		}
	}
	a := new(nodepb.SectorAnswer)
	e, err := x.supplied(resp.GetContent())
	if _, bad := decode(kind, resp.GetAnswer(), a); bad != nil || err != nil {
		return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "own answer cannot be read")
	}
	e.Status, e.AnswerCommitment, e.Detail = a.GetStatus(), a.GetCommitment(), detail
	e.Evidence = append(e.Evidence, resp.GetAnswer())
	if m.journal(ctx, e) != nil {
		return nil, refuse(registrypb.Reason_JOURNAL_UNAVAILABLE, "not journaled")
	}
	return resp, x.stands()
}

func contentKey(p permitted) outbox.Key {
	return outbox.Key{Table: contents, ID: string(p.GetRequestHash())}
}

// obtain gives what the source says: kept from before for the very same request, or
// fetched now, for as long as the managing body waits.
func (m *Member) obtain(ctx context.Context, p permitted, x answerer) (c *nodepb.KeptSectorContent, old bool, no *refusal) {
	what, kept := x.what(), new(nodepb.KeptSectorContent)
	if found, err := m.load(contentKey(p), kept); err != nil {
		return nil, false, refuse(registrypb.Reason_JOURNAL_UNAVAILABLE, "the outbox cannot be read")
	} else if found && bytes.Equal(kept.GetPartsHash(), what) {
		return kept, true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.UnixMilli(p.GetAnswerByUnixMs()).Add(m.Bounds.Skew).Sub(m.Now()))
	defer cancel()
	if c, no = x.fetch(ctx); no != nil {
		return nil, false, no
	}
	c.PartsHash, c.Blinding = what, fresh(blindingSize)
	return c, false, nil
}

// seal signs an answer to one permission.
func (m *Member) seal(p permitted, hash []byte, kind envelope.Type, c *nodepb.KeptSectorContent) (*nodepb.ForwardResponse, *refusal) {
	raw, _, err := m.sign(kind, &nodepb.SectorAnswer{
		Mesh: string(m.Mesh), Ticket: p.GetTicket(), Member: nodeRef(m.Self), PermissionHash: hash,
		Status: c.GetStatus(), Commitment: exchange.Commitment(c.GetBlinding(), c.GetContent()), TimeUnixMs: m.Now().UnixMilli(),
	})
	resp := &nodepb.ForwardResponse{Answer: raw, Content: c.GetContent(), Blinding: c.GetBlinding()}
	if err == nil {
		resp.Padding, err = veil.Padding(resp)
	}
	if err != nil {
		return nil, refuse(registrypb.Reason_SUPPLIER_ERROR, "the answer could not be signed, or is too large")
	}
	return resp, nil
}
