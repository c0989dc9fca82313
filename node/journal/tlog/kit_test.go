package tlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const testOrigin = "demo.example/journal/pcsa-ghent/n1"

var (
	testKey    = bytes.Repeat([]byte{7}, journal.KeySize)
	testSigner = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	testPublic = testSigner.Public().(ed25519.PublicKey)
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func entry(n int) *nodepb.Entry {
	return &nodepb.Entry{
		TimeUnixMs: start.Add(time.Duration(n) * time.Second).UnixMilli(),
		Role:       nodepb.Role_CONSULTANT, Event: nodepb.Event_REQUESTED,
		Ticket: fmt.Sprintf("ticket-%06d", n), User: fmt.Sprintf("user-%d", n%3),
		Requester: &registrypb.NodeRef{Institution: "pcsa-ghent", Node: "n1"},
		Subject:   &registrypb.Subject{Scheme: "ssin", Number: fmt.Sprintf("%011d", n%5)},
		Detail:    fmt.Sprintf("entry %d", n),
	}
}

// fakeJournal holds commitments only.
type fakeJournal struct {
	mu   sync.Mutex
	list [][32]byte
	hole bool // entries are there, and cannot be read
}

func (f *fakeJournal) add(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range n {
		f.list = append(f.list, sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(len(f.list)))))
	}
}

func (f *fakeJournal) Next() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(len(f.list))
}

func (f *fakeJournal) Commitments(ctx context.Context, from, until uint64, fn func([32]byte) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hole {
		return journal.ErrCorrupt
	}
	for _, c := range f.list[from:until] {
		if err := fn(c); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// never is how often a test lets the goroutine make checkpoints: it does so itself.
const never = 1000 * time.Hour

func testConfig(j Journal, fs disk.FS) Config {
	return Config{Journal: j, Checkpoints: fs, Tiles: fs, Origin: testOrigin, Signer: testSigner, Every: never}
}

func openLog(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func publish(t testing.TB, l *Log) Checkpoint {
	t.Helper()
	if err := l.Publish(context.Background()); err != nil {
		t.Fatal(err)
	}
	c, err := OpenCheckpoint(testOrigin, testPublic, l.Checkpoint())
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Latest(); got.Size != c.Size || got.Root != c.Root {
		t.Fatalf("the note says %d %v, the log %d %v", c.Size, c.Root, got.Size, got.Root)
	}
	return c
}

// logged collects what is logged.
func logged() (*slog.Logger, *bytes.Buffer) {
	b := new(bytes.Buffer)
	return slog.New(slog.NewTextHandler(b, nil)), b
}
