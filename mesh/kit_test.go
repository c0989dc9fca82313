package mesh_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/mesh/meshpb"
	"github.com/crossroads-mesh/crossroads/mesh/meshtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	text  = wrapperspb.StringValue
	blob  = wrapperspb.BytesValue
	admit struct { // changes who is admitted
		mu  sync.Mutex
		out map[spiffeid.ID]error
	}
)

func (a *admit) refuse(id spiffeid.ID, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.out == nil {
		a.out = make(map[spiffeid.ID]error)
	}
	a.out[id] = err
}

func (a *admit) ask(id spiffeid.ID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out[id]
}

// world is a network with an authority; make it within a synctest bubble.
type world struct {
	t  *testing.T
	nw *meshtest.Network
	ca *meshtest.CA
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, nw: meshtest.New(7), ca: meshtest.NewCA(t)}
	w.nw.SetDelay(meshtest.Any, meshtest.Any, 5*time.Millisecond)
	return w
}

func uri(name string) string { return "spiffe://mesh.test/" + name }

func (w *world) peer(name string) mesh.Peer {
	return mesh.Peer{ID: meshtest.ID(w.t, uri(name)), Addr: addrOf(name)}
}

// addrOf gives the node whose name is one letter its address.
func addrOf(name string) string { return "10.0.0." + string('1'+name[0]-'a') + ":1" }

// listen opens an endpoint that does not run yet.
func (w *world) listen(name string, change ...func(*mesh.Config)) *mesh.Endpoint {
	w.t.Helper()
	cfg := mesh.Config{Packets: w.nw.Listen(addrOf(name)), Credentials: w.ca.Credentials(uri(name))}
	for _, c := range change {
		c(&cfg)
	}
	e, err := mesh.Listen(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { e.Close() })
	return e
}

// run starts e and gives the func that stops it and waits.
func run(t *testing.T, e *mesh.Endpoint) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// echo serves "echo", which answers with what it got.
func echo(e *mesh.Endpoint) {
	mesh.Handle(e, "echo", mesh.Limits{}, func(_ context.Context, _ spiffeid.ID, req *text) (*text, error) {
		return req, nil
	})
}

// node is an endpoint that serves echo and what serve adds.
func (w *world) node(name string, serve func(*mesh.Endpoint), change ...func(*mesh.Config)) (e *mesh.Endpoint, stop func()) {
	w.t.Helper()
	e = w.listen(name, change...)
	echo(e)
	if serve != nil {
		serve(e)
	}
	stop = run(w.t, e)
	w.t.Cleanup(stop)
	return e, stop
}

func ask(ctx context.Context, e *mesh.Endpoint, to mesh.Peer, method, s string) (string, error) {
	resp := new(text)
	err := e.Call(ctx, to, method, wrapperspb.String(s), resp)
	return resp.Value, err
}

func mustEcho(t *testing.T, e *mesh.Endpoint, to mesh.Peer) {
	t.Helper()
	if got, err := ask(t.Context(), e, to, "echo", "hello"); err != nil || got != "hello" {
		t.Fatalf("echo: got %q, %v", got, err)
	}
}

func wantCode(t *testing.T, err error, want mesh.Code) {
	t.Helper()
	if mesh.CodeOf(err) != want {
		t.Fatalf("got %v (%s), want %s", err, mesh.CodeOf(err), want)
	}
}

// logged collects log lines.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// rogue is a peer with good credentials that does not keep to the protocol.
func (w *world) rogue(name string, to mesh.Peer, alpn string) *quic.Conn {
	w.t.Helper()
	return w.rogueAt(addrOf(name), name, to, alpn)
}

func (w *world) rogueAt(at, name string, to mesh.Peer, alpn string) *quic.Conn {
	w.t.Helper()
	tr := &quic.Transport{Conn: w.nw.Listen(at)}
	addr, err := net.ResolveUDPAddr("udp", to.Addr)
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := tr.Dial(w.t.Context(), addr, w.ca.Credentials(uri(name)).ClientTLS(to.ID, alpn), &quic.Config{KeepAlivePeriod: time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		conn.CloseWithError(0, "")
		tr.Close()
		tr.Conn.Close()
	})
	return conn
}

func rawStream(t *testing.T, c *quic.Conn, b []byte) *quic.Stream {
	t.Helper()
	s, err := c.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
	return s
}

// frame is a well-formed frame.
func frame(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func header(t *testing.T, method string) []byte {
	return frame(t, &meshpb.CallHeader{Method: method, TimeoutMs: 60_000})
}

// status reads the status of a raw answer.
func status(t *testing.T, s *quic.Stream) *meshpb.Status {
	t.Helper()
	var n [4]byte
	if _, err := io.ReadFull(s, n[:]); err != nil {
		t.Fatalf("no answer: %v", err)
	}
	b := make([]byte, binary.BigEndian.Uint32(n[:]))
	if _, err := io.ReadFull(s, b); err != nil {
		t.Fatal(err)
	}
	hdr := new(meshpb.ReplyHeader)
	if err := proto.Unmarshal(b, hdr); err != nil {
		t.Fatal(err)
	}
	return hdr.Status
}
