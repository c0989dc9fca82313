package mesh_test

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/mesh/meshtest"
)

const requestSize, replySize = 256, 1024

// BenchmarkCall compares calls of 256 B → 1 KB with the same on bare QUIC streams, a
// fresh stream each: what the mesh adds is framing, protobuf, quotas and deadlines.
func BenchmarkCall(b *testing.B) {
	for _, inFlight := range []int{1, 64} {
		name := map[int]string{1: "1", 64: "64"}[inFlight]
		b.Run("mesh/"+name, func(b *testing.B) { benchmark(b, inFlight, meshCaller(b)) })
		b.Run("bare/"+name, func(b *testing.B) { benchmark(b, inFlight, bareCaller(b)) })
	}
}

func benchmark(b *testing.B, inFlight int, call func() error) {
	if err := call(); err != nil { // connects
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	var wg sync.WaitGroup
	work := make(chan struct{}, inFlight)
	for range inFlight {
		wg.Go(func() {
			for range work {
				if err := call(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/call") // of both ends
}

// cpuTime is what the process has used; unlike the clock it does not notice neighbours.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func socket(b *testing.B) net.PacketConn {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func meshCaller(b *testing.B) func() error {
	ca := meshtest.NewCA(b)
	open := func(name string) (*mesh.Endpoint, mesh.Peer) {
		creds := ca.Credentials(uri(name))
		e, err := mesh.Listen(mesh.Config{
			Packets: socket(b), Credentials: creds, Quota: mesh.Quota{PerSecond: 1e9, Burst: 1e9},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { e.Close() })
		return e, mesh.Peer{ID: creds.ID(), Addr: e.Addr().String()}
	}
	server, to := open("b")
	reply := make([]byte, replySize)
	mesh.Handle(server, "get", mesh.Limits{}, func(context.Context, spiffeid.ID, *blob) (*blob, error) {
		return wrapperspb.Bytes(reply), nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-ended })
	client, _ := open("a")
	req := wrapperspb.Bytes(make([]byte, requestSize))
	return func() error { return client.Call(context.Background(), to, "get", req, new(blob)) }
}

func bareCaller(b *testing.B) func() error {
	ca := meshtest.NewCA(b)
	server := &quic.Transport{Conn: socket(b)}
	client := &quic.Transport{Conn: socket(b)}
	l, err := server.Listen(ca.Credentials(uri("b")).ServerTLS("bare"), &quic.Config{MaxIncomingStreams: 1 << 16})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		for {
			s, err := conn.AcceptStream(context.Background())
			if err != nil {
				return
			}
			wg.Go(func() {
				io.ReadFull(s, make([]byte, requestSize))
				s.Write(make([]byte, replySize))
				s.Close()
			})
		}
	})
	conn, err := client.Dial(context.Background(), server.Conn.LocalAddr(), ca.Credentials(uri("a")).ClientTLS(meshtest.ID(b, uri("b")), "bare"), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		conn.CloseWithError(0, "")
		l.Close()
		wg.Wait()
		for _, tr := range []*quic.Transport{server, client} {
			tr.Close()
			tr.Conn.Close()
		}
	})
	return func() error {
		s, err := conn.OpenStreamSync(context.Background())
		if err != nil {
			return err
		}
		if _, err := s.Write(make([]byte, requestSize)); err != nil {
			return err
		}
		s.Close()
		_, err = io.Copy(io.Discard, s)
		return err
	}
}
