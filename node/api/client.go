package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/receipt"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// maxAnswer is the largest answer that the client reads, in bytes.
const maxAnswer = 64 << 20

// Client speaks to one node's interface. It is safe for concurrent use; the fields
// are set before first use. Every method's error is a *Problem (errors.As) when the
// node answered with one.
type Client struct {
	// HTTP carries the requests. NewClient sets one without a time limit of its own:
	// the context of each call says how long it may take.
	HTTP *http.Client
	// User, AuthLevel and Channel are asserted with every request. Empty: not at all.
	User      names.UserID
	AuthLevel string
	Channel   string
	// Reading says how new a view the public tables are read from.
	Reading Reading

	base  string
	token string
}

// NewClient makes a client of the node at baseURL. An empty token reaches the public
// tables only.
func NewClient(baseURL, token string) *Client {
	return &Client{
		HTTP: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		base: strings.TrimSuffix(baseURL, "/"), token: token,
	}
}

// OpenAPI gives the description of the interface, as JSON.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, "/openapi.json")
}

// Healthy returns nil when the node's process answers.
func (c *Client) Healthy(ctx context.Context) error {
	_, err := get[json.RawMessage](ctx, c, "/healthz")
	return err
}

// Ready tells whether the node can do its work, and if not, why. That it is not is no error.
func (c *Client) Ready(ctx context.Context) (Readiness, error) {
	return get[Readiness](ctx, c, "/readyz")
}

// Institutions gives the members of the network.
func (c *Client) Institutions(ctx context.Context) (List[Institution], error) {
	return get[List[Institution]](ctx, c, c.Reading.path("/v1/institutions", nil))
}

// Datasets gives the types of message.
func (c *Client) Datasets(ctx context.Context) (List[Dataset], error) {
	return get[List[Dataset]](ctx, c, c.Reading.path("/v1/datasets", nil))
}

// Offerings gives what is available where.
func (c *Client) Offerings(ctx context.Context) (List[Offering], error) {
	return get[List[Offering]](ctx, c, c.Reading.path("/v1/offerings", nil))
}

// Authorizations gives who may obtain what.
func (c *Client) Authorizations(ctx context.Context) (List[Authorization], error) {
	return get[List[Authorization]](ctx, c, c.Reading.path("/v1/authorizations", nil))
}

// Authorization gives one row of it.
func (c *Client) Authorization(ctx context.Context, id names.AuthorizationID) (Authorization, error) {
	return get[Authorization](ctx, c, c.Reading.path("/v1/authorizations/"+url.PathEscape(string(id)), nil))
}

// Consult asks. A refusal is a Consultation with status NO_RESULT, not an error.
// After an error, asking again under the same client ticket is safe.
func (c *Client) Consult(ctx context.Context, q ConsultationRequest) (Consultation, error) {
	return post[Consultation](ctx, c, "/v1/consultations", q)
}

// Acknowledge says that the answer under t has been received and need not be kept.
func (c *Client) Acknowledge(ctx context.Context, t names.ClientTicket) error {
	_, err := call[json.RawMessage](ctx, c, http.MethodPost, "/v1/consultations/"+url.PathEscape(string(t))+"/acknowledge", "", nil)
	return err
}

// Inquire asks for several datasets at once. A refusal is an Inquiry with status
// NO_RESULT, not an error. After an error, asking again under the same client ticket is
// safe. The node concludes a little before ctx's deadline with what there is.
func (c *Client) Inquire(ctx context.Context, q InquiryRequest) (Inquiry, error) {
	return post[Inquiry](ctx, c, "/v1/inquiries", q)
}

// AcknowledgeInquiry says that the outcome under t has been received and need not be kept.
func (c *Client) AcknowledgeInquiry(ctx context.Context, t names.ClientTicket) error {
	_, err := call[json.RawMessage](ctx, c, http.MethodPost, "/v1/inquiries/"+url.PathEscape(string(t))+"/acknowledge", "", nil)
	return err
}

// Trace gives the joined and verified story of a ticket.
func (c *Client) Trace(ctx context.Context, t names.Ticket) (*trace.Story, error) {
	return get[*trace.Story](ctx, c, "/v1/trace/"+url.PathEscape(string(t)))
}

// Receipt gives what shows, away from the node, what happened under a ticket.
func (c *Client) Receipt(ctx context.Context, t names.Ticket) (*receipt.Receipt, error) {
	return get[*receipt.Receipt](ctx, c, "/v1/receipts/"+url.PathEscape(string(t)))
}

// FindJournal searches the node's own journal segment. The reading is journaled.
func (c *Client) FindJournal(ctx context.Context, q JournalQuery) (JournalEntries, error) {
	return post[JournalEntries](ctx, c, "/v1/journal/search", q)
}

// JournalOf gives the node's own entries of one ticket.
func (c *Client) JournalOf(ctx context.Context, t names.Ticket) (JournalEntries, error) {
	return get[JournalEntries](ctx, c, "/v1/journal?"+url.Values{"ticket": {string(t)}}.Encode())
}

// FindReferences gives what this institution has declared of a subject.
func (c *Client) FindReferences(ctx context.Context, s Subject) (References, error) {
	return post[References](ctx, c, "/v1/references/search", SubjectQuery{Subject: s})
}

// DeclareReferences says that this institution has these files.
func (c *Client) DeclareReferences(ctx context.Context, rs []Reference) (Submitted, error) {
	return post[Submitted](ctx, c, "/v1/references", References{References: rs})
}

// WithdrawReferences takes exactly these rows away.
func (c *Client) WithdrawReferences(ctx context.Context, rs []Reference) (Submitted, error) {
	return post[Submitted](ctx, c, "/v1/references/withdraw", References{References: rs})
}

// Submit hands a signed command to the registry. That the registry refuses it is no
// error: see Submitted.
func (c *Client) Submit(ctx context.Context, envelope []byte) (Submitted, error) {
	return call[Submitted](ctx, c, http.MethodPost, "/v1/registry/commands", mediaBytes, envelope)
}

// RegistryStatus tells how the node stands to the registry.
func (c *Client) RegistryStatus(ctx context.Context) (RegistryStatus, error) {
	return get[RegistryStatus](ctx, c, "/v1/registry/status")
}

// RegistryHead gives the end of an author's chain ("public" or "directory"), as of
// index at the earliest.
func (c *Client) RegistryHead(ctx context.Context, author, chain string, index uint64) (ChainHead, error) {
	q := url.Values{"author": {author}, "chain": {chain}, "index": {strconv.FormatUint(index, 10)}}
	return get[ChainHead](ctx, c, "/v1/registry/head?"+q.Encode())
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, "", nil)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	b, err := json.Marshal(body)
	if err != nil {
		var zero T
		return zero, fmt.Errorf("api: %w", err)
	}
	return call[T](ctx, c, http.MethodPost, path, mediaJSON, b)
}

func call[T any](ctx context.Context, c *Client, method, path, media string, body []byte) (v T, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return v, fmt.Errorf("api: the node's address: %w", err)
	}
	c.dress(req, media)
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return v, fmt.Errorf("api: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return v, fmt.Errorf("api: answer of %s: %w", req.URL.Path, err)
	case len(b) > maxAnswer:
		return v, fmt.Errorf("api: answer of %s: larger than %d bytes", req.URL.Path, maxAnswer)
	}
	got, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode == http.StatusNoContent:
		return v, nil
	case got == mediaJSON && (resp.StatusCode == http.StatusOK || path == "/readyz"):
		if err := json.Unmarshal(b, &v); err != nil {
			return v, fmt.Errorf("api: answer of %s: %w", req.URL.Path, err)
		}
		return v, nil
	}
	p := &Problem{Status: resp.StatusCode}
	if got != mediaProblem || json.Unmarshal(b, p) != nil || p.Code == "" {
		return v, fmt.Errorf("api: %s answered HTTP status %d without a problem: is this a Crossroads node?", c.base, resp.StatusCode)
	}
	return v, p
}

// dress sets the headers, and tells the node how long the caller will wait.
func (c *Client) dress(req *http.Request, media string) {
	set := func(name, value string) {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	set("Content-Type", media)
	set(HeaderUser, string(c.User))
	set(HeaderAuthLevel, c.AuthLevel)
	set(HeaderChannel, c.Channel)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if d, ok := req.Context().Deadline(); ok {
		if n := int(time.Until(d) / time.Second); n >= 1 {
			req.Header.Set("Prefer", "wait="+strconv.Itoa(min(n, 60)))
		}
	}
}

// IsProblem reports whether err is a problem of this code.
func IsProblem(err error, code Code) bool {
	var p *Problem
	return errors.As(err, &p) && p.Code == code
}
