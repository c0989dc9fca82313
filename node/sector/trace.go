package sector

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// maxTraced bounds the entries of one ticket that are read.
const maxTraced = 512

// Story is what happened within the sector under one ticket, as the segments of the
// managing body and of the institutions behind it tell it.
type Story struct {
	Ticket     names.Ticket
	Entries    []Told // in order of time
	Findings   []string
	Consistent bool // nothing is missing, altered or contradicted
}

// Told is one entry, and whose journal it stands in.
type Told struct {
	Node  names.NodeID
	Entry *nodepb.Entry
}

// Outer gives the node's own entries of a ticket: what the mesh may read.
type Outer func(ctx context.Context, t names.Ticket) ([]*nodepb.Entry, error)

// ServeTrace shows a cooperating institution what the managing body's segment says of
// its own part of a ticket. To anybody else, and of anybody else's part, there is
// nothing. The reading is journaled.
func (m *Manager) ServeTrace(ctx context.Context, from names.NodeID, req *nodepb.TraceRequest) (*nodepb.TraceResponse, error) {
	if err := m.mayAsk(from.Institution); err != nil {
		return nil, err
	}
	return m.show(ctx, from, nodepb.Role_MANAGING_BODY, req)
}

// ServeTrace shows the managing body this institution's segment of a ticket.
func (m *Member) ServeTrace(ctx context.Context, from names.NodeID, req *nodepb.TraceRequest) (*nodepb.TraceResponse, error) {
	if from.Institution != m.manager {
		return nil, ErrNotOfSector
	}
	return m.show(ctx, from, nodepb.Role_COOPERATING, req)
}

func (c *core) show(ctx context.Context, from names.NodeID, role nodepb.Role, req *nodepb.TraceRequest) (*nodepb.TraceResponse, error) {
	if err := names.Ticket(req.GetTicket()).Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	found, err := c.Journal.Find(ctx, journal.Query{Ticket: names.Ticket(req.GetTicket()), Limit: maxTraced})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	resp := new(nodepb.TraceResponse)
	for _, s := range found {
		if s.Entry.GetRole() == role && (role == nodepb.Role_COOPERATING || s.Entry.GetMember() == string(from.Institution)) {
			resp.Entries = append(resp.Entries, s.Proto())
		}
	}
	return resp, c.journal(ctx, c.reading(from, "trace shown: "+req.GetTicket()))
}

// reading is the entry of somebody reading within the sector. It is filed under no
// ticket, so that reading a trace does not lengthen it.
func (c *core) reading(by names.NodeID, detail string) *nodepb.Entry {
	return &nodepb.Entry{TimeUnixMs: c.Now().UnixMilli(), Role: nodepb.Role_READER, Event: nodepb.Event_READ, Requester: nodeRef(by), Detail: detail}
}

// Trace joins and verifies what the sector knows of a ticket. outer may be nil.
func (m *Manager) Trace(ctx context.Context, t names.Ticket, outer Outer) (*Story, error) {
	return m.trace(ctx, t, nodepb.Role_MANAGING_BODY, outer, func(own []journal.Stored) []names.InstitutionID {
		var all []names.InstitutionID
		for _, s := range own {
			if i := names.InstitutionID(s.Entry.GetMember()); i != "" && !slices.Contains(all, i) {
				all = append(all, i)
			}
		}
		return all
	})
}

// Trace joins what this institution and the managing body know of this institution's
// part of a ticket.
func (m *Member) Trace(ctx context.Context, t names.Ticket) (*Story, error) {
	return m.trace(ctx, t, nodepb.Role_COOPERATING, nil, func([]journal.Stored) []names.InstitutionID {
		return []names.InstitutionID{m.manager}
	})
}

func (c *core) trace(ctx context.Context, t names.Ticket, role nodepb.Role, outer Outer, others func([]journal.Stored) []names.InstitutionID) (*Story, error) {
	own, err := c.Journal.Find(ctx, journal.Query{Ticket: t, Limit: maxTraced})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	s := &joining{core: c, Story: &Story{Ticket: t}, outside: outer != nil, byMember: role == nodepb.Role_COOPERATING, manager: c.Self.Institution}
	for _, e := range own {
		if e.Entry.GetRole() == nodepb.Role_MANAGING_BODY || e.Entry.GetRole() == nodepb.Role_COOPERATING {
			s.Entries = append(s.Entries, Told{c.Self, e.Entry})
		}
	}
	if len(s.Entries) == 0 {
		return s.Story, nil
	}
	asked := others(own)
	if s.byMember {
		s.manager = asked[0]
	}
	s.gather(ctx, asked)
	if outer != nil {
		if s.outer, err = outer(ctx, t); err != nil {
			return nil, err
		}
	}
	s.judge()
	slices.SortStableFunc(s.Entries, func(a, b Told) int { return int(a.Entry.GetTimeUnixMs() - b.Entry.GetTimeUnixMs()) })
	s.Consistent = len(s.Findings) == 0
	return s.Story, nil
}

// joining is a trace being made. Its goroutine owns it, but for mu while others are asked.
type joining struct {
	*core
	*Story
	outer    []*nodepb.Entry
	outside  bool // outer was looked at
	byMember bool // a member traces: the outcome is not shown to it
	manager  names.InstitutionID
	mu       sync.Mutex
	silent   []names.InstitutionID
}

func (s *joining) find(format string, args ...any) {
	s.Findings = append(s.Findings, fmt.Sprintf(format, args...))
}

// gather asks the other institutions of the sector for their segments.
func (s *joining) gather(ctx context.Context, others []names.InstitutionID) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, i := range others {
		all.Go(func() {
			nodes, _ := s.nodesOf(i) // none: it cannot be reached
			heard := false
			for _, to := range nodes {
				if resp, err := s.Peers.SectorTrace(ctx, to, &nodepb.TraceRequest{Ticket: string(s.Ticket)}); err == nil {
					heard = true
					s.take(to, resp)
				}
			}
			if !heard {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.silent = append(s.silent, i)
				s.find("%s cannot be reached: its part is missing for now", i)
			}
		})
	}
	all.Wait()
}

func (s *joining) take(node names.NodeID, resp *nodepb.TraceResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(resp.GetEntries()) > maxTraced {
		s.find("%s shows more entries than one ticket has", node)
		return
	}
	for _, raw := range resp.GetEntries() {
		e := new(nodepb.Entry)
		if len(raw.GetSalt()) != journal.SaltSize || proto.Unmarshal(raw.GetEntry(), e) != nil {
			s.find("%s shows an entry that is none", node)
			continue
		}
		if c := journal.EntryCommitment([journal.SaltSize]byte(raw.GetSalt()), raw.GetEntry()); !bytes.Equal(c[:], raw.GetCommitment()) {
			s.find("%s shows an entry that is not what it committed to", node)
			continue
		}
		if e.GetTicket() != string(s.Ticket) {
			s.find("%s shows an entry of another ticket", node)
			continue
		}
		s.Entries = append(s.Entries, Told{node, e})
	}
}

// judge holds the segments against each other and against what was signed.
func (s *joining) judge() {
	for i, t := range s.Entries {
		s.signatures(t)
		for _, o := range s.Entries[:i] {
			if len(t.Entry.GetPermissionHash()) > 0 && bytes.Equal(o.Entry.GetPermissionHash(), t.Entry.GetPermissionHash()) && !alike(o.Entry, t.Entry) {
				s.find("%s: %s tells another story than %s of %s", t.Node, t.Entry.GetEvent(), o.Entry.GetEvent(), o.Node)
			}
		}
	}
	// Who answered, or took something, journaled it.
	s.counterpart(nodepb.Event_SECTOR_ANSWERED, nodepb.Role_MANAGING_BODY, nodepb.Event_SECTOR_SUPPLIED, nodepb.Role_COOPERATING, "answered")
	s.counterpart(nodepb.Event_DELIVERED_INSIDE, nodepb.Role_MANAGING_BODY, nodepb.Event_DELIVERED_INSIDE, nodepb.Role_COOPERATING, "took a notification")
	// And was asked, or told, by the managing body.
	s.counterpart(nodepb.Event_SECTOR_SUPPLIED, nodepb.Role_COOPERATING, nodepb.Event_FORWARDED, nodepb.Role_MANAGING_BODY, "was asked")
	s.counterpart(nodepb.Event_SECTOR_ANSWERED, nodepb.Role_MANAGING_BODY, nodepb.Event_FORWARDED, nodepb.Role_MANAGING_BODY, "was asked")
	s.counterpart(nodepb.Event_DELIVERED_INSIDE, nodepb.Role_COOPERATING, nodepb.Event_DELIVERED_INSIDE, nodepb.Role_MANAGING_BODY, "was told")
	s.outcomes()
	if s.outside {
		s.sealed()
	}
}

// alike tells whether two entries about one message can both be true.
func alike(a, b *nodepb.Entry) bool {
	if unread(a) || unread(b) {
		return a.GetMember() == b.GetMember()
	}
	return told(a) == told(b)
}

// unread tells whether a member refused before it had checked what was cleared, and so could
// not say who asks: its own view of the registry was not confirmed, perhaps. It may well
// answer the same permission a moment later.
func unread(e *nodepb.Entry) bool {
	return e.GetEvent() == nodepb.Event_SECTOR_REFUSED && e.GetRole() == nodepb.Role_COOPERATING && len(e.GetEvidence()) < 2
}

// told is what every entry about one message must say alike.
func told(e *nodepb.Entry) string {
	about := e.GetSubject().GetNumber()
	if e.GetEvent() == nodepb.Event_DELIVERED_INSIDE { // it may come under another number than the file stands
		about = ""
	}
	return fmt.Sprintf("%q", []string{e.GetMember(), e.GetRequester().GetInstitution(), e.GetUser(), e.GetApplication(), e.GetPurpose(), e.GetMode(), e.GetDataset(), e.GetAuthorization(), about})
}

// counterpart insists that each entry of one kind that rests on two messages, or is a
// member's, has one of another kind about the same message.
func (s *joining) counterpart(event nodepb.Event, role nodepb.Role, other nodepb.Event, by nodepb.Role, did string) {
	for _, a := range s.all(event) {
		if a.Entry.GetRole() != role || len(a.Entry.GetEvidence()) < 2 {
			continue
		}
		holder := names.InstitutionID(a.Entry.GetMember())
		if by == nodepb.Role_MANAGING_BODY && s.byMember {
			holder = names.InstitutionID(s.manager)
		}
		found := slices.ContainsFunc(s.Entries, func(o Told) bool {
			e := o.Entry
			return e.GetEvent() == other && e.GetRole() == by && bytes.Equal(e.GetPermissionHash(), a.Entry.GetPermissionHash()) &&
				(other == nodepb.Event_FORWARDED || bytes.Equal(e.GetAnswerCommitment(), a.Entry.GetAnswerCommitment()))
		})
		if !found && !slices.Contains(s.silent, holder) {
			s.find("%s %s, and the journal of %s does not say so", a.Entry.GetMember(), did, holder)
		}
	}
}

// outcomes holds each outcome against the answers that it was made of.
func (s *joining) outcomes() {
	for _, r := range s.all(nodepb.Event_RESOLVED) {
		var of []*nodepb.Entry
		for _, a := range s.all(nodepb.Event_SECTOR_ANSWERED) {
			if bytes.Equal(a.Entry.GetSealSalt(), r.Entry.GetSealSalt()) {
				of = append(of, a.Entry)
			}
		}
		if !bytes.Equal(RestsOn(of), r.Entry.GetPermissionHash()) {
			s.find("%s: an answer that the outcome was made of was altered or is missing", r.Node)
		}
	}
	for _, a := range s.all(nodepb.Event_SECTOR_ANSWERED) {
		if !s.byMember && !slices.ContainsFunc(s.all(nodepb.Event_RESOLVED), func(r Told) bool { return bytes.Equal(r.Entry.GetSealSalt(), a.Entry.GetSealSalt()) }) {
			s.find("%s: the outcome of what %s answered is missing", a.Node, a.Entry.GetMember())
		}
	}
}

func (s *joining) all(event nodepb.Event) (found []Told) {
	for _, t := range s.Entries {
		if t.Entry.GetEvent() == event {
			found = append(found, t)
		}
	}
	return found
}

// sealed holds the managing body's entries outside against the outcome within: each
// rests on one, and each outcome led to one.
func (s *joining) sealed() {
	resolved := s.all(nodepb.Event_RESOLVED)
	for _, o := range s.outer {
		if len(o.GetSectorSeal()) == 0 {
			continue
		}
		if !slices.ContainsFunc(resolved, func(r Told) bool { return bytes.Equal(Seal(r.Entry), o.GetSectorSeal()) }) {
			s.find("%s: what it rests on within the sector was altered or is missing", o.GetEvent())
		}
	}
}

// signed are the kinds of envelope that are evidence within a sector, and who signs them.
var signed = map[envelope.Type]func() (proto.Message, func() string){
	envelope.SectorPermission: func() (proto.Message, func() string) {
		m := new(nodepb.SectorPermission)
		return m, func() string { return m.GetManager().GetInstitution() }
	},
	envelope.SectorAnswer: func() (proto.Message, func() string) {
		m := new(nodepb.SectorAnswer)
		return m, func() string { return m.GetMember().GetInstitution() }
	},
	envelope.SectorLotPermission: func() (proto.Message, func() string) {
		m := new(nodepb.SectorLotPermission)
		return m, func() string { return m.GetManager().GetInstitution() }
	},
	envelope.SectorLotAnswer: func() (proto.Message, func() string) {
		m := new(nodepb.SectorAnswer)
		return m, func() string { return m.GetMember().GetInstitution() }
	},
	envelope.SectorQuestion: func() (proto.Message, func() string) {
		m := new(nodepb.SectorQuestion)
		return m, func() string { return m.GetMember().GetInstitution() }
	},
	envelope.SectorOutcome: func() (proto.Message, func() string) {
		m := new(nodepb.SectorOutcome)
		return m, func() string { return m.GetManager().GetInstitution() }
	},
	envelope.SectorDelivery: func() (proto.Message, func() string) {
		m := new(nodepb.SectorDelivery)
		return m, func() string { return m.GetManager().GetInstitution() }
	},
	envelope.SectorReceipt: func() (proto.Message, func() string) {
		m := new(nodepb.SectorReceipt)
		return m, func() string { return m.GetMember().GetInstitution() }
	},
}

// signatures verifies the evidence of an entry, by any key that its signer ever had.
func (s *joining) signatures(t Told) {
	for i, raw := range t.Entry.GetEvidence() {
		known := false
		for kind, of := range signed {
			m, by := of()
			opened, err := decode(kind, raw, m)
			if err != nil {
				continue
			}
			known = true
			if !s.everSigned(opened, names.InstitutionID(by())) {
				s.find("%s: %s rests on a message that %s did not sign", t.Node, t.Entry.GetEvent(), by())
			}
			if a, ok := m.(*nodepb.SectorAnswer); ok && (!bytes.Equal(a.GetPermissionHash(), t.Entry.GetPermissionHash()) || !bytes.Equal(a.GetCommitment(), t.Entry.GetAnswerCommitment())) {
				s.find("%s: %s contradicts the answer that it rests on", t.Node, t.Entry.GetEvent())
			}
			if differs := contradicts(m, t.Entry); differs != "" {
				s.find("%s: %s names another %s than the message that it rests on", t.Node, t.Entry.GetEvent(), differs)
			}
			if i == 0 && !bytes.Equal(sum(raw), t.Entry.GetPermissionHash()) {
				s.find("%s: %s names another message than the one it rests on", t.Node, t.Entry.GetEvent())
			}
		}
		if outside := outsideEvidence(raw); !known && !outside {
			s.find("%s: %s rests on something that is no message of the sector", t.Node, t.Entry.GetEvent())
		}
	}
}

// contradicts says in what an entry differs from a message that it rests on.
func contradicts(m proto.Message, e *nodepb.Entry) string {
	var parts map[string]bool
	switch m := m.(type) {
	case *nodepb.SectorPermission:
		parts = map[string]bool{"ticket": m.GetTicket() != e.GetTicket(), "institution": m.GetMember() != e.GetMember(), "dataset": m.GetDataset() != e.GetDataset()}
	case *nodepb.SectorLotPermission:
		parts = map[string]bool{"ticket": m.GetTicket() != e.GetTicket(), "institution": m.GetMember() != e.GetMember(),
			"list of subjects": !slices.Equal(numbersOf(m.GetSubjects()), numbersOf(lotSubjects(e)...))}
	case *nodepb.SectorQuestion:
		parts = map[string]bool{"institution": m.GetMember().GetInstitution() != e.GetMember(), "user": m.GetUser() != e.GetUser(), "application": m.GetApplication() != e.GetApplication(),
			"purpose": m.GetPurpose() != e.GetPurpose(), "dataset": m.GetDataset() != e.GetDataset(), "subject": m.GetSubject().GetNumber() != e.GetSubject().GetNumber()}
	case *nodepb.SectorOutcome:
		parts = map[string]bool{"status": m.GetStatus() != e.GetStatus(), "reason": m.GetReason() != e.GetReason(),
			"pseudonym": m.GetPseudonym() != "" && m.GetPseudonym() != e.GetPseudonym(), "commitment": !bytes.Equal(m.GetCommitment(), e.GetAnswerCommitment())}
	case *nodepb.SectorDelivery:
		parts = map[string]bool{"institution": m.GetMember() != e.GetMember(), "publisher": m.GetPublisher() != e.GetRequester().GetInstitution(),
			"dataset": m.GetDataset() != e.GetDataset(), "purpose": m.GetPurpose() != e.GetPurpose(), "ticket": m.GetTicket() != e.GetTicket()}
	}
	for part, differs := range parts {
		if differs {
			return part
		}
	}
	return ""
}

// outsideEvidence reports whether an envelope is a request or a clearance, which the
// mesh's own trace verifies.
func outsideEvidence(raw []byte) bool {
	_, request := decode(envelope.Request, raw, new(registrypb.Request))
	_, clearance := decode(envelope.Clearance, raw, new(registrypb.Clearance))
	_, demand := decode(envelope.LotDemand, raw, new(registrypb.ChunkDemand))
	_, outline := decode(envelope.LotOutline, raw, new(registrypb.ChunkClearance))
	return request == nil || clearance == nil || demand == nil || outline == nil
}

func (s *joining) everSigned(o *envelope.Opened, by names.InstitutionID) bool {
	var keys []ed25519.PublicKey
	err := s.Registry.View(func(v record.View) error {
		all, err := v.KeysOf(by)
		for _, k := range all {
			keys = append(keys, k.GetPublicKey())
		}
		return err
	})
	return err == nil && slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return s.verifier.VerifiedBy(o, k) })
}

// Write tells the story to people.
func (s *Story) Write(w io.Writer) error {
	if len(s.Entries) == 0 {
		_, err := fmt.Fprintf(w, "nothing within the sector is known of ticket %s\n", s.Ticket)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "ticket %s, within the sector\n\n", s.Ticket)
	fmt.Fprintln(t, "WHEN\tNODE\tWHAT\tINSTITUTION\tUSER\tRESULT")
	for _, e := range s.Entries {
		result := e.Entry.GetStatus().String()
		if e.Entry.GetStatus() == 0 {
			result = ""
		}
		if r := e.Entry.GetReason(); r != 0 {
			result += " " + r.String()
		}
		user := e.Entry.GetUser()
		if p := e.Entry.GetPseudonym(); p != "" {
			user += " (outside: " + p + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", time.UnixMilli(e.Entry.GetTimeUnixMs()).UTC().Format("2006-01-02 15:04:05.000"), e.Node, e.Entry.GetEvent(), e.Entry.GetMember(), user, result)
	}
	fmt.Fprintln(t)
	for _, f := range s.Findings {
		fmt.Fprintf(t, "! %s\n", f)
	}
	if s.Consistent {
		fmt.Fprintln(t, "CONSISTENT: every part is there, signed, and agrees")
	}
	return t.Flush()
}
