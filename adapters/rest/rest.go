// Package rest asks an HTTP/JSON service of the institution's own for the records
// of one subject.
//
// # What the service is asked
//
// One POST to the configured URL. The subject's number stands in the body and
// never in the URL, so that it ends in no access log and no proxy's history:
//
//	POST /records HTTP/1.1
//	Authorization: Bearer <the content of the token file>
//	Content-Type: application/json
//	Accept: application/json
//
//	{"dataset":"wages-quarterly/v1",
//	 "subject":{"scheme":"ssin","number":"74071238186"},
//	 "period":{"from":"2025-01-01","until":"2025-12-31"},
//	 "qualities":["employee"],
//	 "fields":["year","quarter","gross_wage"]}
//
// Both ends of the period are included. Qualities say in what capacity the
// institution has its file; fields are those that will leave. A service may use
// them to look up less, and may ignore them.
//
// # What it answers
//
// Status 200, Content-Type application/json, and every record that overlaps the
// period, each with all fields that the dataset's schema requires:
//
//	{"records":[{"year":2025,"quarter":1,"gross_wage":9123.40}]}
//
// Nobody known, or nothing in the period: an empty array. Anything else beside
// "records" is refused, since it may mean that this is a part only (a next page).
// The bytes of a record are passed on as sent: a number keeps its digits.
//
// Status 429 and 5xx, no connection and no answer in time mean unavailable:
// exchange.ErrSourceUnavailable. Redirects are not followed: they would carry the
// number, and the token, elsewhere. Any other answer is an ErrAnswer. No error
// repeats anything of the question or the answer.
package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Defaults and limits.
const (
	DefaultTimeout  = 5 * time.Second
	DefaultMaxBytes = 1 << 20
	maxToken        = 8 << 10
	maxConns        = 64
)

var (
	// ErrConfig is wrapped by the errors of Open.
	ErrConfig = errors.New("rest source misconfigured")
	// ErrAnswer means that the service answered, and not as agreed.
	ErrAnswer = errors.New("rest source answered wrongly")
)

// Source is one service, asked for one dataset. It is safe for concurrent use.
type Source struct {
	url       string
	tokenFile string
	timeout   time.Duration
	maxBytes  int64
	client    *http.Client
}

var _ exchange.Source = (*Source)(nil)

// Open checks cfg and makes the source. It does not connect.
func Open(cfg config.RESTSource) (*Source, error) {
	if err := checkURL(cfg.URL); err != nil {
		return nil, err
	}
	if cfg.Timeout < 0 || cfg.MaxBytes < 0 {
		return nil, fmt.Errorf("%w: timeout and max_bytes are not negative", ErrConfig)
	}
	s := &Source{url: cfg.URL, tokenFile: cfg.TokenFile, timeout: cfg.Timeout, maxBytes: cfg.MaxBytes}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if s.maxBytes == 0 {
		s.maxBytes = DefaultMaxBytes
	}
	if _, err := s.token(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	s.client = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{ // no proxy: the question goes to the service and to nobody else
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			DisableCompression:  true,
			MaxConnsPerHost:     maxConns,
			MaxIdleConnsPerHost: maxConns,
			IdleConnTimeout:     time.Minute,
			TLSHandshakeTimeout: s.timeout,
			// Bounds what is read before the size limit of the body applies.
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
	return s, nil
}

// Close ends idle connections; questions under way come to their end.
func (s *Source) Close() error {
	s.client.CloseIdleConnections()
	return nil
}

// checkURL insists on TLS wherever the question leaves this machine.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Fragment != "" {
		return fmt.Errorf("%w: url: want https://host/path", ErrConfig)
	}
	if u.User != nil {
		return fmt.Errorf("%w: url: holds a user or password; put a token into token_file", ErrConfig)
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%w: url: want https (http only to this machine: localhost, 127.0.0.1, [::1])", ErrConfig)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// token reads the bearer token, anew for each question so that it can be changed
// without a restart.
func (s *Source) token() (string, error) {
	if s.tokenFile == "" {
		return "", nil
	}
	f, err := os.Open(s.tokenFile)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" || len(b) > maxToken || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("token_file %s: want one token of printable characters", s.tokenFile)
	}
	return t, nil
}

// question is the body of the request.
type question struct {
	Dataset   names.DatasetID   `json:"dataset"`
	Subject   subjectJSON       `json:"subject"`
	Period    names.Period      `json:"period"`
	Qualities []names.Quality   `json:"qualities"`
	Fields    []names.FieldName `json:"fields"`
}

type subjectJSON struct {
	Scheme string `json:"scheme"`
	Number string `json:"number"`
}

// Fetch asks the service.
func (s *Source) Fetch(ctx context.Context, q exchange.Query) ([]json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	token, err := s.token()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrSourceUnavailable, err)
	}
	body, err := json.Marshal(question{
		Dataset: q.Dataset, Subject: subjectJSON{string(q.Subject.Scheme()), q.Subject.Number()},
		Period: q.Period, Qualities: q.Qualities, Fields: q.Fields,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: the question cannot be written", ErrAnswer)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: url", ErrConfig) // Open has checked it
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "crossroads")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, unavailable(err)
	}
	defer resp.Body.Close()
	return s.read(resp)
}

func (s *Source) read(resp *http.Response) ([]json.RawMessage, error) {
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests || code >= 500:
		return nil, fmt.Errorf("%w: status %d", exchange.ErrSourceUnavailable, code)
	case code >= 300 && code < 400:
		return nil, fmt.Errorf("%w: status %d: redirects are not followed; configure the service's own url", ErrAnswer, code)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return nil, fmt.Errorf("%w: status %d: the service does not accept the token of token_file", ErrAnswer, code)
	case code != http.StatusOK:
		return nil, fmt.Errorf("%w: status %d", ErrAnswer, code)
	}
	if err := checkContentType(resp.Header); err != nil {
		return nil, err
	}
	if resp.ContentLength > s.maxBytes {
		return nil, fmt.Errorf("%w: more than max_bytes (%d)", ErrAnswer, s.maxBytes)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, s.maxBytes+1))
	if err != nil {
		return nil, unavailable(err)
	}
	if int64(len(body)) > s.maxBytes {
		return nil, fmt.Errorf("%w: more than max_bytes (%d)", ErrAnswer, s.maxBytes)
	}
	return decode(body)
}

func checkContentType(h http.Header) error {
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset, given := params["charset"]
	if err != nil || kind != "application/json" || given && !strings.EqualFold(charset, "utf-8") {
		return fmt.Errorf("%w: content type: want application/json in UTF-8", ErrAnswer)
	}
	if e := h.Get("Content-Encoding"); e != "" && e != "identity" {
		return fmt.Errorf("%w: content encoding: want none", ErrAnswer)
	}
	return nil
}

// unavailable hides what the client's errors may quote, but for what says where
// the connection failed.
func unavailable(err error) error {
	var network *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %w", exchange.ErrSourceUnavailable, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		return fmt.Errorf("%w: no answer in time: %w", exchange.ErrSourceUnavailable, context.DeadlineExceeded)
	case errors.As(err, &network):
		return fmt.Errorf("%w: %w", exchange.ErrSourceUnavailable, network)
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return fmt.Errorf("%w: %w", exchange.ErrSourceUnavailable, certificate)
	}
	return fmt.Errorf("%w: the connection broke", exchange.ErrSourceUnavailable)
}
