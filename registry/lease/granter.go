package lease

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const (
	// waiting bounds the nonces that wait for the leader's next confirmation.
	waiting = 4096
	// confirmWithin bounds one confirmation: a leader that needs longer has lost
	// its majority, or is about to.
	confirmWithin = 2 * time.Second
)

// GranterConfig says for whom a Granter speaks.
type GranterConfig struct {
	Mesh   names.MeshID
	Self   names.NodeID
	Signer crypto.Signer // of the institution
	// Confirm reads the commit index and then makes sure that this node led, in
	// term, after the moment of the call. It is called by one goroutine at a time.
	Confirm func(ctx context.Context) (Confirmed, error)
	// Now is the wall clock that goes into grants.
	Now func() time.Time
}

// Confirmed is what a leader can vouch for.
type Confirmed struct {
	Term uint64
	// Commit is not below what was committed at the moment of asking.
	Commit uint64
	// PublicIndex and PublicHash are the public history up to and with Commit.
	PublicIndex uint64
	PublicHash  []byte
}

// Granter signs grants on a leader. Many nonces that wait together share one
// confirmation by the majority.
type Granter struct {
	cfg  GranterConfig
	asks chan ask
}

type ask struct {
	holder names.NodeID
	nonce  []byte
	answer chan<- answer // buffered
}

type answer struct {
	grant []byte
	err   error
}

// NewGranter makes a Granter; it grants while Run runs.
func NewGranter(cfg GranterConfig) *Granter {
	return &Granter{cfg: cfg, asks: make(chan ask, waiting)}
}

// Grant answers one nonce of holder. It fails with the error of Confirm when this
// node does not lead, and with ErrBusy under overload.
func (g *Granter) Grant(ctx context.Context, holder names.NodeID, nonce []byte) ([]byte, error) {
	if len(nonce) != NonceSize {
		return nil, fmt.Errorf("%w: nonce has %d bytes, want %d", ErrInvalidGrant, len(nonce), NonceSize)
	}
	back := make(chan answer, 1)
	select {
	case g.asks <- ask{holder, nonce, back}:
	default:
		return nil, ErrBusy
	}
	select {
	case a := <-back:
		return a.grant, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Run answers until ctx ends; what waits then is refused with ctx's error.
func (g *Granter) Run(ctx context.Context) error {
	for {
		select {
		case first := <-g.asks:
			g.answer(ctx, g.gather(first))
		case <-ctx.Done():
			for _, a := range g.gather() {
				a.answer <- answer{err: context.Cause(ctx)}
			}
			return nil
		}
	}
}

// gather takes all that wait now, without waiting for more.
func (g *Granter) gather(batch ...ask) []ask {
	for len(batch) < waiting {
		select {
		case a := <-g.asks:
			batch = append(batch, a)
		default:
			return batch
		}
	}
	return batch
}

func (g *Granter) answer(ctx context.Context, batch []ask) {
	// The clock is read before the commit index: a grant that does not know of a
	// commit must carry a time before that commit.
	now := g.cfg.Now()
	sure, err := g.confirm(ctx)
	for _, a := range batch {
		if err != nil {
			a.answer <- answer{err: err}
			continue
		}
		raw, err := g.sign(&registrypb.Grant{
			Mesh: string(g.cfg.Mesh), Nonce: a.nonce, Holder: refOf(a.holder), Leader: refOf(g.cfg.Self),
			Term: sure.Term, CommitIndex: sure.Commit, LeaderTimeUnixMs: now.UnixMilli(),
			PublicIndex: sure.PublicIndex, PublicHash: sure.PublicHash,
		})
		a.answer <- answer{raw, err}
	}
}

func (g *Granter) confirm(ctx context.Context) (Confirmed, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	return g.cfg.Confirm(ctx)
}

func (g *Granter) sign(grant *registrypb.Grant) ([]byte, error) {
	payload, err := proto.Marshal(grant)
	if err != nil {
		return nil, err
	}
	raw, err := envelope.Sign(envelope.Grant, payload, g.cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("grant: %w", err)
	}
	if len(raw) > MaxGrantSize {
		return nil, errors.New("grant: larger than anyone reads")
	}
	return raw, nil
}
