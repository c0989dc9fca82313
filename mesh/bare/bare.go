// Package bare is the reference that exchanges are measured against: round trips on
// streams of quic-go with mutual TLS on the loopback interface, which check, sign
// and log nothing. Nothing in a node uses it.
package bare

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const protocol = "crossroads-bare"

// Pair is a client and a server of this process, and one connection between them.
type Pair struct {
	request, reply []byte

	server, client *quic.Transport
	listener       *quic.Listener
	conn           *quic.Conn
	serving        sync.WaitGroup
}

// Open makes a pair whose calls carry so many bytes each way. Both sides show cert,
// and each insists that the other shows one. The caller closes it.
func Open(ctx context.Context, cert tls.Certificate, request, reply int) (_ *Pair, err error) {
	p := &Pair{request: make([]byte, request), reply: make([]byte, reply)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("bare QUIC: %w", err), p.Close())
		}
	}()
	for _, t := range []**quic.Transport{&p.server, &p.client} {
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*t = &quic.Transport{Conn: socket}
	}
	with := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol}, Certificates: []tls.Certificate{cert},
		ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true, // it measures, and carries nothing
	}
	if p.listener, err = p.server.Listen(with, &quic.Config{MaxIncomingStreams: 1 << 16}); err != nil {
		return nil, err
	}
	p.serving.Go(p.serve)
	p.conn, err = p.client.Dial(ctx, p.server.Conn.LocalAddr(), with, &quic.Config{KeepAlivePeriod: 5 * time.Second})
	return p, err
}

func (p *Pair) serve() {
	conn, err := p.listener.Accept(context.Background())
	if err != nil {
		return
	}
	for {
		s, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		p.serving.Go(func() {
			if _, err := io.ReadFull(s, make([]byte, len(p.request))); err == nil {
				_, _ = s.Write(p.reply)
			}
			_ = s.Close()
		})
	}
}

// Call makes one round trip on a stream of its own. It is safe for concurrent use.
func (p *Pair) Call(ctx context.Context) error {
	s, err := p.conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := s.Write(p.request); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, s)
	return err
}

// Close ends both sides and waits for what they serve.
func (p *Pair) Close() error {
	var errs []error
	if p.conn != nil {
		errs = append(errs, p.conn.CloseWithError(0, ""))
	}
	if p.listener != nil {
		errs = append(errs, p.listener.Close())
	}
	p.serving.Wait()
	for _, t := range []*quic.Transport{p.server, p.client} {
		if t != nil {
			errs = append(errs, t.Close(), t.Conn.Close())
		}
	}
	return errors.Join(errs...)
}
