package sector

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// How the sector stands outside: these are the same for every institution behind it.
const (
	OuterApplication = "sector"
	OuterChannel     = "sector"
)

// ServeAsk answers a cooperating institution. The sector's half of the preventive check
// is made here, in its own directory: that this institution itself has a file on the
// subject, in a quality that an authorization names, on a day of the period. Only then
// is anything asked outside, as the sector, for a user whose name there is a pseudonym.
//
// The error is ErrNotOfSector, a refusal of the form (ErrMalformed), or ErrJournal. A
// refusal of the check is an outcome like any other.
func (m *Manager) ServeAsk(ctx context.Context, from names.NodeID, req *nodepb.SectorAsk) (*nodepb.SectorAskResponse, error) {
	if err := m.mayAsk(from.Institution); err != nil {
		return nil, err
	}
	q := new(nodepb.SectorQuestion)
	if err := m.open(envelope.SectorQuestion, req.GetQuestion(), from.Institution, q); err != nil {
		return nil, fmt.Errorf("%w: the question is no envelope that its institution signed", ErrMalformed)
	}
	x := &inquiry{Manager: m, raw: req.GetQuestion(), hash: sum(req.GetQuestion()), question: q}
	if err := x.form(from); err != nil {
		return nil, err
	}
	x.pseudonym = m.pseudonym(x.hash)
	if err := x.followed(ctx); err != nil {
		return nil, err
	}
	reason, detail, err := x.check()
	if err != nil {
		return nil, err
	}
	if reason != 0 {
		e := x.entry(nodepb.Event_SECTOR_REFUSED)
		e.Outcome, e.Status, e.Reason, e.Detail = registrypb.Outcome_DENY, nodepb.Status_NO_RESULT, reason, detail
		if err := m.journal(ctx, e); err != nil {
			return nil, err
		}
		return x.outcome(ctx, &nodepb.SectorResult{Status: nodepb.Status_NO_RESULT, Reason: reason})
	}
	if m.consult == nil {
		return nil, ErrNotOfSector
	}
	if err := m.journal(ctx, x.entry(nodepb.Event_ASKED_INSIDE)); err != nil {
		return nil, err
	}
	result, err := m.consult.Consult(ctx, x.outside())
	if err != nil {
		return nil, fmt.Errorf("asking outside: %w", err)
	}
	return x.outcome(ctx, sectorResult(result))
}

// mayAsk insists that an institution is one of the sector's, for the mesh and for the
// sector itself, today.
func (m *Manager) mayAsk(i names.InstitutionID) error {
	if _, err := m.Registry.Standing(); err != nil {
		return fmt.Errorf("%w: %w", exchange.ErrRegistryStale, err)
	}
	of, err := m.cooperates(i)
	if err != nil {
		return err
	}
	member, ok, err := m.directory.Member(i)
	if err != nil {
		return err
	}
	if !of || !ok || !member.Period.Contains(names.DateOf(m.Now().UTC())) {
		return ErrNotOfSector
	}
	return nil
}

// cooperates reports whether the mesh lists an institution as of this sector.
func (m *Manager) cooperates(i names.InstitutionID) (of bool, err error) {
	err = m.Registry.View(func(v record.View) (err error) {
		_, of, err = cooperates(v, m.Self.Institution, i)
		return err
	})
	return of, err
}

// inquiry is one question from within. Its goroutine owns it.
type inquiry struct {
	*Manager
	raw, hash []byte
	question  *nodepb.SectorQuestion
	subject   subject.ID
	pseudonym string
}

// form judges a question by itself.
func (x *inquiry) form(from names.NodeID) error {
	q := x.question
	id, err := x.Schemes.Parse(subject.Scheme(q.GetSubject().GetScheme()), q.GetSubject().GetNumber())
	x.subject = id
	age := x.Now().Sub(time.UnixMilli(q.GetTimeUnixMs()))
	for what, wrong := range map[string]bool{
		"mesh":        q.GetMesh() != string(x.Mesh),
		"nonce":       len(q.GetNonce()) != idSize,
		"member":      record.NodeID(q.GetMember()) != from,
		"manager":     q.GetManager() != string(x.Self.Institution),
		"subject":     err != nil || id.Number() != q.GetSubject().GetNumber(),
		"user":        names.UserID(q.GetUser()).Validate() != nil,
		"ticket":      names.ClientTicket(q.GetClientTicket()).Validate() != nil,
		"application": names.Purpose(q.GetApplication()).Validate() != nil || names.Purpose(q.GetChannel()).Validate() != nil,
		"purpose":     names.Purpose(q.GetPurpose()).Validate() != nil,
		"dataset":     names.DatasetID(q.GetDataset()).Validate() != nil,
		"period":      q.GetPeriod() == nil || record.Period(q.GetPeriod()).Validate() != nil,
		"time":        age > x.Life+x.Bounds.Skew || age < -x.Bounds.Skew,
		"fields":      len(q.GetFields()) > 256 || slices.ContainsFunc(q.GetFields(), func(f string) bool { return names.FieldName(f).Validate() != nil }),
		"suppliers":   len(q.GetSuppliers()) > 64 || slices.ContainsFunc(q.GetSuppliers(), func(i string) bool { return names.InstitutionID(i).Validate() != nil }),
	} {
		if wrong {
			return fmt.Errorf("%w: the %s of the question", ErrMalformed, what)
		}
	}
	return nil
}

// followed has the directory learn of a number that replaced one. It asks a registry member
// only about a subject that the directory has nothing on: on those whom it knows no question
// of the sector shows outside before it passed the check.
func (x *inquiry) followed(ctx context.Context) error {
	refs, err := x.directory.References(x.subject)
	if err != nil || len(refs) > 0 {
		return err
	}
	return x.follow(ctx, []subject.ID{x.subject}, names.NodeID{})
}

// check is the sector's half of the preventive check; a reason is why it fails.
func (x *inquiry) check() (registrypb.Reason, string, error) {
	var qualities []names.Quality
	err := x.Registry.View(func(v record.View) error {
		own, err := v.Institution(x.Self.Institution)
		if err != nil {
			return err
		}
		rows, err := v.AuthorizationsFor(names.InstitutionType(own.GetType()), names.DatasetID(x.question.GetDataset()), names.Purpose(x.question.GetPurpose()))
		for _, z := range rows {
			if !z.GetRevoked() && slices.Contains(z.GetModes(), string(names.Consultation)) && record.Period(z.GetPeriod()).Contains(names.DateOf(x.Now().UTC())) {
				qualities = append(qualities, named[names.Quality](z.GetRequesterQualities())...)
			}
		}
		return err
	})
	if err != nil {
		return 0, "", err
	}
	if len(qualities) == 0 {
		return registrypb.Reason_NOT_ALLOWED, "no authorization in force gives the sector this", nil
	}
	routes, err := x.directory.Route([]subject.ID{x.subject}, qualities, record.Period(x.question.GetPeriod()))
	if err != nil {
		return 0, "", err
	}
	for _, r := range routes {
		if string(r.Member) == x.question.GetMember().GetInstitution() {
			return 0, "", nil
		}
	}
	return registrypb.Reason_NOT_INTEGRATED, "the sector directory has no file of this institution on the subject in such a quality and period", nil
}

// pseudonym names a user outside: anew for each question, so that no two can be joined,
// and the same for a question that is asked again. Its length is always the same.
func (m *Manager) pseudonym(hash []byte) string { return "sector-" + m.derive("user", hash) }

func (m *Manager) derive(what string, hash []byte) string {
	h := hmac.New(sha256.New, m.secret)
	h.Write([]byte("crossroads sector " + what + " v1\x00"))
	h.Write(hash)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:16]))
}

// outside is the question as the sector asks it.
func (x *inquiry) outside() exchange.Question {
	q := x.question
	return exchange.Question{
		Caller:       exchange.Caller{Application: OuterApplication, User: names.UserID(x.pseudonym), AuthLevel: q.GetAuthLevel(), Channel: OuterChannel},
		ClientTicket: names.ClientTicket(x.derive("ticket", x.hash)),
		Purpose:      names.Purpose(q.GetPurpose()), Dataset: names.DatasetID(q.GetDataset()), Fields: named[names.FieldName](q.GetFields()),
		Scheme: x.subject.Scheme(), Number: x.subject.Number(), Period: record.Period(q.GetPeriod()), Suppliers: named[names.InstitutionID](q.GetSuppliers()),
	}
}

// entry begins an entry at the managing body. It is found by the pseudonym, which
// serves as a ticket until there is one.
func (x *inquiry) entry(event nodepb.Event) *nodepb.Entry {
	e := questionEntry(x.Now(), nodepb.Role_MANAGING_BODY, event, x.question, x.hash)
	e.Ticket, e.Pseudonym, e.Evidence = x.pseudonym, x.pseudonym, [][]byte{x.raw}
	return e
}

// outcome signs what came of a question, and journals it before it leaves.
func (x *inquiry) outcome(ctx context.Context, r *nodepb.SectorResult) (*nodepb.SectorAskResponse, error) {
	raw, err := proto.Marshal(r)
	if err != nil {
		return nil, err
	}
	resp := &nodepb.SectorAskResponse{Result: raw, Blinding: fresh(blindingSize)}
	o := &nodepb.SectorOutcome{
		Mesh: string(x.Mesh), QuestionHash: x.hash, Manager: nodeRef(x.Self), Ticket: r.GetTicket(), Status: r.GetStatus(), Reason: r.GetReason(),
		Commitment: exchange.Commitment(resp.Blinding, raw), TimeUnixMs: x.Now().UnixMilli(),
	}
	if r.GetTicket() != "" {
		o.Pseudonym = x.pseudonym
	}
	if resp.Outcome, _, err = x.sign(envelope.SectorOutcome, o); err != nil {
		return nil, err
	}
	e := x.entry(nodepb.Event_TOLD_INSIDE)
	if r.GetTicket() != "" {
		e.Ticket = r.GetTicket()
	}
	e.Status, e.Reason, e.AnswerCommitment, e.Evidence = r.GetStatus(), r.GetReason(), o.Commitment, append(e.Evidence, resp.Outcome)
	if err := x.journal(ctx, e); err != nil {
		return nil, err
	}
	resp.Padding, err = veil.Padding(resp)
	return resp, err
}

func sectorResult(r *exchange.Result) *nodepb.SectorResult {
	s := &nodepb.SectorResult{Status: r.Status, Reason: r.Reason, Authorization: string(r.Authorization), Withheld: texts(r.Withheld), Ticket: string(r.Ticket)}
	if !r.Successor.IsZero() {
		s.Successor = protoSubject(r.Successor)
	}
	for _, p := range r.Suppliers {
		s.Suppliers = append(s.Suppliers, &nodepb.SectorSupplierResult{Supplier: string(p.Supplier), Status: p.Status, Reason: p.Reason,
			Records: p.Records, Withheld: texts(p.Withheld)})
	}
	return s
}
