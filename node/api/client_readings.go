package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/crossroads-mesh/crossroads/node/reading"
)

// SubjectChallenge asks what a subject's identity token must be made for.
func (c *Client) SubjectChallenge(ctx context.Context, p SubjectPeriod) (*reading.Challenge, error) {
	return post[*reading.Challenge](ctx, c, "/v1/subject/nonce", p)
}

// SubjectView gives everything that concerns the subject of a token.
func (c *Client) SubjectView(ctx context.Context, token []byte) (*reading.SubjectView, error) {
	return post[*reading.SubjectView](ctx, c, "/v1/subject/view", SubjectToken{Token: token})
}

// OfficerSearch gives what the users that a security officer oversees did.
func (c *Client) OfficerSearch(ctx context.Context, q OfficerSearch) (OfficerFound, error) {
	return post[OfficerFound](ctx, c, "/v1/officer/search", q)
}

// OfficerReport gives what is unusual among that.
func (c *Client) OfficerReport(ctx context.Context, q OfficerReport) (*reading.Report, error) {
	return post[*reading.Report](ctx, c, "/v1/officer/report", q)
}

// Inspect executes an inspection order.
func (c *Client) Inspect(ctx context.Context, order []byte) (*reading.Inspection, error) {
	return post[*reading.Inspection](ctx, c, "/v1/inspection", InspectionOrder{Order: order})
}

// OfficerCSV writes what OfficerSearch gives as CSV.
func (c *Client) OfficerCSV(ctx context.Context, w io.Writer, q OfficerSearch) error {
	body, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/v1/officer/search", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("api: the node's address: %w", err)
	}
	c.dress(req, mediaJSON)
	req.Header.Set("Accept", mediaCSV)
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("api: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxHeader))
		p := &Problem{Status: resp.StatusCode}
		if err != nil || json.Unmarshal(b, p) != nil || p.Code == "" {
			return fmt.Errorf("api: %s answered HTTP status %d without a problem: is this a Crossroads node?", c.base, resp.StatusCode)
		}
		return p
	}
	_, err = io.Copy(w, io.LimitReader(resp.Body, maxAnswer))
	return err
}
