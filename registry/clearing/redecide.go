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
	// Registry is a member's, which holds the whole history.
	Registry interface {
		View(fn func(record.View) error) error
	}
	// Limit is how long one decision may be worked at. 0: 5 s.
	Limit time.Duration
	Log   *slog.Logger // nil: nothing
}

// Redecider decides again, as of the same state of the registry, what another member
// has cleared: decisions are deterministic, so one that permitted what it must not is
// told by anybody. It works at one at a time. It is safe for concurrent use.
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

// Redecide decides on the clearance that from shows, with its request. From must be a
// member, or the requester or supplier of what was in truth cleared: what was never
// cleared is not decided here, or the past could be asked for what the present refuses.
//
// The error wraps ErrMalformed, ErrBadSignature, ErrNotParty, ErrNotMember (this node
// is none), record.ErrNotReached, or that of ctx when it took too long.
func (r *Redecider) Redecide(ctx context.Context, from names.NodeID, rr *registrypb.RedecideRequest) (*registrypb.RedecideResponse, error) {
	req, signed, err := openRequest(r.cfg.Mesh, rr.GetRequest())
	if err != nil {
		return nil, err
	}
	c := new(registrypb.Clearance)
	opened, err := open(envelope.Clearance, rr.GetClearance(), c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !slices.Equal(c.RequestHash, sum(rr.Request)) || c.Mesh != string(r.cfg.Mesh) || record.NodeID(c.Clearer).Validate() != nil {
		return nil, fmt.Errorf("%w: the clearance is for another request", ErrMalformed)
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Limit)
	defer cancel()
	select {
	case r.slot <- struct{}{}:
		defer func() { <-r.slot }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	resp := &registrypb.RedecideResponse{RegistryIndex: c.RegistryIndex}
	err = r.cfg.Registry.View(func(v record.View) error {
		if err := r.entitled(v, from, req, c, signed, opened); err != nil {
			return err
		}
		return decideAgain(v, r.cfg.Rules, req, c, func() error { return ctx.Err() }, resp)
	})
	if err != nil {
		return nil, err
	}
	if d := Differs(c, resp); d != "" {
		r.cfg.Log.Warn("a clearing peer permitted what it must not", "clearer", record.NodeID(c.Clearer).String(), "ticket", c.Ticket,
			"index", c.RegistryIndex, "why", d, "shown by", from.String())
	}
	return resp, nil
}

func (r *Redecider) entitled(v record.View, from names.NodeID, req *registrypb.Request, c *registrypb.Clearance, signed, opened *envelope.Opened) error {
	if ok, err := v.IsMember(r.cfg.Self); err != nil || !ok {
		return errors.Join(err, ErrNotMember)
	}
	for _, s := range []struct {
		by names.InstitutionID
		o  *envelope.Opened
	}{{names.InstitutionID(req.Requester.GetInstitution()), signed}, {names.InstitutionID(c.Clearer.GetInstitution()), opened}} {
		keys, err := v.KeysOf(s.by)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(keys, func(k *registrypb.Key) bool { return s.o.VerifiedBy(k.PublicKey) }) {
			return fmt.Errorf("%w: %s", ErrBadSignature, s.by)
		}
	}
	if string(from.Institution) == req.Requester.GetInstitution() || string(from.Institution) == c.Supplier {
		return nil
	}
	member, err := v.IsMember(from)
	if err == nil && !member {
		err = ErrNotParty
	}
	return err
}

// decideAgain decides in the clearer's place, as of its index, and for its supplier alone: so
// the reply tells nothing that the clearance does not.
func decideAgain(v record.View, rules *record.Rules, req *registrypb.Request, c *registrypb.Clearance, stop func() error, resp *registrypb.RedecideResponse) error {
	about := subject.Raw(subject.Scheme(c.Subject.GetScheme()), c.Subject.GetNumber())
	past, err := v.AsOf(rules, c.RegistryIndex, about, stop)
	if err != nil {
		return err
	}
	if resp.Member, err = past.IsMember(record.NodeID(c.Clearer)); err != nil {
		return err
	}
	narrowed := proto.CloneOf(req)
	if len(req.Suppliers) == 0 || slices.Contains(req.Suppliers, c.Supplier) {
		narrowed.Suppliers = []string{c.Supplier}
	}
	d, err := Decide(past, Case{Self: names.InstitutionID(c.Clearer.GetInstitution()), Schemes: rules.Schemes, Request: narrowed, At: time.UnixMilli(c.IssuedUnixMs)})
	if err != nil {
		return err
	}
	resp.Outcome, resp.Reason, resp.Recused = d.Outcome, d.Reason, d.Recused
	resp.Authorization, resp.Fields, resp.Withheld = d.Authorization.GetId(), d.Fields, d.Withheld
	for _, to := range d.Destinations {
		if string(to.Supplier) == c.Supplier {
			for _, q := range to.Qualities {
				resp.SupplierQualities = append(resp.SupplierQualities, string(q))
			}
		}
	}
	return nil
}

// Differs says in a few words where a clearance departs from what was decided again at
// its index: empty, where it does not. It names no subject.
func Differs(c *registrypb.Clearance, again *registrypb.RedecideResponse) string {
	switch {
	case !again.GetMember():
		return "it was no registry member in good standing"
	case again.Outcome == registrypb.Outcome_OUTCOME_UNSPECIFIED:
		return "it was itself a party, or of a party's sector"
	case again.Outcome != registrypb.Outcome_PERMIT:
		return "the registry said " + again.Outcome.String() + ", " + again.Reason.String()
	case len(again.SupplierQualities) == 0:
		return "the registry gave no route to " + c.GetSupplier()
	case again.Authorization != c.GetAuthorization():
		return "the registry permitted it under " + again.Authorization + " alone"
	case !slices.Equal(again.Fields, c.GetFields()):
		return "the registry permitted other fields"
	case !slices.Equal(again.Withheld, c.GetWithheld()):
		return "the registry withheld other fields"
	case !slices.Equal(again.SupplierQualities, c.GetSupplierQualities()):
		return "the registry gave the route by other files of the supplier"
	}
	return ""
}
