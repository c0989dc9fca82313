package node

import (
	"context"
	"slices"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/notify"
	"github.com/crossroads-mesh/crossroads/node/submission"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The methods of automatic communications.
const (
	methodClearNotifications = "clearing.notify"
	methodReady              = "notify.ready"
	methodDeliver            = "notify.deliver"
	methodReplay             = "notify.replay"
	methodSubmissionStatus   = "submission.status"
)

// maxDeliver holds the content of a batch, and the messages around it.
const maxDeliver = 6 << 20

// queueDir is where publications, deliveries and the inbox lie: a log of their own, for
// they stay for days, and the outbox's rows for minutes.
const queueDir = "queue"

// notifying is what a node does of automatic communications.
type notifying struct {
	queue     *outbox.Outbox
	inbox     *inbox.Inbox
	publisher *notify.Publisher
	recipient *notify.Recipient
	clearing  *clearing.NotificationService // nil on a node that is no member
	source    *submission.Source
	declarant *submission.Declarant
	pushers   []*push.Pusher
}

func (n *Node) openQueue() (err error) {
	if n.notify.queue, err = outbox.Open(outbox.Config{Dir: n.dir(queueDir), StorageKey: n.keys.storage, Now: n.deps.Now, Log: n.log}); err != nil {
		return err
	}
	n.opened = append(n.opened, n.notify.queue)
	return nil
}

func (n *Node) openNotify() (err error) {
	n.notify.inbox, err = inbox.Open(inbox.Config{
		Self: n.self, Store: n.notify.queue, Journal: n.askingJournal(),
		Consumers: slices.Concat(consumers(n.cfg.API.Applications), pushed(n.cfg.Inbox.Push), n.sectorConsumer()), Now: n.deps.Now, Log: n.log,
	})
	if err != nil {
		return err
	}
	bounds := n.keys.genesis.Bounds
	// Both sides of declarations are handed the publisher once there is one.
	declarations := submission.Config{
		Mesh: n.cfg.Mesh, Self: n.self, Signer: n.keys.signer, Registry: n.past, Journal: n.journal, Queue: n.notify.queue, Inbox: n.notify.inbox,
		Ask: func(ctx context.Context, to names.NodeID, req *nodepb.SubmissionStatusRequest) (*nodepb.SubmissionStatusResponse, error) {
			resp := new(nodepb.SubmissionStatusResponse)
			return resp, n.peers.Call(ctx, to, methodSubmissionStatus, req, resp)
		},
		Now: n.deps.Now, Log: n.log,
	}
	n.notify.publisher, err = notify.NewPublisher(notify.PublisherConfig{
		Mesh: n.cfg.Mesh, Self: n.self, Signer: n.keys.signer, Schemes: subject.Belgian(), Registry: n.past, Peers: n.peers,
		Journal: n.journal, Queue: n.notify.queue, Bounds: bounds, Keep: n.cfg.Notify.Keep, Now: n.deps.Now, Log: n.log,
		Received: func(t *clearing.Told, from names.NodeID, receipt []byte) []outbox.Change {
			return n.notify.declarant.Received(t, from, receipt)
		},
	})
	if err != nil {
		return err
	}
	declarations.Publisher = n.notify.publisher
	n.notify.source, n.notify.declarant = submission.NewSource(declarations), submission.NewDeclarant(declarations)
	n.notify.recipient = notify.NewRecipient(notify.RecipientConfig{
		Mesh: n.cfg.Mesh, Self: n.self, Signer: n.keys.signer, Schemes: subject.Belgian(), Registry: n.past, Journal: n.journal,
		Queue: n.notify.queue, Inbox: n.notify.inbox, Peers: n.peers, Bounds: bounds,
		NotBefore: n.journal.Epoch().NotBefore(bounds.ReleaseLife, bounds.Skew), Declared: n.notify.source.Declared, Now: n.deps.Now, Log: n.log,
	})
	if n.cfg.Member {
		n.notify.clearing = clearing.NewNotificationService(clearing.NotificationConfig{
			Self: n.self, Mesh: n.cfg.Mesh, Signer: n.keys.signer, Registry: n.past, Journal: notify.Rulings{Journal: n.journal},
			Bounds: bounds, Schemes: subject.Belgian(), Now: n.deps.Now, Log: n.log,
		})
	}
	n.metrics.Notifications(n.notify.publisher, n.notify.inbox)
	return n.openPushes()
}

// consumers gives the applications that take from the inbox: each what its own purposes
// and datasets let it see.
func consumers(applications []config.Application) (all []inbox.Consumer) {
	for _, a := range applications {
		if !a.Inbox {
			continue
		}
		all = append(all, inbox.Consumer{Name: a.Name, Wants: func(i inbox.Item) bool {
			return (len(a.Purposes) == 0 || slices.Contains(a.Purposes, i.Purpose)) && (len(a.Datasets) == 0 || slices.Contains(a.Datasets, i.Dataset))
		}})
	}
	return all
}

func (n *Node) handleNotify() {
	who := n.admission
	small := mesh.Limits{Request: maxSmall, Response: maxSmall}
	serve(n, methodReady, small, who.listed, n.notify.recipient.Ready)
	serve(n, methodDeliver, mesh.Limits{Request: maxDeliver, Response: maxAnswer}, who.listed, n.notify.recipient.Deliver)
	serve(n, methodReplay, small, who.listed, n.notify.publisher.ServeReplay)
	serve(n, methodSubmissionStatus, mesh.Limits{Request: maxSmall, Response: maxAnswer}, who.listed, n.notify.source.Serve)
	if n.notify.clearing != nil {
		serve(n, methodClearNotifications, mesh.Limits{Request: maxAnswer, Response: maxTrace}, who.listed, n.notify.clearing.Clear)
	}
}

// runNotify publishes and delivers, and completes acceptances that were begun, once this
// node knows that its disk is not an older one: what that had sent, it would send again.
func (n *Node) runNotify(ctx context.Context) error {
	select {
	case <-n.past.confirmed:
		if err := n.notify.source.Resume(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("a declaration that was begun to be accepted waits for the next decision", "err", err)
		}
		return n.notify.publisher.Run(ctx)
	case <-ctx.Done():
		return nil
	}
}

var _ notify.Peers = (*peers)(nil)

// ClearNotifications asks a clearing peer who is to be told of changes.
func (p *peers) ClearNotifications(ctx context.Context, to names.NodeID, req *registrypb.ClearNotificationsRequest) (*registrypb.ClearNotificationsResponse, error) {
	resp := new(registrypb.ClearNotificationsResponse)
	return resp, p.Call(ctx, to, methodClearNotifications, req, resp)
}

// RecipientReady asks a recipient whether something may be delivered.
func (p *peers) RecipientReady(ctx context.Context, to names.NodeID, req *nodepb.ReadyRequest) (*nodepb.ReadyResponse, error) {
	resp := new(nodepb.ReadyResponse)
	return resp, p.Call(ctx, to, methodReady, req, resp)
}

// DeliverNotices tells a recipient.
func (p *peers) DeliverNotices(ctx context.Context, to names.NodeID, req *nodepb.DeliverRequest) (*nodepb.DeliverResponse, error) {
	resp := new(nodepb.DeliverResponse)
	return resp, p.Call(ctx, to, methodDeliver, req, resp)
}

// ReplayNotices asks a publisher to tell once more.
func (p *peers) ReplayNotices(ctx context.Context, to names.NodeID, req *nodepb.ReplayRequest) (*nodepb.ReplayResponse, error) {
	resp := new(nodepb.ReplayResponse)
	return resp, p.Call(ctx, to, methodReplay, req, resp)
}
