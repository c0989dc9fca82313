package trace

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Recipient is what became of a publication with one who was to be told.
type Recipient struct {
	Recipient string        `json:"recipient"`
	Purpose   names.Purpose `json:"purpose,omitempty"`
	// State is DELIVERED, AGAIN (it had it), LAPSED, DEAD, SENT, CLEARED or TAKEN.
	State    string `json:"state"`
	Attempts int    `json:"attempts"` // times that content left
}

// ofNotification reports whether an entry tells of an automatic communication.
func ofNotification(e *nodepb.Entry) bool {
	return e.Role == nodepb.Role_PUBLISHER || e.Role == nodepb.Role_RECIPIENT || e.Event == nodepb.Event_CLEARED
}

// isNotification reports whether all that was read tells of one.
func (b *builder) isNotification() bool {
	return !slices.ContainsFunc(b.entries, func(e held) bool { return !ofNotification(e.Entry) })
}

// published makes the story of a publication.
func (b *builder) published(s *Story) {
	first := pick(b.entries, nodepb.Event_PUBLISHED, nodepb.Event_CLEARED, nodepb.Event_NOTICE_RECEIVED)
	if first == nil {
		first = &b.entries[0]
	}
	e := first.Entry
	s.ClientTicket, s.Requester, s.User, s.AuthLevel = names.ClientTicket(e.ClientTicket), show(nodeID(e.Supplier)), names.UserID(e.User), e.AuthLevel
	s.Application, s.Channel, s.Mode, s.Dataset = e.Application, e.Channel, names.Mode(e.Mode), names.DatasetID(e.Dataset)
	if e.Subject != nil {
		s.Subject = &Subject{Scheme: e.Subject.Scheme, Number: e.Subject.Number}
	}
	if e.Period != nil {
		s.Period = &names.Period{From: names.Date(e.Period.From), Until: names.Date(e.Period.Until)}
	}
	if first.Event == nodepb.Event_PUBLISHED {
		s.Asked = fields(e.Fields)
		if e.Outcome == registrypb.Outcome_DENY {
			s.Refusal = &Refusal{Outcome: e.Outcome.String(), Reason: reasonName(e.Reason)}
		}
	}
	groups := b.clearances()
	for _, g := range groups {
		s.Exchanges = append(s.Exchanges, b.toldUnder(g))
	}
	s.Recipients = b.recipients()
	s.Steps = b.steps()
	b.checkNotification(groups, s.Recipients)
}

// toldUnder is what became of one clearance.
func (b *builder) toldUnder(g []held) Exchange {
	w := pick(g, nodepb.Event_NOTICE_DELIVERED, nodepb.Event_NOTICE_RECEIVED, nodepb.Event_NOTICE_AGAIN, nodepb.Event_NOTICE_REFUSED, nodepb.Event_NOTICE_DEAD,
		nodepb.Event_NOTICE_SENT, nodepb.Event_CLEARED)
	if w == nil {
		w = &g[0]
	}
	x := Exchange{
		ClearanceID: hex.EncodeToString(w.ClearanceId), Supplier: show(nodeID(w.Supplier)), Recipient: show(nodeID(w.Requester)),
		Clearer: show(nodeID(w.Clearer)), Authorization: names.AuthorizationID(w.Authorization), RegistryIndex: w.RegistryIndex,
		Fields: fields(w.Fields), Reason: reasonName(w.Reason),
	}
	if w.Status != nodepb.Status_STATUS_UNSPECIFIED && w.Event != nodepb.Event_NOTICE_SENT {
		x.Status = w.Status.String()
	}
	for _, e := range g {
		x.Deliberation = cmp.Or(x.Deliberation, names.Deliberation(e.Deliberation))
	}
	published, cleared := pick(b.entries, nodepb.Event_PUBLISHED), pick(g, nodepb.Event_CLEARED)
	sent, received := pick(g, nodepb.Event_NOTICE_SENT), pick(g, nodepb.Event_NOTICE_RECEIVED, nodepb.Event_NOTICE_AGAIN)
	x.Clearing, x.Supplying, x.Receiving, x.Total = span(published, cleared), span(cleared, sent), span(sent, received), span(published, received)
	return x
}

// progress ranks what can be known of a recipient; what counts more stands later.
var progress = []nodepb.Event{nodepb.Event_CLEARED, nodepb.Event_NOTICE_SENT, nodepb.Event_NOTICE_REFUSED, nodepb.Event_NOTICE_DEAD, nodepb.Event_NOTICE_LAPSED,
	nodepb.Event_NOTICE_AGAIN, nodepb.Event_NOTICE_RECEIVED, nodepb.Event_NOTICE_DELIVERED, nodepb.Event_TAKEN}

// recipients sums up what the journals say of each recipient, over all attempts.
func (b *builder) recipients() (all []Recipient) {
	type place struct{ institution, purpose string }
	at := map[place]int{}
	rank := map[place]int{}
	for _, e := range b.entries {
		r := slices.Index(progress, e.Event)
		if r < 0 || e.Requester.GetInstitution() == "" {
			continue
		}
		k := place{e.Requester.Institution, e.Purpose}
		i, known := at[k]
		if !known {
			i = len(all)
			at[k], rank[k] = i, -1
			all = append(all, Recipient{Recipient: k.institution, Purpose: names.Purpose(k.purpose)})
		}
		if e.Event == nodepb.Event_NOTICE_SENT {
			all[i].Attempts++
		}
		if r > rank[k] {
			rank[k] = r
			all[i].State = strings.TrimPrefix(e.Event.String(), "NOTICE_")
		}
	}
	slices.SortFunc(all, func(x, y Recipient) int {
		return cmp.Or(cmp.Compare(x.Recipient, y.Recipient), cmp.Compare(x.Purpose, y.Purpose))
	})
	return all
}

// checkNotification adds what the segments have to be reproached with.
func (b *builder) checkNotification(groups [][]held, recipients []Recipient) {
	for _, e := range b.entries {
		b.checkToldBy(e)
		b.checkShown(e)
	}
	b.concludeEvidence()
	var common []attribute
	for _, a := range ofTicket {
		if a.name != "the requester" && a.name != "the purpose" { // these are each recipient's
			common = append(common, a)
		}
	}
	var about []held // what an application did later is not the publisher's doing
	for _, e := range b.entries {
		if e.Event != nodepb.Event_TAKEN && e.Event != nodepb.Event_INBOX_ENDED && e.Event != nodepb.Event_SUBMISSION_DECIDED && e.Event != nodepb.Event_SUBMISSION_TOLD && e.Event != nodepb.Event_NOTICE_REDRIVEN {
			about = append(about, e)
		}
	}
	b.agree("", about, common)
	for _, g := range groups {
		b.checkTelling(g)
	}
	b.checkParties()
	published := pick(b.entries, nodepb.Event_PUBLISHED)
	if published == nil && b.shown(nodeID(b.entries[0].Supplier)) {
		n := nodeID(b.entries[0].Supplier)
		b.find(Disagreement, []names.NodeID{n}, "Others tell of a publication by %s; its own journal does not.", show(n))
	}
	if published == nil || published.Outcome == registrypb.Outcome_DENY {
		return
	}
	if pick(b.entries, nodepb.Event_CLEARED, nodepb.Event_ADDRESSED) == nil {
		b.find(Unfinished, []names.NodeID{published.node}, "%s published, and no clearing peer has decided yet who is to be told.", show(published.node))
	}
	for _, r := range recipients {
		switch r.State {
		case "CLEARED", "SENT", "REFUSED":
			b.find(Unfinished, []names.NodeID{published.node}, "%s is to be told, and as far as the journals say has not been yet.", r.Recipient)
		case "DEAD":
			b.find(Unfinished, []names.NodeID{published.node}, "%s has given up telling %s until somebody has it tried again.", show(published.node), r.Recipient)
		}
	}
	b.assertions()
}

// checkToldBy checks that an entry stands in the journal of who acted, and says what its
// event needs.
func (b *builder) checkToldBy(e held) {
	actor := map[nodepb.Role]*registrypb.NodeRef{
		nodepb.Role_PUBLISHER: e.Supplier, nodepb.Role_CLEARING_PEER: e.Clearer, nodepb.Role_RECIPIENT: e.Requester,
	}[e.Role]
	by := []names.NodeID{e.node}
	if actor.GetInstitution() != string(e.node.Institution) {
		b.find(Disagreement, by, "Entry %d of %s was written as %s, and names %s in that role.", e.sequence, show(e.node), roleName(e.Role), show(nodeID(actor)))
	}
	told := e.Event == nodepb.Event_NOTICE_SENT || e.Event == nodepb.Event_NOTICE_RECEIVED || e.Event == nodepb.Event_NOTICE_AGAIN || e.Event == nodepb.Event_NOTICE_DELIVERED
	if told && (len(e.ClearanceId) == 0 || len(e.ClearanceHash) == 0 || len(e.AnswerCommitment) == 0 || len(e.RequestHash) == 0) {
		b.find(Disagreement, by, "Entry %d of %s tells of content and does not name its publication, its clearance and what was told.", e.sequence, show(e.node))
	}
	if len(e.ClearanceId) > 0 && e.Clearer.GetInstitution() != "" && (e.Clearer.Institution == e.Requester.GetInstitution() || e.Clearer.Institution == e.Supplier.GetInstitution()) {
		b.find(Disagreement, by, "By entry %d of %s, %s cleared a notification that it was itself a party to.", e.sequence, show(e.node), e.Clearer.Institution)
	}
}

// checkTelling checks what became of one clearance.
func (b *builder) checkTelling(g []held) {
	scope := " of clearance " + short(g[0].ClearanceId)
	b.agree(scope, g, ofClearance)
	cleared, sent := pick(g, nodepb.Event_CLEARED), pick(g, nodepb.Event_NOTICE_SENT)
	received, delivered := pick(g, nodepb.Event_NOTICE_RECEIVED, nodepb.Event_NOTICE_AGAIN), pick(g, nodepb.Event_NOTICE_DELIVERED)
	publisher, recipient, clearer := nodeID(g[0].Supplier), names.NodeID{}, names.NodeID{}
	for _, e := range g {
		clearer = nodeID(e.Clearer)
		if recipient.Institution == "" || e.Requester.GetNode() != "" {
			recipient = nodeID(e.Requester)
		}
	}
	for _, pair := range [][2]*held{{sent, received}, {received, delivered}, {sent, delivered}} {
		if pair[0] != nil && pair[1] != nil {
			b.agree(scope, []held{*pair[0], *pair[1]}, ofAnswer[:1])
		}
	}
	switch {
	case cleared == nil && b.shown(clearer):
		b.find(Disagreement, append([]names.NodeID{clearer}, voices(g)...), "%s shows no decision for clearance %s, which %s used.", show(clearer), short(g[0].ClearanceId), join(voices(g)))
	case cleared != nil && cleared.Outcome != registrypb.Outcome_PERMIT:
		b.find(Disagreement, []names.NodeID{cleared.node}, "%s did not permit what clearance %s was used for.", show(cleared.node), short(g[0].ClearanceId))
	}
	switch {
	case received != nil && sent == nil && b.shown(publisher):
		b.find(Disagreement, []names.NodeID{received.node, publisher}, "%s was told; the journal of %s does not hold that it told.", show(received.node), show(publisher))
	case delivered != nil && received == nil && b.shown(recipient):
		b.find(Disagreement, []names.NodeID{delivered.node, recipient}, "%s holds a receipt of %s, whose journal does not hold that it was told.", show(delivered.node), show(recipient))
	}
	b.checkOrder(pick(b.entries, nodepb.Event_PUBLISHED), cleared, sent, received, delivered)
}

// toldEvidence is what the envelopes of an entry say.
type toldEvidence struct {
	publication *registrypb.Publication
	clearance   *registrypb.NotificationClearance
	decision    *registrypb.Decision
	notice      *nodepb.Notice
	receipt     *nodepb.NoticeReceipt
	status      *nodepb.SubmissionStatus
}

// toldParts gives the envelopes that an entry of this event rests on, in order.
func toldParts(e *nodepb.Entry, s *toldEvidence) []part {
	s.publication, s.clearance, s.decision = new(registrypb.Publication), new(registrypb.NotificationClearance), new(registrypb.Decision)
	s.notice, s.receipt, s.status = new(nodepb.Notice), new(nodepb.NoticeReceipt), new(nodepb.SubmissionStatus)
	status := part{envelope.SubmissionStatus, "status", nil, s.status, func() string { return s.status.GetSource().GetInstitution() }}
	publication := part{envelope.Publication, "publication", e.RequestHash, s.publication, func() string { return s.publication.GetPublisher().GetInstitution() }}
	clearance := part{envelope.NotificationClearance, "clearance", e.ClearanceHash, s.clearance, func() string { return s.clearance.GetClearer().GetInstitution() }}
	decision := part{envelope.NotificationDecision, "decision", nil, s.decision, func() string { return s.decision.GetClearer().GetInstitution() }}
	notice := part{envelope.Notice, "notice", nil, s.notice, func() string { return s.notice.GetPublisher().GetInstitution() }}
	receipt := part{envelope.NoticeReceipt, "receipt", nil, s.receipt, func() string { return s.receipt.GetRecipient().GetInstitution() }}
	shown := len(e.Evidence) > 0
	switch e.Event {
	case nodepb.Event_PUBLISHED:
		if e.Outcome != registrypb.Outcome_DENY {
			return []part{publication}
		}
	case nodepb.Event_CLEARED:
		if len(e.ClearanceId) > 0 {
			return []part{publication, clearance}
		}
		return []part{publication, decision}
	case nodepb.Event_ADDRESSED, nodepb.Event_NOTICE_LAPSED:
		if shown {
			return []part{decision}
		}
	case nodepb.Event_NOTICE_SENT:
		return []part{clearance, notice}
	case nodepb.Event_SUBMISSION_DECIDED, nodepb.Event_SUBMISSION_TOLD:
		return []part{status}
	case nodepb.Event_NOTICE_RECEIVED, nodepb.Event_NOTICE_AGAIN:
		return []part{publication, clearance, notice}
	case nodepb.Event_NOTICE_DELIVERED:
		return []part{clearance, receipt}
	case nodepb.Event_NOTICE_REFUSED, nodepb.Event_NOTICE_DEAD:
		switch {
		case e.Role == nodepb.Role_PUBLISHER:
			return []part{clearance}
		case shown:
			return []part{publication, clearance}
		}
	}
	return nil
}

// checkShown verifies the signed messages that an entry rests on, and that the entry says
// what they say.
func (b *builder) checkShown(e held) {
	var s toldEvidence
	parts := toldParts(e.Entry, &s)
	by := []names.NodeID{e.node}
	if len(e.Evidence) > len(parts) {
		b.find(Disagreement, by, "Entry %d of %s shows %d signed messages, and rests on %d.", e.sequence, show(e.node), len(e.Evidence), len(parts))
	}
	var all []said
	for i, p := range parts {
		if i >= len(e.Evidence) {
			b.find(Altered, by, "Entry %d of %s lacks the signed %s that it rests on.", e.sequence, show(e.node), p.what)
			return
		}
		if !b.openPart(e, p, e.Evidence[i]) {
			return
		}
		switch p.kind {
		case envelope.Publication:
			all = append(all, ofPublication(e.Entry, s.publication, e.Evidence[i])...)
		case envelope.NotificationClearance:
			all = append(all, ofTelling(e.Entry, s.clearance)...)
		case envelope.NotificationDecision:
			all = append(all, said{"the ticket", e.Ticket == s.decision.Ticket}, said{"the publication (by its hash)", bytes.Equal(e.RequestHash, s.decision.RequestHash)})
		case envelope.SubmissionStatus:
			all = append(all, said{"the ticket", e.Ticket == s.status.Ticket}, said{"the source", e.Requester.GetInstitution() == s.status.GetSource().GetInstitution()},
				said{"the declarant", e.Supplier.GetInstitution() == s.status.Declarant}, said{"the decision", strings.HasPrefix(e.Detail, s.status.State.String())})
		case envelope.Notice:
			all = append(all, said{"the ticket", e.Ticket == s.notice.Ticket}, said{"the publisher", proto.Equal(e.Supplier, s.notice.Publisher)},
				said{"the recipient", e.Requester.GetInstitution() == s.notice.Recipient}, said{"what was told (by its commitment)", bytes.Equal(e.AnswerCommitment, s.notice.Commitment)},
				said{"the clearance (by its hash)", bytes.Equal(e.ClearanceHash, s.notice.ClearanceHash)}, said{"the publication (by its hash)", bytes.Equal(e.RequestHash, s.notice.PublicationHash)})
		case envelope.NoticeReceipt:
			all = append(all, said{"the ticket", e.Ticket == s.receipt.Ticket}, said{"the recipient", proto.Equal(e.Requester, s.receipt.Recipient)},
				said{"what was told (by its commitment)", bytes.Equal(e.AnswerCommitment, s.receipt.Commitment)},
				said{"the clearance (by its hash)", bytes.Equal(e.ClearanceHash, s.receipt.ClearanceHash)}, said{"the publication (by its hash)", bytes.Equal(e.RequestHash, s.receipt.PublicationHash)})
		}
	}
	var wrong []string
	for _, x := range all {
		if !x.agree && !slices.Contains(wrong, x.what) {
			wrong = append(wrong, x.what)
		}
	}
	if len(wrong) > 0 {
		b.find(Disagreement, by, "Entry %d of %s and the signed messages it rests on disagree about %s.", e.sequence, show(e.node), strings.Join(wrong, ", "))
	}
}

func ofPublication(e *nodepb.Entry, p *registrypb.Publication, raw []byte) []said {
	all := []said{
		{"the ticket", e.Ticket == string(names.TicketOf(raw))},
		{"the dataset", e.Dataset == p.Dataset},
		{"the subject", proto.Equal(e.Subject, p.Subject)},
	}
	if e.Event == nodepb.Event_NOTICE_REFUSED { // it believed little of it
		return all
	}
	all = append(all, []said{
		{"the publisher", proto.Equal(e.Supplier, p.Publisher)},
		{"the publisher's own ticket", e.ClientTicket == p.ClientTicket},
		{"the user", e.User == p.User},
		{"the application", e.Application == p.Application},
		{"the authentication level", e.AuthLevel == p.AuthLevel},
		{"the channel", e.Channel == p.Channel},
		{"the period", proto.Equal(e.Period, p.Period)},
	}...)
	if len(e.ClearanceId) == 0 {
		all = append(all, said{"the fields", slices.Equal(e.Fields, p.Fields)})
	}
	return all
}

func ofTelling(e *nodepb.Entry, c *registrypb.NotificationClearance) []said {
	if len(e.ClearanceId) == 0 { // a refusal that believed nothing of it
		return []said{{"the clearance (by its hash)", e.Event == nodepb.Event_NOTICE_REFUSED}}
	}
	return []said{
		{"the clearance", bytes.Equal(e.ClearanceId, c.Id)},
		{"the ticket", e.Ticket == c.Ticket},
		{"the publication (by its hash)", bytes.Equal(e.RequestHash, c.PublicationHash)},
		{"the clearing peer", proto.Equal(e.Clearer, c.Clearer)},
		{"the publisher", proto.Equal(e.Supplier, c.Publisher)},
		{"the recipient", e.Requester.GetInstitution() == c.Recipient},
		{"the subject", proto.Equal(e.Subject, c.Subject)},
		{"the dataset", e.Dataset == c.Dataset},
		{"the period", proto.Equal(e.Period, c.Period)},
		{"the purpose", e.Purpose == c.Purpose},
		{"the permitted fields", slices.Equal(e.Fields, c.Fields)},
		{"the authorization", e.Authorization == c.Authorization},
		{"the registry's state", e.RegistryIndex == c.RegistryIndex},
		{"the time to present it by", e.PresentByUnixMs == c.PresentByUnixMs},
	}
}

// writeRecipients says who was told.
func (s *Story) writeRecipients(p *page) {
	for i, r := range s.Recipients {
		name := ""
		if i == 0 {
			p.blank()
			name = "told"
		}
		line := r.Recipient + ", for " + string(r.Purpose) + ": " + strings.ToLower(r.State)
		p.row(name, line)
	}
}
