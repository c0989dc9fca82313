package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"encoding/json"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// LotRequest says what is asked of every subject of a file, and how that is written.
type LotRequest struct {
	ClientTicket names.ClientTicket
	Purpose      names.Purpose
	Dataset      names.DatasetID
	Fields       []names.FieldName
	Suppliers    []names.InstitutionID
	Period       names.Period
	Scheme       string // empty: ssin
	Format       string // csv, jsonl or fixed; empty: csv
	// Number and Reference say where they stand; see package node/batch/lines.
	Number, Reference string
	Separator         string
	Length            int
}

func (q LotRequest) values() url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("client_ticket", string(q.ClientTicket))
	set("purpose", string(q.Purpose))
	set("dataset", string(q.Dataset))
	set("from", q.Period.From.String())
	set("until", q.Period.Until.String())
	set("fields", joined(q.Fields))
	set("suppliers", joined(q.Suppliers))
	set("scheme", q.Scheme)
	set("format", q.Format)
	set("number", q.Number)
	set("reference", q.Reference)
	set("separator", q.Separator)
	if q.Length > 0 {
		v.Set("length", strconv.Itoa(q.Length))
	}
	return v
}

func joined[T ~string](list []T) string {
	parts := make([]string, len(list))
	for i, s := range list {
		parts[i] = string(s)
	}
	return strings.Join(parts, ",")
}

// SubmitLot hands in a file, which is sent as it is read. After an error, handing the same
// in again under the same client ticket is safe.
func (c *Client) SubmitLot(ctx context.Context, q LotRequest, file io.Reader) (Lot, error) {
	resp, err := c.send(ctx, http.MethodPost, "/v1/lots?"+q.values().Encode(), mediaBytes, file)
	if err != nil {
		return Lot{}, err
	}
	defer resp.Body.Close()
	var l Lot
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&l); err != nil {
		return Lot{}, fmt.Errorf("api: answer of /v1/lots: %w", err)
	}
	return l, nil
}

// send carries a body of any length, and gives an answer of any length.
func (c *Client) send(ctx context.Context, method, path, media string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("api: the node's address: %w", err)
	}
	c.dress(req, media)
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	p := &Problem{Status: resp.StatusCode}
	got, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil || got != mediaProblem || json.Unmarshal(b, p) != nil || p.Code == "" {
		return nil, errors.Join(fmt.Errorf("api: %s answered HTTP status %d without a problem: is this a Crossroads node?", c.base, resp.StatusCode), err)
	}
	return nil, p
}

// Lots gives the application's lots that are not acknowledged.
func (c *Client) Lots(ctx context.Context) (LotList, error) { return get[LotList](ctx, c, "/v1/lots") }

// Lot says how a lot stands.
func (c *Client) Lot(ctx context.Context, voucher names.Ticket) (Lot, error) {
	return get[Lot](ctx, c, "/v1/lots/"+url.PathEscape(string(voucher)))
}

// PauseLot begins nothing more of a lot; ResumeLot lets it go on; CancelLot ends it.
func (c *Client) PauseLot(ctx context.Context, voucher names.Ticket) (Lot, error) {
	return c.turnLot(ctx, voucher, "pause")
}

// ResumeLot lets a paused lot go on.
func (c *Client) ResumeLot(ctx context.Context, voucher names.Ticket) (Lot, error) {
	return c.turnLot(ctx, voucher, "resume")
}

// CancelLot ends a lot.
func (c *Client) CancelLot(ctx context.Context, voucher names.Ticket) (Lot, error) {
	return c.turnLot(ctx, voucher, "cancel")
}

func (c *Client) turnLot(ctx context.Context, voucher names.Ticket, verb string) (Lot, error) {
	return call[Lot](ctx, c, http.MethodPost, "/v1/lots/"+url.PathEscape(string(voucher))+"/"+verb, "", nil)
}

// LotResults writes the results of a lot that has ended to w, as csv or jsonl. After an error
// what was written is not the whole.
func (c *Client) LotResults(ctx context.Context, voucher names.Ticket, format string, w io.Writer) error {
	resp, err := c.send(ctx, http.MethodGet, "/v1/lots/"+url.PathEscape(string(voucher))+"/results?"+url.Values{"format": {format}}.Encode(), "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("api: the results were cut off: %w", err)
	}
	return nil
}

// AcknowledgeLot says that the results are held: the node deletes them.
func (c *Client) AcknowledgeLot(ctx context.Context, voucher names.Ticket) error {
	_, err := call[json.RawMessage](ctx, c, http.MethodPost, "/v1/lots/"+url.PathEscape(string(voucher))+"/acknowledge", "", nil)
	return err
}
