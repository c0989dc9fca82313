// Package push sends what arrives for an institution to a system of its own: an HTTP
// service ([Open]), or the queue of an AMQP 0.9.1 broker such as RabbitMQ ([OpenBroker]).
//
// # What an HTTP service is sent
//
// One POST to the configured URL for each item. Everything about the subject stands in the
// body, so that it ends in no access log:
//
//	POST /crossroads/items HTTP/1.1
//	Content-Type: application/json
//	Idempotency-Key: "nsso/n1/1764169711000017"
//	Authorization: Bearer <a line of the headers file>
//
//	{"id":1764169711000017,"kind":"notification","ticket":"…","from":"national-register",
//	 "dataset":"person-address/v1","purpose":"address-change",
//	 "subject":{"scheme":"ssin","number":"74071238186"},
//	 "period":{"from":"2026-01-02","until":null},"fields":["street"],"change":"CHANGED",
//	 "received":"2026-01-02T10:11:12.345Z","records":[{"street":"Kouter"}]}
//
// These are the words of POST /v1/inbox/take, see GET /openapi.json. The same item makes
// the same bytes each time, under the same Idempotency-Key (the node and the item's id),
// which no other item ever has. The service keeps the key with what it made of the item,
// and answers a key that it has with 200.
//
// # What it answers
//
// Any 2xx: it holds the item durably, and is not sent it again. The body is ignored.
//
// Status 408, 409, 425, 429 and 5xx, no connection and no answer in time: it is sent the
// item again, ever later, and not before Retry-After. Any other 4xx: the item is set aside
// (push.ErrRefused). Status 401, 403, 404, 405, 407, 410, 421 and every redirect: nothing
// is sent for a while (push.ErrMisconfigured); redirects are not followed, for they would
// carry the item and the headers elsewhere. No error repeats anything of the item or of
// the answer but the status.
//
// # What a broker is sent
//
// One message for each item, to the configured exchange under the configured routing key:
// persistent, mandatory, with the same body, content-type application/json, and the key
// as its message-id. The item counts as handed over once the broker has confirmed it
// (publisher confirms), which it does when it holds it as durably as the queue is declared
// to. **Declare the queue durable**; on RabbitMQ best as a quorum queue.
//
// The broker's consumer keeps the message-id with what it made of the item, in one
// transaction, before it acknowledges: whatever ends between publishing and confirmation
// has the same item sent again.
//
// No connection, no confirmation in time, and a broker that does not take the message:
// it is sent again, ever later. Nobody's queue behind the exchange (the message comes
// back), no such exchange or virtual host, wrong credentials: nothing is sent for a while
// (push.ErrMisconfigured). Too large for the broker: set aside (push.ErrRefused).
package push

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
)

// ErrConfig is wrapped by the errors of Open.
var ErrConfig = errors.New("push misconfigured")

// Limits.
const (
	maxHeaders = 16 << 10
	maxAnswer  = 64 << 10 // of which is read, so that the connection can be used again
)

// Target is one HTTP service. It is safe for concurrent use.
type Target struct {
	url     string
	headers string
	client  *http.Client
}

var _ push.Target = (*Target)(nil)

// Open checks cfg and makes the target. It does not connect.
func Open(cfg config.Push) (*Target, error) {
	if u, err := url.Parse(cfg.URL); err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%w: url: want https://host/path, without user or password (put them into headers_file)", ErrConfig)
	}
	t := &Target{url: cfg.URL, headers: cfg.HeadersFile}
	if _, err := t.header(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	secure, err := trusting(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	conns := max(cfg.AtOnce, push.DefaultAtOnce)
	t.client = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{ // no proxy: the item goes to the service and to nobody else
			TLSClientConfig: secure, ForceAttemptHTTP2: true, DisableCompression: true,
			MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: push.DefaultTimeout, MaxResponseHeaderBytes: 64 << 10,
		},
	}
	return t, nil
}

// trusting believes certificates of a file; empty: those that this machine trusts.
func trusting(caFile string) (*tls.Config, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return secure, nil
	}
	raw, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("%w: ca_file: %w", ErrConfig, err)
	}
	secure.RootCAs = x509.NewCertPool()
	if !secure.RootCAs.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%w: ca_file %s: holds no certificate (PEM)", ErrConfig, caFile)
	}
	return secure, nil
}

// Close ends idle connections.
func (t *Target) Close() error {
	t.client.CloseIdleConnections()
	return nil
}

// ours are headers that no file may set.
var ours = map[string]bool{"Content-Type": true, "Content-Length": true, "Content-Encoding": true, "Transfer-Encoding": true, "Connection": true, "Idempotency-Key": true, "Host": true}

// header reads the headers file, anew for each item so that a token can be changed without
// a restart. Errors quote no value.
func (t *Target) header() (http.Header, error) {
	h := http.Header{}
	if t.headers == "" {
		return h, nil
	}
	f, err := os.Open(t.headers)
	if err != nil {
		return nil, fmt.Errorf("headers_file: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxHeaders+1))
	if err != nil {
		return nil, fmt.Errorf("headers_file: %w", err)
	}
	if len(raw) > maxHeaders {
		return nil, fmt.Errorf("headers_file %s: larger than %d bytes", t.headers, maxHeaders)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxHeaders+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if !ok || !token(name) || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, fmt.Errorf("headers_file %s, line %d: want Name: value, in printable characters", t.headers, n)
		}
		if ours[http.CanonicalHeaderKey(name)] {
			return nil, fmt.Errorf("headers_file %s, line %d: the node sets %s itself", t.headers, n, http.CanonicalHeaderKey(name))
		}
		h.Add(name, value)
	}
	return h, nil
}

func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

// Push sends one item.
func (t *Target) Push(ctx context.Context, m push.Message) error {
	h, err := t.header()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(m.Body))
	if err != nil {
		return fmt.Errorf("%w: url", push.ErrMisconfigured) // Open has checked it
	}
	req.Header = h
	if h.Get("User-Agent") == "" {
		h.Set("User-Agent", "crossroads")
	}
	h.Set("Content-Type", "application/json")
	h.Set("Idempotency-Key", strconv.Quote(m.Key))
	resp, err := t.client.Do(req)
	if err != nil {
		return unavailable(err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // the status alone counts
	return judge(resp)
}

func judge(resp *http.Response) error {
	code := resp.StatusCode
	switch {
	case code >= 200 && code < 300:
		return nil
	case code >= 300 && code < 400:
		return fmt.Errorf("%w: status %d: redirects are not followed; configure the service's own url", push.ErrMisconfigured, code)
	}
	switch code {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return later(resp)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return fmt.Errorf("%w: status %d: see headers_file", push.ErrMisconfigured, code)
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusMisdirectedRequest:
		return fmt.Errorf("%w: status %d: see url", push.ErrMisconfigured, code)
	}
	if code >= 400 && code < 500 {
		return fmt.Errorf("%w: status %d", push.ErrRefused, code)
	}
	return later(resp)
}

// later is for a status that is worth another try.
func later(resp *http.Response) error {
	err := fmt.Errorf("status %d", resp.StatusCode)
	after := resp.Header.Get("Retry-After")
	var wait time.Duration
	if s, bad := strconv.ParseUint(after, 10, 31); bad == nil {
		wait = time.Duration(s) * time.Second
	} else if at, bad := http.ParseTime(after); bad == nil {
		wait = time.Until(at)
	}
	if wait <= 0 {
		return err
	}
	return fmt.Errorf("%w: %w", err, &push.Later{After: wait})
}

// unavailable hides what the client's errors may quote, but for what says where the
// connection failed.
func unavailable(err error) error {
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &network):
		return network
	}
	return errors.New("the connection broke")
}
