package api

import (
	"context"
	"net/url"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// SectorMembers lists the cooperating institutions of a managing body's sector.
func (c *Client) SectorMembers(ctx context.Context) (SectorMembers, error) {
	return get[SectorMembers](ctx, c, "/v1/sector/members")
}

// SetSectorMember admits a cooperating institution, or changes its days.
func (c *Client) SetSectorMember(ctx context.Context, m SectorMember) error {
	_, err := post[struct{}](ctx, c, "/v1/sector/members", m)
	return err
}

// ChangeSector changes who in the sector has files on whom, all or nothing.
func (c *Client) ChangeSector(ctx context.Context, changes []SectorChange) error {
	_, err := post[struct{}](ctx, c, "/v1/sector/references", SectorChanges{changes})
	return err
}

// SectorReferences gives who in the sector has files on a subject.
func (c *Client) SectorReferences(ctx context.Context, s Subject) (SectorReferences, error) {
	return post[SectorReferences](ctx, c, "/v1/sector/references/search", SubjectQuery{Subject: s})
}

// ReplaceInSector says that a number was replaced by another.
func (c *Client) ReplaceInSector(ctx context.Context, old, successor Subject) error {
	_, err := post[struct{}](ctx, c, "/v1/sector/numbers", SectorReplacement{old, successor})
	return err
}

// SectorTrace gives what happened within the sector under a ticket.
func (c *Client) SectorTrace(ctx context.Context, t names.Ticket) (SectorStory, error) {
	return get[SectorStory](ctx, c, "/v1/sector/trace/"+url.PathEscape(string(t)))
}

// SectorSearch finds entries of the sector's journal.
func (c *Client) SectorSearch(ctx context.Context, q SectorSearch) (SectorFound, error) {
	return post[SectorFound](ctx, c, "/v1/sector/search", q)
}

// SectorView gives a subject its view within the sector, for a token made out to this
// node.
func (c *Client) SectorView(ctx context.Context, token []byte) (SectorView, error) {
	return post[SectorView](ctx, c, "/v1/sector/view", SubjectToken{Token: token})
}
