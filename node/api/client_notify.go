package api

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Publish publishes a change. That it is refused is no error: see Publication. After an
// error, publishing again under the same client ticket is safe.
func (c *Client) Publish(ctx context.Context, p PublicationRequest) (Publication, error) {
	return post[Publication](ctx, c, "/v1/publications", p)
}

// PublishBatch publishes several changes in one request, and gives what came of each, in
// order. After an error publish the same again: what was accepted is accepted once.
func (c *Client) PublishBatch(ctx context.Context, b PublicationBatch) (PublicationOutcomes, error) {
	return post[PublicationOutcomes](ctx, c, "/v1/publications/batch", b)
}

// PublicationStatus tells how far a change has come.
func (c *Client) PublicationStatus(ctx context.Context, t names.ClientTicket) (PublicationStatus, error) {
	return get[PublicationStatus](ctx, c, "/v1/publications/"+url.PathEscape(string(t)))
}

// Deliveries lists notifications that their recipients do not have. An empty recipient or
// ticket does not narrow the list; limit 0 is 100.
func (c *Client) Deliveries(ctx context.Context, s DeliverySelection, dead bool, limit int) (Deliveries, error) {
	q := url.Values{}
	if s.Recipient != "" {
		q.Set("recipient", string(s.Recipient))
	}
	if s.Ticket != "" {
		q.Set("ticket", string(s.Ticket))
	}
	if dead {
		q.Set("dead", "true")
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return get[Deliveries](ctx, c, "/v1/deliveries?"+q.Encode())
}

// DeliveryLags tells how far recipients are behind.
func (c *Client) DeliveryLags(ctx context.Context) (DeliveryLags, error) {
	return get[DeliveryLags](ctx, c, "/v1/deliveries/lag")
}

// Redrive has deliveries tried again that were given up, and gives how many.
func (c *Client) Redrive(ctx context.Context, s DeliverySelection) (Count, error) {
	return post[Count](ctx, c, "/v1/deliveries/redrive", s)
}

// DropDeliveries forgets deliveries that were given up, and gives how many.
func (c *Client) DropDeliveries(ctx context.Context, s DeliverySelection) (Count, error) {
	return post[Count](ctx, c, "/v1/deliveries/drop", s)
}

// ReplayDeliveries has a recipient told once more what it was told since a time.
func (c *Client) ReplayDeliveries(ctx context.Context, r ReplayRequest) (Count, error) {
	return post[Count](ctx, c, "/v1/deliveries/replay", r)
}

// TakeInbox takes what waits, and waits for something as long as ctx lasts, at most a
// minute; then it gives nothing.
func (c *Client) TakeInbox(ctx context.Context, q InboxQuery) (InboxItems, error) {
	return post[InboxItems](ctx, c, "/v1/inbox/take", q)
}

// AcknowledgeInbox says that items are held durably.
func (c *Client) AcknowledgeInbox(ctx context.Context, items ...InboxReceipt) error {
	_, err := post[json.RawMessage](ctx, c, "/v1/inbox/acknowledge", InboxReceipts{items})
	return err
}

// ReleaseInbox gives items back untreated.
func (c *Client) ReleaseInbox(ctx context.Context, items ...InboxReceipt) error {
	_, err := post[json.RawMessage](ctx, c, "/v1/inbox/release", InboxReceipts{items})
	return err
}

// InboxState tells how much waits for the application.
func (c *Client) InboxState(ctx context.Context) (InboxState, error) {
	return get[InboxState](ctx, c, "/v1/inbox")
}

// ResumePush has a system that is sent what arrives sent at once what it did not accept.
func (c *Client) ResumePush(ctx context.Context, name string) (Count, error) {
	return post[Count](ctx, c, "/v1/inbox/resume", PushResume{name})
}

// ReplayInbox asks a publisher to tell this institution once more.
func (c *Client) ReplayInbox(ctx context.Context, r ReplayRequest) (Count, error) {
	return post[Count](ctx, c, "/v1/inbox/replay", r)
}

// Subscriptions gives who wants which changes.
func (c *Client) Subscriptions(ctx context.Context) (List[Subscription], error) {
	return get[List[Subscription]](ctx, c, "/v1/subscriptions")
}

// Subscribe subscribes the node's institution, or withdraws.
func (c *Client) Subscribe(ctx context.Context, s SubscriptionRequest) (Submitted, error) {
	return post[Submitted](ctx, c, "/v1/subscriptions", s)
}

// Declare declares something to the authentic source.
func (c *Client) Declare(ctx context.Context, d DeclarationRequest) (Declaration, error) {
	return post[Declaration](ctx, c, "/v1/declarations", d)
}

// DeclarationStatus tells what became of a declaration.
func (c *Client) DeclarationStatus(ctx context.Context, t names.ClientTicket) (Declaration, error) {
	return get[Declaration](ctx, c, "/v1/declarations/"+url.PathEscape(string(t)))
}

// DecideSubmission decides on a declaration that this institution received.
func (c *Client) DecideSubmission(ctx context.Context, t names.Ticket, d DecisionRequest) (Declaration, error) {
	return post[Declaration](ctx, c, "/v1/submissions/"+url.PathEscape(string(t))+"/decision", d)
}
