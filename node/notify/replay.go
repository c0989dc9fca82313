package notify

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Replay asks a publisher to tell once more what it told since a time: for an institution
// whose own system has lost it. What arrived since then is marked as wanted before the
// publisher is asked, so that it is stored again; it is all journaled. It gives how many
// publications the publisher queued.
func (r *Recipient) Replay(ctx context.Context, by exchange.Caller, publisher names.InstitutionID, since time.Time) (int, error) {
	e := &nodepb.Entry{TimeUnixMs: r.cfg.Now().UnixMilli(), Role: nodepb.Role_RECIPIENT, Event: nodepb.Event_REPLAY_ASKED, Mode: string(names.Notification),
		Requester: nodeRef(r.cfg.Self), Supplier: &registrypb.NodeRef{Institution: string(publisher)}, User: string(by.User), Application: by.Application,
		Channel: by.Channel, Detail: "what was told since " + since.UTC().Format(time.RFC3339) + " is asked for again"}
	if err := appendAll(ctx, r.cfg.Journal, []*nodepb.Entry{e}); err != nil {
		return 0, err
	}
	release, err := r.locks.Acquire(ctx, string(publisher))
	if err != nil {
		return 0, err
	}
	err = r.want(publisher, since)
	release()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var nodes []names.NodeID
	err = r.cfg.Registry.View(func(v record.View) error {
		list, err := v.NodesOf(publisher)
		for _, n := range list {
			if !n.GetRemoved() {
				nodes = append(nodes, record.NodeID(n.GetRef()))
			}
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	total, trouble := 0, error(errNoNode)
	for _, to := range nodes { // each keeps what it published itself
		resp, err := r.cfg.Peers.ReplayNotices(ctx, to, &nodepb.ReplayRequest{SinceUnixMs: since.UnixMilli()})
		if err != nil {
			return total, fmt.Errorf("%s: %w", to, err)
		}
		total, trouble = total+int(resp.Queued), nil
	}
	return total, trouble
}

// want marks what came from a publisher since a time as not received.
func (r *Recipient) want(publisher names.InstitutionID, since time.Time) error {
	ids, err := r.cfg.Queue.IDs(tabReceived, string(publisher)+"\x00")
	if err != nil {
		return err
	}
	var changes []outbox.Change
	for _, id := range ids {
		key := outbox.Key{Table: tabReceived, ID: id}
		raw, err := r.cfg.Queue.Get(key)
		if err != nil {
			continue // it ended
		}
		k := new(nodepb.KeptReceived)
		if err := proto.Unmarshal(raw, k); err != nil {
			return err
		}
		// A little slack: the publisher counts from when it published, this from when it came.
		if k.TimeUnixMs < since.UnixMilli() || k.Wanted {
			continue
		}
		k.Wanted = true
		c, err := changeOf(key, k, time.UnixMilli(k.TimeUnixMs).Add(PublicationLife+time.Hour))
		if err != nil {
			return err
		}
		if changes = append(changes, c); len(changes) == 1000 {
			if err := r.cfg.Queue.Write(changes...); err != nil {
				return err
			}
			changes = nil
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return r.cfg.Queue.Write(changes...)
}
