package certs_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/crossroads-mesh/crossroads/certs"
)

// TestNoSessionOverQUIC comes back over QUIC with whatever session it was given,
// and with early data, to a listener that carelessly allows 0-RTT.
func TestNoSessionOverQUIC(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	var suspended atomic.Bool
	server := certs.NewTLS(source(t, a, "server"), mesh, func(spiffeid.ID) error {
		if suspended.Load() {
			return errors.New("suspended")
		}
		return nil
	})
	l := must[*quic.EarlyListener](t)(quic.ListenAddrEarly("127.0.0.1:0", server.ServerTLS("x/1"), &quic.Config{Allow0RTT: true}))
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			if s, err := c.AcceptStream(ctx); err == nil {
				_, _ = io.Copy(s, s)
				_ = s.Close()
				<-c.Context().Done()
			}
		}
	}()
	defer func() {
		stop()
		_ = l.Close()
		<-done
	}()

	client := certs.NewTLS(source(t, a, "client"), mesh, anyone).ClientTLS(nodeID(t, "server"), "x/1")
	client.SessionTicketsDisabled = false
	client.ServerName = "server"
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	visit := func() (quic.ConnectionState, error) {
		c, err := quic.DialAddrEarly(ctx, l.Addr().String(), client, nil)
		if err != nil {
			return quic.ConnectionState{}, err
		}
		defer func() { _ = c.CloseWithError(0, "") }()
		s, err := c.OpenStreamSync(ctx)
		if err != nil {
			return quic.ConnectionState{}, err
		}
		if _, err := s.Write([]byte("hello")); err != nil {
			return quic.ConnectionState{}, err
		}
		if err := s.Close(); err != nil {
			return quic.ConnectionState{}, err
		}
		_, err = io.ReadAll(s)
		return c.ConnectionState(), err
	}
	for range 2 {
		state, err := visit()
		if err != nil {
			t.Fatal(err)
		}
		if state.TLS.DidResume || state.Used0RTT {
			t.Fatalf("resumed: %v, early data: %v", state.TLS.DidResume, state.Used0RTT)
		}
	}
	suspended.Store(true)
	if _, err := visit(); err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("the suspended peer came back: %v", err)
	}
}
