package api

import (
	"context"
	"net/url"
)

// Reading says how new a view a caller wants: see registry.Reading. The zero value is
// what the node holds.
type Reading struct {
	Consistency string // stale, lease, linearizable
	MaxStale    string // as "30s", with stale
}

func (r Reading) values() url.Values {
	v := url.Values{}
	if r.Consistency != "" {
		v.Set("consistency", r.Consistency)
	}
	if r.MaxStale != "" {
		v.Set("max_stale", r.MaxStale)
	}
	return v
}

func (r Reading) path(path string, more url.Values) string {
	v := r.values()
	for k, vs := range more {
		v[k] = vs
	}
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

// Groups gives the threshold groups that sign for the mesh.
func (c *Client) Groups(ctx context.Context) (List[KeyGroup], error) {
	return get[List[KeyGroup]](ctx, c, c.Reading.path("/v1/groups", nil))
}

// History gives the signed commands that concerned a record.
func (c *Client) History(ctx context.Context, kind, id string) (List[Change], error) {
	v := url.Values{"kind": {kind}}
	if id != "" {
		v.Set("id", id)
	}
	return get[List[Change]](ctx, c, c.Reading.path("/v1/registry/history", v))
}

// ReferenceHistory gives those by which the node's own institution declared references
// on a subject.
func (c *Client) ReferenceHistory(ctx context.Context, s Subject) (List[Change], error) {
	return post[List[Change]](ctx, c, "/v1/references/history", SubjectQuery{Subject: s})
}

// MandateHistory gives those by which the node's own institution registered or took back
// mandates that a subject gave.
func (c *Client) MandateHistory(ctx context.Context, s Subject) (List[Change], error) {
	return post[List[Change]](ctx, c, "/v1/mandates/history", SubjectQuery{Subject: s})
}
