package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"time"

	"github.com/crossroads-mesh/crossroads/mesh/bare"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

const questionBytes = 256 // of what references send; they receive as many as an answer of the network has

// references are what the same machine does without any of it.
type references struct {
	servers []*httptest.Server
	client  *http.Client
	front   string
	quic    *bare.Pair
	dir     string
}

// openReferences stands up a client, a proxy at each of two institutions, and a
// service, with mutual TLS on every hop, and a pair on QUIC.
func openReferences(ctx context.Context, answerBytes int) (_ *references, err error) {
	r := &references{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.dir, err = os.MkdirTemp("", "crossroads-bench-"); err != nil {
		return nil, err
	}
	answer := bytes.Repeat([]byte("x"), answerBytes)
	service := r.serve(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		_, _ = w.Write(answer)
	}))
	supplier, err := r.forward(service)
	if err != nil {
		return nil, err
	}
	consultant, err := r.forward(supplier)
	if err != nil {
		return nil, err
	}
	r.client, r.front = clientOf(consultant), consultant.URL
	r.quic, err = bare.Open(ctx, service.TLS.Certificates[0], questionBytes, answerBytes)
	return r, err
}

func (r *references) close() {
	for _, s := range r.servers {
		s.CloseClientConnections()
		s.Close()
	}
	if r.quic != nil {
		_ = r.quic.Close()
	}
	_ = os.RemoveAll(r.dir)
}

func (r *references) serve(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	r.servers = append(r.servers, s)
	return s
}

func (r *references) forward(to *httptest.Server) (*httptest.Server, error) {
	target, err := url.Parse(to.URL)
	if err != nil {
		return nil, err
	}
	p := httputil.NewSingleHostReverseProxy(target)
	p.Transport = clientOf(to).Transport
	return r.serve(p), nil
}

func clientOf(s *httptest.Server) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 512,
		TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: s.TLS.Certificates, ServerName: "example.com"},
	}}
}

// proxy makes one call through both proxies.
func (r *references) proxy(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.front, bytes.NewReader(make([]byte, questionBytes)))
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// warm makes the connections of k callers, so that no handshake is measured: there
// must be an idle one for each on every hop.
func (r *references) warm(ctx context.Context, k int) error {
	for calls := 0; calls < 8*k; {
		s, err := closedLoop(ctx, k, 200*time.Millisecond, func(ctx context.Context, _ int) error { return r.proxy(ctx) })
		if err != nil {
			return err
		}
		calls += s.Count
	}
	return nil
}

// fsyncs writes 4 KB into a file's zeros and syncs, one after the other.
func (r *references) fsyncs(d time.Duration) (m Measured, err error) {
	fs, err := disk.OpenDir(r.dir)
	if err != nil {
		return m, err
	}
	f, err := fs.Open("sync", true)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block := make([]byte, 4<<10)
	const blocks = 4096
	for i := range blocks {
		if _, err := f.WriteAt(block, int64(i*len(block))); err != nil {
			return m, err
		}
	}
	if err := f.Sync(); err != nil {
		return m, err
	}
	var took []time.Duration
	for begun := time.Now(); time.Since(begun) < d; {
		at := time.Now()
		block[0]++
		if _, err := f.WriteAt(block, int64(len(took)%blocks*len(block))); err != nil {
			return m, err
		}
		if err := f.Sync(); err != nil {
			return m, err
		}
		took = append(took, time.Since(at))
	}
	return measuredOf(took, d), nil
}
