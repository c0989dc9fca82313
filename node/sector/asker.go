package sector

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// AskerConfig is what a cooperating institution needs to ask.
type AskerConfig struct {
	Config
	Manager names.InstitutionID // the sector's managing body
}

// Asker asks for the applications of a cooperating institution, through its managing
// body. To them it is like a consultant of the mesh.
type Asker struct {
	*core
	manager names.InstitutionID
	locks   locks // by row
}

// NewAsker makes an asker; it starts nothing.
func NewAsker(cfg AskerConfig) *Asker { return &Asker{core: newCore(cfg.Config), manager: cfg.Manager} }

// maxResult bounds what a managing body may send, in bytes.
const maxResult = veil.Ceiling

// Consult carries a question to the managing body, or gives the result of before under
// the same application and client ticket. Errors are those of exchange.Consultant.
func (a *Asker) Consult(ctx context.Context, q exchange.Question) (*exchange.Result, error) {
	if q.ClientTicket == "" {
		q.ClientTicket = names.ClientTicket(rand.Text())
	}
	q, id, err := q.Canonical(a.Schemes)
	if err != nil {
		return nil, err
	}
	if id.IsZero() {
		return &exchange.Result{ClientTicket: q.ClientTicket, Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_MALFORMED_NUMBER}, nil
	}
	key := questionKey(q.Application, q.ClientTicket)
	release, err := a.locks.acquire(ctx, key.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	s := &nodepb.SectorQuestion{
		Mesh: string(a.Mesh), Member: nodeRef(a.Self), Manager: string(a.manager), ClientTicket: string(q.ClientTicket), User: string(q.User),
		Application: q.Application, AuthLevel: q.AuthLevel, Channel: q.Channel, Purpose: string(q.Purpose), Dataset: string(q.Dataset),
		Fields: texts(q.Fields), Subject: protoSubject(id), Period: protoPeriod(q.Period), Suppliers: texts(q.Suppliers),
	}
	what, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
	if err != nil {
		return nil, err
	}
	kept := new(nodepb.KeptSectorQuestion)
	found, err := a.load(key, kept)
	switch {
	case err != nil:
		return nil, unavailable(err)
	case found && !bytes.Equal(kept.GetHash(), sum(what)):
		return nil, exchange.ErrTicketReused
	case found && kept.GetAcknowledged():
		return nil, exchange.ErrAcknowledged
	case found && kept.GetResult() != nil:
		return resultOf(kept.GetResult(), q.ClientTicket)
	case !found:
		if kept, err = a.begin(ctx, key, s, sum(what)); err != nil {
			return nil, err
		}
	default:
		if err := proto.Unmarshal(what, s); err != nil {
			return nil, err
		}
	}
	return a.carry(ctx, key, s, kept)
}

func questionKey(application string, t names.ClientTicket) outbox.Key {
	return outbox.Key{Table: questions, ID: application + "\x00" + string(t)}
}

// unavailable says in the words of package exchange that nothing could be written.
func unavailable(err error) error { return fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err) }

// begin signs, keeps and journals a question before it leaves.
func (a *Asker) begin(ctx context.Context, key outbox.Key, s *nodepb.SectorQuestion, what []byte) (*nodepb.KeptSectorQuestion, error) {
	s.Nonce, s.TimeUnixMs = fresh(idSize), a.Now().UnixMilli()
	raw, hash, err := a.sign(envelope.SectorQuestion, s)
	if err != nil {
		return nil, err
	}
	e := questionEntry(a.Now(), nodepb.Role_COOPERATING, nodepb.Event_ASKED_INSIDE, s, hash)
	e.Ticket, e.Evidence = string(names.TicketOf(raw)), [][]byte{raw}
	if err := a.journal(ctx, e); err != nil {
		return nil, unavailable(err)
	}
	kept := &nodepb.KeptSectorQuestion{Hash: what, Question: raw, UntilUnixMs: a.Now().Add(a.Life).UnixMilli()}
	if err := a.keep(row(key, kept, time.UnixMilli(kept.UntilUnixMs))); err != nil {
		return nil, unavailable(err)
	}
	return kept, nil
}

// carry has the managing body answer, and gives that away once it is journaled and kept.
func (a *Asker) carry(ctx context.Context, key outbox.Key, s *nodepb.SectorQuestion, kept *nodepb.KeptSectorQuestion) (*exchange.Result, error) {
	message := &nodepb.SectorAsk{Question: kept.GetQuestion()}
	var err error
	if message.Padding, err = veil.Padding(message); err != nil {
		return nil, err
	}
	resp, by, err := a.ask(ctx, message)
	if err != nil {
		return nil, err
	}
	o, err := a.verify(by, kept.GetQuestion(), resp)
	if err != nil {
		a.Log.Warn("the managing body's answer does not verify", "peer", by.String(), "err", err)
		return nil, fmt.Errorf("%w: the managing body's answer does not verify", exchange.ErrRegistryStale)
	}
	e := questionEntry(a.Now(), nodepb.Role_COOPERATING, nodepb.Event_TOLD_INSIDE, s, sum(kept.GetQuestion()))
	e.Ticket, e.Pseudonym, e.Status, e.Reason = o.GetTicket(), o.GetPseudonym(), o.GetStatus(), o.GetReason()
	if e.Ticket == "" {
		e.Ticket = string(names.TicketOf(kept.GetQuestion()))
	}
	e.Supplier, e.AnswerCommitment, e.Evidence = nodeRef(by), o.GetCommitment(), [][]byte{kept.GetQuestion(), resp.GetOutcome()}
	if err := a.journal(ctx, e); err != nil {
		return nil, unavailable(err)
	}
	kept.Result = resp.GetResult()
	if err := a.keep(row(key, kept, time.UnixMilli(kept.UntilUnixMs))); err != nil {
		return nil, unavailable(err)
	}
	return resultOf(kept.Result, names.ClientTicket(s.GetClientTicket()))
}

// ask tries the managing body's nodes, each twice.
func (a *Asker) ask(ctx context.Context, message *nodepb.SectorAsk) (*nodepb.SectorAskResponse, names.NodeID, error) {
	nodes, err := a.nodesOf(a.manager)
	if err != nil {
		return nil, names.NodeID{}, fmt.Errorf("%w: %w", exchange.ErrRegistryStale, err)
	}
	for range 2 {
		for _, to := range nodes {
			resp, err := a.Peers.Ask(ctx, to, message)
			if err == nil {
				return resp, to, nil
			}
			a.Log.Info("the managing body did not answer", "peer", to.String(), "err", err)
			if ctx.Err() != nil {
				return nil, to, ctx.Err()
			}
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return nil, names.NodeID{}, ctx.Err()
		}
	}
	return nil, names.NodeID{}, fmt.Errorf("%w: the managing body %s does not answer; asking again under the same client ticket is safe", exchange.ErrRegistryStale, a.manager)
}

// verify insists that the managing body signed the outcome of this very question.
func (a *Asker) verify(by names.NodeID, question []byte, resp *nodepb.SectorAskResponse) (*nodepb.SectorOutcome, error) {
	o := new(nodepb.SectorOutcome)
	if err := a.open(envelope.SectorOutcome, resp.GetOutcome(), a.manager, o); err != nil {
		return nil, err
	}
	r := new(nodepb.SectorResult)
	for what, wrong := range map[string]bool{
		"mesh":     o.GetMesh() != string(a.Mesh),
		"question": !bytes.Equal(o.GetQuestionHash(), sum(question)),
		"node":     record.NodeID(o.GetManager()) != by,
		"ticket":   o.GetTicket() != "" && names.Ticket(o.GetTicket()).Validate() != nil,
		"name":     o.GetPseudonym() != "" && names.UserID(o.GetPseudonym()).Validate() != nil,
		"result": len(resp.GetResult()) > maxResult || len(resp.GetBlinding()) != blindingSize || len(o.GetCommitment()) != sha256.Size ||
			!bytes.Equal(o.GetCommitment(), exchange.Commitment(resp.GetBlinding(), resp.GetResult())) ||
			proto.Unmarshal(resp.GetResult(), r) != nil || r.GetStatus() != o.GetStatus() || r.GetReason() != o.GetReason() || r.GetTicket() != o.GetTicket(),
	} {
		if wrong {
			return nil, fmt.Errorf("it is for another %s, or malformed", what)
		}
	}
	return o, nil
}

// Acknowledge says that the application holds the result durably: it is deleted. The
// ticket stays taken until its life ends.
func (a *Asker) Acknowledge(ctx context.Context, application string, t names.ClientTicket) error {
	key := questionKey(application, t)
	release, err := a.locks.acquire(ctx, key.ID)
	if err != nil {
		return err
	}
	defer release()
	kept := new(nodepb.KeptSectorQuestion)
	found, err := a.load(key, kept)
	switch {
	case err != nil:
		return unavailable(err)
	case !found || kept.GetResult() == nil && !kept.GetAcknowledged():
		return exchange.ErrNotFound
	case kept.GetAcknowledged():
		return nil
	}
	kept.Acknowledged, kept.Result = true, nil
	if err := a.keep(row(key, kept, time.UnixMilli(kept.UntilUnixMs))); err != nil {
		return unavailable(err)
	}
	return nil
}

// resultOf reads a kept result as the application gets it.
func resultOf(raw []byte, t names.ClientTicket) (*exchange.Result, error) {
	k := new(nodepb.SectorResult)
	if err := proto.Unmarshal(raw, k); err != nil {
		return nil, unavailable(errors.New("the kept result cannot be read"))
	}
	r := &exchange.Result{Ticket: names.Ticket(k.GetTicket()), ClientTicket: t, Status: k.GetStatus(), Reason: k.GetReason(),
		Authorization: names.AuthorizationID(k.GetAuthorization()), Withheld: named[names.FieldName](k.GetWithheld())}
	if s := k.GetSuccessor(); s != nil {
		r.Successor = subject.Raw(subject.Scheme(s.GetScheme()), s.GetNumber())
	}
	for _, s := range k.GetSuppliers() {
		r.Suppliers = append(r.Suppliers, exchange.SupplierResult{Supplier: names.InstitutionID(s.GetSupplier()), Status: s.GetStatus(),
			Reason: s.GetReason(), Records: s.GetRecords(), Withheld: named[names.FieldName](s.GetWithheld())})
	}
	return r, nil
}

// questionEntry begins an entry about a question within the sector.
func questionEntry(now time.Time, role nodepb.Role, event nodepb.Event, s *nodepb.SectorQuestion, hash []byte) *nodepb.Entry {
	return &nodepb.Entry{
		TimeUnixMs: now.UnixMilli(), Role: role, Event: event, ClientTicket: s.GetClientTicket(), Requester: s.GetMember(),
		Member: s.GetMember().GetInstitution(), User: s.GetUser(), Application: s.GetApplication(), Channel: s.GetChannel(), AuthLevel: s.GetAuthLevel(),
		Purpose: s.GetPurpose(), Mode: string(names.Consultation), Dataset: s.GetDataset(), Fields: s.GetFields(),
		Subject: s.GetSubject(), Period: s.GetPeriod(), PermissionHash: hash,
	}
}
