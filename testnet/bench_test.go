package testnet

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkExchange measures whole consultations through the HTTP API, and beside
// them, in the same run, what the same machine does with a bare two-hop
// mutual-TLS reverse proxy, which checks, signs and logs nothing.
//
//	go test ./testnet -run '^$' -bench Exchange -benchtime 3s
func BenchmarkExchange(b *testing.B) {
	n := start(b, Options{Persons: 10_000, Log: slog.New(slog.DiscardHandler)})
	examples := answered(n, "")
	proxy := startProxy(b)
	for _, inFlight := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("consultation/in-flight=%d", inFlight), func(b *testing.B) {
			measure(b, inFlight, func(i int) error {
				e := examples[i%len(examples)]
				got, err := n.Consult(b.Context(), e.Consultation, "")
				if err == nil && got.Status != "DATA_FOUND" {
					err = fmt.Errorf("got %s %s", got.Status, got.Reason)
				}
				return err
			})
		})
		b.Run(fmt.Sprintf("bare-proxy/in-flight=%d", inFlight), func(b *testing.B) {
			measure(b, inFlight, func(int) error { return proxy(b.Context()) })
		})
	}
}

// measure keeps inFlight calls under way and reports rate and quantiles.
func measure(b *testing.B, inFlight int, call func(i int) error) {
	b.Helper()
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var workers sync.WaitGroup
	b.ResetTimer()
	for range inFlight {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				begun := time.Now()
				if err := call(i); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(begun)
			}
		})
	}
	workers.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "per-s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// startProxy stands up a client, a proxy at each of two institutions, and a
// service, with mutual TLS on every hop, and gives one call through all of it.
func startProxy(b *testing.B) func(context.Context) error {
	b.Helper()
	answer := bytes.Repeat([]byte("x"), 1024)
	service := mutual(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(answer)
	}))
	supplier := mutual(b, forward(b, service))
	consultant := mutual(b, forward(b, supplier))
	client := clientOf(consultant)
	question := bytes.Repeat([]byte("q"), 256)
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, consultant.URL, bytes.NewReader(question))
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
}

func mutual(b *testing.B, h http.Handler) *httptest.Server {
	b.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	b.Cleanup(s.Close)
	return s
}

func clientOf(s *httptest.Server) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 512,
		TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: s.TLS.Certificates, ServerName: "example.com"},
	}}
}

func forward(b *testing.B, to *httptest.Server) http.Handler {
	b.Helper()
	target, err := url.Parse(to.URL)
	if err != nil {
		b.Fatal(err)
	}
	p := httputil.NewSingleHostReverseProxy(target)
	p.Transport = clientOf(to).Transport
	return p
}
