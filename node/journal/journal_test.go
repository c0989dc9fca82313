package journal

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var testKey = bytes.Repeat([]byte{7}, KeySize)

var epoch = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// entry makes the n-th entry of a test, one second after the one before.
func entry(n int) *nodepb.Entry {
	return &nodepb.Entry{
		TimeUnixMs: epoch.Add(time.Duration(n) * time.Second).UnixMilli(),
		Role:       nodepb.Role_CONSULTANT, Event: nodepb.Event_REQUESTED,
		Ticket: fmt.Sprintf("ticket-%06d", n), User: fmt.Sprintf("user-%d", n%3),
		Requester: &registrypb.NodeRef{Institution: "pcsa-ghent", Node: "n1"},
		Subject:   &registrypb.Subject{Scheme: "ssin", Number: fmt.Sprintf("%011d", n%5)},
		Detail:    fmt.Sprintf("entry %d", n),
	}
}

func open(t testing.TB, cfg Config) *Journal {
	t.Helper()
	if cfg.Key == nil {
		cfg.Key = testKey
	}
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func add(t testing.TB, j *Journal, e *nodepb.Entry) uint64 {
	t.Helper()
	n, err := j.Append(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func find(t testing.TB, j *Journal, q Query) []Stored {
	t.Helper()
	found, err := j.Find(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAppendAndFind(t *testing.T) {
	for _, where := range []string{"directory", "memory"} {
		t.Run(where, func(t *testing.T) {
			cfg := Config{FS: disktest.New()}
			if where == "directory" {
				cfg = Config{Dir: t.TempDir()}
			}
			j := open(t, cfg)
			for i := range 20 {
				if n := add(t, j, entry(i)); n != uint64(i) {
					t.Fatalf("entry %d got number %d", i, n)
				}
				if got := find(t, j, Query{Ticket: "ticket-000003"}); i >= 3 && len(got) != 1 {
					t.Fatalf("found %d", len(got))
				}
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			j = open(t, cfg)
			if got := find(t, j, Query{}); len(got) != 20 {
				t.Fatalf("%d entries after opening again", len(got))
			}
			if n := add(t, j, entry(20)); n != 20 {
				t.Fatalf("number %d", n)
			}
		})
	}
}
