package trace

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Keys gives every signing key that an institution ever had, retired ones too: a
// key that was retired since still signed what it signed. Of an institution that is
// not known it gives none.
type Keys func(names.InstitutionID) ([]ed25519.PublicKey, error)

// Means is what Build judges with beside the segments. What is nil is not checked,
// and the story says so.
type Means struct {
	Keys Keys
	// Anchored reports whether a majority of the registry's members cosigned a
	// checkpoint.
	Anchored func(*checkpoint.Note) (bool, error)
	// Known is how many entries the logs of journals are known to have had.
	Known map[names.NodeID]int64
	// Alone: one party's journal is all there is to be judged, so that the others'
	// were not read is no finding.
	Alone bool
}

// shownEvidence is what an entry's envelopes say, once each proved to be what the
// entry names. Parts that are missing are nil.
type shownEvidence struct {
	request   *registrypb.Request
	clearance *registrypb.Clearance
	decision  *registrypb.Decision
	answer    *nodepb.Answer
	second    *registrypb.Clearance // of the second clearing peer, where there is one
}

// part is one envelope that an entry rests on.
type part struct {
	kind envelope.Type
	what string
	hash []byte // that the entry gives for it; nil: it gives none
	into proto.Message
	by   func() string // the institution that it names as its author
}

// expected gives the envelopes that an entry of this event rests on, in order.
func expected(e *nodepb.Entry, s *shownEvidence) []part {
	parts := expectedFirst(e, s)
	if len(parts) > 0 {
		parts = append(parts, secondPart(e, s)...)
	}
	return parts
}

// expectedFirst gives all but that of a second clearing peer.
func expectedFirst(e *nodepb.Entry, s *shownEvidence) []part {
	s.request, s.clearance, s.decision, s.answer = new(registrypb.Request), new(registrypb.Clearance), new(registrypb.Decision), new(nodepb.Answer)
	request := part{envelope.Request, "request", e.RequestHash, s.request, func() string { return s.request.GetRequester().GetInstitution() }}
	clearance := part{envelope.Clearance, "clearance", e.ClearanceHash, s.clearance, func() string { return s.clearance.GetClearer().GetInstitution() }}
	decision := part{envelope.Decision, "decision", nil, s.decision, func() string { return s.decision.GetClearer().GetInstitution() }}
	answer := part{envelope.Answer, "answer", nil, s.answer, func() string { return s.answer.GetSupplier().GetInstitution() }}
	cleared := len(e.ClearanceId) > 0
	switch e.Event {
	case nodepb.Event_REQUESTED:
		return []part{request}
	case nodepb.Event_DECIDED:
		if cleared {
			return []part{request, clearance}
		}
		// Whoever wrote before decisions were signed had none to show.
		return []part{request, decision}[:max(1, min(len(e.Evidence), 2))]
	case nodepb.Event_SUPPLIED, nodepb.Event_RESENT:
		return []part{request, clearance, answer}
	case nodepb.Event_REFUSED:
		if len(e.Evidence) > 0 { // what was refused may have been no message at all
			return []part{request, clearance}
		}
	case nodepb.Event_ANSWERED:
		switch {
		case cleared && hasData(e):
			return []part{clearance, answer}
		case cleared:
			return []part{clearance}
		case len(e.Evidence) > 0: // with none, no clearing peer decided
			return []part{decision}
		}
	}
	return nil
}

// checkEvidence verifies the signed messages that an entry rests on, and that the
// entry says what they say. A node checks what it is sent before it notes it, so
// whatever is wrong here is for the node to explain in whose journal it stands.
func (b *builder) checkEvidence(e held) {
	var s shownEvidence
	parts := expected(e.Entry, &s)
	if len(e.Evidence) > len(parts) {
		b.find(Disagreement, []names.NodeID{e.node}, "Entry %d of %s shows %d signed messages, and rests on %d.", e.sequence, show(e.node), len(e.Evidence), len(parts))
	}
	for i, p := range parts {
		if i >= len(e.Evidence) {
			b.find(Altered, []names.NodeID{e.node}, "Entry %d of %s lacks the signed %s that it rests on.", e.sequence, show(e.node), p.what)
			return
		}
		if !b.openPart(e, p, e.Evidence[i]) {
			return
		}
	}
	b.compare(e, parts, &s)
}

// openPart reads one envelope and reports whether what it says can be compared.
func (b *builder) openPart(e held, p part, raw []byte) bool {
	by := []names.NodeID{e.node}
	if hash := sha256.Sum256(raw); p.hash != nil && !bytes.Equal(hash[:], p.hash) {
		b.find(Altered, by, "Entry %d of %s shows another %s than the one that it names.", e.sequence, show(e.node), p.what)
		return false
	}
	opened, err := envelope.Open(p.kind, raw)
	if err == nil {
		err = proto.Unmarshal(opened.Payload, p.into)
	}
	if err != nil {
		b.find(Altered, by, "Entry %d of %s shows something that is no %s.", e.sequence, show(e.node), p.what)
		return false
	}
	if b.means.Keys == nil {
		b.unchecked = true
		return true
	}
	author := names.InstitutionID(p.by())
	var keys []ed25519.PublicKey
	if author.Validate() == nil {
		if keys, err = b.means.Keys(author); err != nil || len(keys) == 0 {
			b.find(Unverified, by, "The %s in entry %d of %s names %s, whose keys are not known here: it could not be verified.",
				p.what, e.sequence, show(e.node), author)
			return true
		}
	}
	if slices.ContainsFunc(keys, opened.VerifiedBy) {
		return true
	}
	if e.Event == nodepb.Event_REFUSED {
		// It said no, as it had to. What it refused is nobody's word.
		b.find(Asserted, by, "What %s refused by entry %d is not signed by whoever it names: only %s says that it came.", show(e.node), e.sequence, show(e.node))
		return true
	}
	b.find(Altered, by, "The %s in entry %d of %s is not signed by %s, which it names.", p.what, e.sequence, show(e.node), oneLine(string(author)))
	return true
}

// said is one thing that an entry and a signed message must agree on.
type said struct {
	what  string
	agree bool
}

// compare insists that an entry says what its signed messages say.
func (b *builder) compare(e held, parts []part, s *shownEvidence) {
	var all []said
	for _, p := range parts {
		switch p.kind {
		case envelope.Request:
			all = append(all, ofRequest(e.Entry, s.request, e.Evidence[0])...)
		case envelope.Clearance:
			if p.what == secondWord {
				all = append(all, ofSecondGranted(e.Entry, s.second)...)
				continue
			}
			all = append(all, ofGranted(e.Entry, s.clearance)...)
		case envelope.Decision:
			all = append(all, ofDecision(e.Entry, s.decision)...)
		case envelope.Answer:
			all = append(all, ofReleased(e.Entry, s.answer)...)
		}
	}
	var wrong []string
	for _, x := range all {
		if !x.agree && !slices.Contains(wrong, x.what) {
			wrong = append(wrong, x.what)
		}
	}
	if len(wrong) > 0 {
		b.find(Disagreement, []names.NodeID{e.node}, "Entry %d of %s and the signed messages it rests on disagree about %s.",
			e.sequence, show(e.node), strings.Join(wrong, ", "))
	}
	if e.Event == nodepb.Event_DECIDED && len(e.ClearanceId) > 0 {
		b.overstepped(e, s)
	}
}

func ofRequest(e *nodepb.Entry, r *registrypb.Request, raw []byte) []said {
	all := []said{
		{"the ticket", e.Ticket == string(names.TicketOf(raw))},
		{"the requester", e.Event == nodepb.Event_REFUSED || proto.Equal(e.Requester, r.Requester)},
		{"the requester's own ticket", e.ClientTicket == r.ClientTicket},
		{"the user", e.User == r.User},
		{"the application", e.Application == r.Application},
		{"the authentication level", e.AuthLevel == r.AuthLevel},
		{"the channel", e.Channel == r.Channel},
		{"the purpose", e.Purpose == r.Purpose},
		{"the mode", e.Mode == r.Mode},
		{"the dataset", e.Dataset == r.Dataset},
		{"the subject", proto.Equal(e.Subject, r.Subject)},
		{"the period", proto.Equal(e.Period, r.Period)},
	}
	if len(e.ClearanceId) == 0 {
		all = append(all, said{"the fields asked", slices.Equal(e.Fields, r.Fields)})
	}
	return all
}

func ofGranted(e *nodepb.Entry, c *registrypb.Clearance) []said {
	if e.Event == nodepb.Event_REFUSED && e.Outcome != registrypb.Outcome_PERMIT {
		return []said{{"the clearance", bytes.Equal(e.ClearanceId, c.Id)}} // it believed nothing else of it
	}
	return []said{
		{"the clearance", bytes.Equal(e.ClearanceId, c.Id)},
		{"the ticket", e.Ticket == c.Ticket},
		{"the request (by its hash)", bytes.Equal(e.RequestHash, c.RequestHash)},
		{"the clearing peer", proto.Equal(e.Clearer, c.Clearer)},
		{"the requester", proto.Equal(e.Requester, c.Requester)},
		{"the supplier", e.Supplier.GetInstitution() == c.Supplier},
		{"the subject", proto.Equal(e.Subject, c.Subject)},
		{"the dataset", e.Dataset == c.Dataset},
		{"the period", proto.Equal(e.Period, c.Period)},
		{"the purpose", e.Purpose == c.Purpose},
		{"the mode", e.Mode == c.Mode},
		{"the permitted fields", slices.Equal(e.Fields, c.Fields)},
		{"the withheld fields", slices.Equal(e.Withheld, c.Withheld)},
		{"the authorization", e.Authorization == c.Authorization},
		{"the registry's state", e.RegistryIndex == c.RegistryIndex},
		{"the mandate", proto.Equal(e.Mandate, c.Mandate)},
		{"the time to present it by", e.PresentByUnixMs == c.PresentByUnixMs},
	}
}

func ofDecision(e *nodepb.Entry, d *registrypb.Decision) []said {
	return []said{
		{"the ticket", e.Ticket == d.Ticket},
		{"the request (by its hash)", bytes.Equal(e.RequestHash, d.RequestHash)},
		{"the clearing peer", proto.Equal(e.Clearer, d.Clearer)},
		{"the requester", proto.Equal(e.Requester, d.Requester)},
		{"the decision", e.Outcome == d.Outcome && (e.Event != nodepb.Event_DECIDED || e.Reason == d.Reason)},
		{"the withheld fields", slices.Equal(e.Withheld, d.Withheld)},
		{"the authorization", e.Authorization == d.Authorization},
		{"the registry's state", e.RegistryIndex == d.RegistryIndex},
	}
}

func ofReleased(e *nodepb.Entry, a *nodepb.Answer) []said {
	return []said{
		{"the ticket", e.Ticket == a.Ticket},
		{"the supplier", proto.Equal(e.Supplier, a.Supplier)},
		{"the request (by its hash)", bytes.Equal(e.RequestHash, a.RequestHash)},
		{"the clearance (by its hash)", bytes.Equal(e.ClearanceHash, a.ClearanceHash)},
		{"the second clearance (by its hash)", bytes.Equal(e.GetSecondClearance().GetHash(), a.SecondClearanceHash)},
		{"the result", e.Status == a.Status},
		{"the answer (by its commitment)", bytes.Equal(e.AnswerCommitment, a.Commitment)},
	}
}

// overstepped names a clearing peer that permitted more than was asked of it.
func (b *builder) overstepped(e held, s *shownEvidence) {
	for _, f := range s.clearance.Fields {
		if len(s.request.Fields) > 0 && !slices.Contains(s.request.Fields, f) {
			b.find(Disagreement, []names.NodeID{e.node}, "%s permitted field %s, which the signed request does not ask for.", show(e.node), oneLine(f))
		}
	}
	if len(s.request.Suppliers) > 0 && !slices.Contains(s.request.Suppliers, s.clearance.Supplier) {
		b.find(Disagreement, []names.NodeID{e.node}, "%s cleared %s, which the signed request does not ask.", show(e.node), oneLine(s.clearance.Supplier))
	}
}

// checkTold labels what only the consultant tells of others, and names it where the
// journal that should hold it was read and does not.
func (b *builder) checkTold() {
	for _, e := range b.entries {
		if e.Event != nodepb.Event_ANSWERED || len(e.ClearanceId) > 0 || e.Clearer == nil ||
			e.Outcome != registrypb.Outcome_DENY && e.Outcome != registrypb.Outcome_NOT_APPLICABLE {
			continue
		}
		clearer := nodeID(e.Clearer)
		decided := slices.ContainsFunc(b.entries, func(d held) bool {
			return d.Event == nodepb.Event_DECIDED && d.node == clearer && d.Outcome == e.Outcome && d.Reason == e.Reason
		})
		switch {
		case decided:
		case b.shown(clearer) && len(e.Evidence) > 0 && b.means.Keys != nil: // its signature says that it did
			b.find(Disagreement, []names.NodeID{clearer}, "%s signed a refusal that its own journal does not show.", show(clearer))
		case b.shown(clearer):
			b.find(Disagreement, []names.NodeID{e.node, clearer}, "%s says that %s refused; the journal of %s shows no such decision.", show(e.node), show(clearer), show(clearer))
		case len(e.Evidence) == 0:
			b.find(Asserted, []names.NodeID{e.node}, "Only %s says that %s refused.", show(e.node), show(clearer))
		}
	}
}

// concludeEvidence says what was left unchecked for want of keys.
func (b *builder) concludeEvidence() {
	if b.unchecked {
		b.find(Unverified, nil, "No signature was verified: the keys of the institutions were not at hand.")
	}
}

// Ruling is a clearance, or a decision that cleared nothing, with its request or
// publication.
type Ruling struct{ Request, Ruling []byte } // envelopes

// Rulings gives what clearing peers permitted or refused, each once, as far as the
// segments show it with its request; nothing of it is verified. Those that stood aside
// ruled nothing.
func Rulings(segments map[names.NodeID]Segment) (all []Ruling) {
	requests := map[[sha256.Size]byte][]byte{}
	seen := map[[sha256.Size]byte]bool{}
	var entries []*nodepb.Entry
	for _, n := range sorted(segments) {
		for _, s := range segments[n].Entries[:min(len(segments[n].Entries), MaxEntries)] {
			e, err := Decode(s)
			if err != nil || e.Event == nodepb.Event_REFUSED || e.Event == nodepb.Event_NOTICE_REFUSED {
				continue
			}
			entries = append(entries, e)
			for _, raw := range e.Evidence {
				if is(raw, envelope.Request, envelope.Publication) {
					requests[sha256.Sum256(raw)] = raw
				}
			}
		}
	}
	for _, e := range entries {
		for _, raw := range e.Evidence {
			hash := sha256.Sum256(raw)
			if seen[hash] || len(e.RequestHash) != sha256.Size || !rules(e, raw) {
				continue
			}
			if request := requests[[sha256.Size]byte(e.RequestHash)]; request != nil {
				seen[hash] = true
				all = append(all, Ruling{request, raw})
			}
		}
	}
	return all
}

func rules(e *nodepb.Entry, raw []byte) bool {
	return is(raw, envelope.Clearance, envelope.NotificationClearance) ||
		e.Outcome != registrypb.Outcome_OUTCOME_UNSPECIFIED && e.Reason != registrypb.Reason_PUBLICATION_INVALID && is(raw, envelope.Decision, envelope.NotificationDecision)
}

// is reports whether raw is an envelope of one of these types.
func is(raw []byte, types ...envelope.Type) bool {
	return slices.ContainsFunc(types, func(t envelope.Type) bool {
		_, err := envelope.Open(t, raw)
		return err == nil
	})
}
