package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// compare holds this replica's public history against the one that a grant vouches
// for. Whatever members told a watcher (left out, moved to another index, or "nothing
// up to here" of what is not decided yet), it shows here.
func (r *Registry) compare(g *registrypb.Grant) error {
	var same bool
	err := r.store.View(func(v record.View) (err error) {
		same, err = v.Shares(record.Past{Index: g.GetPublicIndex(), Hash: g.GetPublicHash()}, g.GetCommitIndex())
		return err
	})
	if err != nil || same {
		return err
	}
	return fmt.Errorf("%w: its public history up to index %d differs from what leader %s vouches for",
		ErrDiverged, g.GetCommitIndex(), record.NodeID(g.GetLeader()))
}

// grantFailed is told of grants that this replica does not agree with, or does not reach.
func (r *Registry) grantFailed(err error) {
	to := r.behind
	if errors.Is(err, ErrDiverged) {
		to = r.doubts
	}
	select {
	case to <- struct{}{}:
	default: // it has not yet looked at the one before
	}
}

// settleDoubts finds out, on a watcher, who is wrong: the member through which a grant
// came, or this replica. It asks each member for a grant of its own. When the grants of
// two disagree with this replica it is given up, as when two streams are refused; one
// member alone is only not asked first any more.
func (r *Registry) settleDoubts(ctx context.Context) error {
	for {
		select {
		case <-r.doubts:
		case <-ctx.Done():
			return nil
		}
		members, err := r.voters()
		if err != nil {
			return err
		}
		against := make(map[names.NodeID]bool)
		for _, m := range members {
			err := r.holder.Renew(ctx, func(ctx context.Context, nonce []byte) ([]byte, error) { return r.askGrantOf(ctx, m, nonce) })
			if ctx.Err() != nil {
				return nil
			}
			if !errors.Is(err, ErrDiverged) {
				continue
			}
			r.cfg.Log.Error("registry: this replica and a grant disagree: the member through which it came lies, or one that was followed did",
				"member", m.String(), "index", r.store.AppliedIndex(), "error", err)
			against[m] = true
			r.route.failed(m)
			if err := r.anew(against); err != nil {
				return err
			}
		}
	}
}

// askGrantOf asks one member for a grant; it passes the question on to the leader.
func (r *Registry) askGrantOf(ctx context.Context, m names.NodeID, nonce []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Genesis.Bounds.Lease/2)
	defer cancel()
	resp := new(registrypb.GrantResponse)
	err := r.cfg.Peers.Call(ctx, m, MethodGrant, &registrypb.GrantRequest{Nonce: nonce}, resp)
	return resp.Grant, err
}
