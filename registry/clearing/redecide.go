package clearing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// ErrNotParty means that a node asked to re-decide what it has no part in.
var ErrNotParty = errors.New("neither a registry member nor a party to it")

// RedeciderConfig is all that a Redecider needs.
type RedeciderConfig struct {
	Self  names.NodeID
	Mesh  names.MeshID
	Rules *record.Rules
	// Bounds are the mesh's: by them a request was too old, or was not.
	Bounds genesis.Bounds
	// Registry is a member's, which holds the whole history.
	Registry interface {
		View(fn func(record.View) error) error
	}
	// Limit is how long one decision may be worked at. 0: 5 s.
	Limit time.Duration
	Log   *slog.Logger // nil: nothing
}

// Redecider decides again, as of the same state of the registry, what another member
// has cleared or refused, of requests and of publications: decisions are deterministic, so one that permitted or refused
// what it must not is told by anybody. It works at one at a time. It is safe for concurrent use.
type Redecider struct {
	cfg  RedeciderConfig
	slot chan struct{}
}

// NewRedecider makes a Redecider.
func NewRedecider(cfg RedeciderConfig) *Redecider {
	if cfg.Limit == 0 {
		cfg.Limit = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Redecider{cfg, make(chan struct{}, 1)}
}

// Redecide decides again on the clearance, or the decision, that from shows with its
// request or publication. From must be a member, or the requester or supplier, publisher or
// recipient, of what was in truth decided: what never was is not decided here, or the past could be asked for what the
// present refuses.
//
// The error wraps ErrMalformed, ErrBadSignature, ErrNotParty, ErrNotMember (this node
// is none), record.ErrNotReached, or that of ctx when it took too long.
func (r *Redecider) Redecide(ctx context.Context, from names.NodeID, rr *registrypb.RedecideRequest) (*registrypb.RedecideResponse, error) {
	was, err := OpenRuling(rr)
	if err != nil {
		return nil, err
	}
	if was.published && was.decision.GetReason() == registrypb.Reason_PUBLICATION_INVALID {
		return nil, fmt.Errorf("%w: which keys were in force then is not kept", ErrMalformed)
	}
	asked, err := r.open(rr.GetRequest(), was.published)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(was.requestHash, sum(rr.Request)) || was.mesh != string(r.cfg.Mesh) || was.Clearer.Validate() != nil {
		return nil, fmt.Errorf("%w: what was decided is another request", ErrMalformed)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Limit)
	defer cancel()
	select {
	case r.slot <- struct{}{}:
		defer func() { <-r.slot }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	resp := &registrypb.RedecideResponse{RegistryIndex: was.RegistryIndex}
	err = r.cfg.Registry.View(func(v record.View) error {
		if err := r.entitled(v, from, asked, was); err != nil {
			return err
		}
		return r.decideAgain(v, asked, was, func() error { return ctx.Err() }, resp)
	})
	if err != nil {
		return nil, err
	}
	if d := was.Differs(resp); d != "" {
		r.cfg.Log.Warn("a clearing peer decided what it must not", "clearer", was.Clearer.String(), "ticket", string(was.Ticket),
			"index", was.RegistryIndex, "why", d, "shown by", from.String())
	}
	return resp, nil
}

// asked is what was ruled on.
type asked struct {
	by          names.InstitutionID // who asked, or published
	about       *registrypb.Subject
	signed      *envelope.Opened
	request     *registrypb.Request // one of the two
	publication *registrypb.Publication
}

func (r *Redecider) open(raw []byte, published bool) (a asked, err error) {
	if published {
		a.publication, a.signed, err = OpenPublication(r.cfg.Mesh, raw)
		a.by, a.about = names.InstitutionID(a.publication.GetPublisher().GetInstitution()), a.publication.GetSubject()
		return a, err
	}
	a.request, a.signed, err = openRequest(r.cfg.Mesh, raw)
	a.by, a.about = names.InstitutionID(a.request.GetRequester().GetInstitution()), a.request.GetSubject()
	return a, err
}

func (r *Redecider) entitled(v record.View, from names.NodeID, a asked, was *Ruling) error {
	if ok, err := v.IsMember(r.cfg.Self); err != nil || !ok {
		return errors.Join(err, ErrNotMember)
	}
	for _, s := range []struct {
		by names.InstitutionID
		o  *envelope.Opened
	}{{a.by, a.signed}, {was.Clearer.Institution, was.opened}} {
		keys, err := v.KeysOf(s.by)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(keys, func(k *registrypb.Key) bool { return s.o.VerifiedBy(k.PublicKey) }) {
			return fmt.Errorf("%w: %s", ErrBadSignature, s.by)
		}
	}
	if from.Institution == a.by || from.Institution == was.supplier() {
		return nil
	}
	member, err := v.IsMember(from)
	if err == nil && !member {
		err = ErrNotParty
	}
	return err
}

// decideAgain decides in the clearer's place, as of its index; of a clearance for its
// supplier alone, so that the reply tells nothing that the clearance does not.
func (r *Redecider) decideAgain(v record.View, a asked, was *Ruling, stop func() error, resp *registrypb.RedecideResponse) error {
	about := subject.Raw(subject.Scheme(a.about.GetScheme()), a.about.GetNumber())
	past, err := v.AsOf(r.cfg.Rules, was.RegistryIndex, about, stop)
	if err != nil {
		return err
	}
	if resp.Member, err = past.IsMember(was.Clearer); err != nil {
		return err
	}
	if was.published {
		return r.publishedAgain(past, a.publication, was, resp)
	}
	req := a.request
	if was.decision != nil && !fresh(was.at, time.UnixMilli(req.TimeUnixMs), r.cfg.Bounds) {
		resp.Outcome, resp.Reason = registrypb.Outcome_DENY, registrypb.Reason_STALE_REQUEST
		return nil
	}
	narrowed := proto.CloneOf(req)
	if to := string(was.supplier()); to != "" && (len(req.Suppliers) == 0 || slices.Contains(req.Suppliers, to)) {
		narrowed.Suppliers = []string{to}
	}
	d, err := Decide(past, Case{Self: was.Clearer.Institution, Schemes: r.cfg.Rules.Schemes, Request: narrowed, Cleared: was.decision.GetCleared(), At: was.at})
	if err != nil {
		return err
	}
	resp.Outcome, resp.Reason, resp.Recused = d.Outcome, d.Reason, d.Recused
	resp.Authorization, resp.Fields, resp.Withheld = d.Authorization.GetId(), d.Fields, d.Withheld
	if d.Mandate != nil {
		resp.Mandate = string(d.Mandate.ID)
	}
	if was.decision != nil {
		resp.Fields, resp.Successor = nil, successorOf(d)
		return nil
	}
	for _, to := range d.Destinations {
		if to.Supplier == was.supplier() {
			for _, q := range to.Qualities {
				resp.SupplierQualities = append(resp.SupplierQualities, string(q))
			}
		}
	}
	return nil
}
