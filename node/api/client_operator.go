package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// MeshHealth gives the whole mesh at a glance, as the node reaches it.
func (c *Client) MeshHealth(ctx context.Context) (MeshHealth, error) {
	return get[MeshHealth](ctx, c, "/v1/operator/health")
}

// AutopilotState tells how the consensus group does; only its leader's node knows.
func (c *Client) AutopilotState(ctx context.Context) (Autopilot, error) {
	return get[Autopilot](ctx, c, "/v1/operator/autopilot")
}

// TransferLeader has the node, which leads, hand over; to may be empty.
func (c *Client) TransferLeader(ctx context.Context, to string) error {
	_, err := post[json.RawMessage](ctx, c, "/v1/operator/transfer-leader", TransferLeader{To: to})
	return err
}

// Compact has the node, a member, write a snapshot of its own and let go of the log before
// it; it returns when that is done.
func (c *Client) Compact(ctx context.Context) (Compacted, error) {
	return call[Compacted](ctx, c, http.MethodPost, "/v1/operator/compact", "", nil)
}

// Archive writes the snapshot or the debug archive to w. After an error what was written
// is not whole.
func (c *Client) Archive(ctx context.Context, what string, w io.Writer) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v1/operator/"+what, nil)
	if err != nil {
		return 0, fmt.Errorf("api: the node's address: %w", err)
	}
	c.dress(req, "")
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return 0, fmt.Errorf("api: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		p := &Problem{Status: resp.StatusCode}
		if json.Unmarshal(b, p) != nil || p.Code == "" {
			return 0, fmt.Errorf("api: %s answered HTTP status %d without a problem: is this a Crossroads node?", c.base, resp.StatusCode)
		}
		return 0, p
	}
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		err = fmt.Errorf("api: the archive was cut off: %w", err)
	}
	return n, err
}
