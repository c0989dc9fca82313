package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
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

// What is appended together is one run of the journal, in order, if nothing else is; one
// entry that is not fit keeps all of them out.
func TestAppendAll(t *testing.T) {
	cfg := Config{FS: disktest.New()}
	j := open(t, cfg)
	ctx := context.Background()
	var many []*nodepb.Entry
	for i := range 2*maxGroup + 7 {
		many = append(many, entry(i))
	}
	if err := j.AppendAll(ctx, many); err != nil {
		t.Fatal(err)
	}
	if err := j.AppendAll(ctx, nil); err != nil {
		t.Fatal(err)
	}
	bad := entry(1)
	bad.Role = 0
	if err := j.AppendAll(ctx, []*nodepb.Entry{entry(1), bad}); !errors.Is(err, ErrRefused) {
		t.Fatalf("%v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.AppendAll(ctx, many[:1]); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("closed: %v", err)
	}
	j = open(t, cfg)
	got := find(t, j, Query{Limit: 10_000})
	if len(got) != len(many) {
		t.Fatalf("%d entries, want %d", len(got), len(many))
	}
	for i, s := range got {
		if s.Sequence != uint64(i) || s.Entry.Ticket != many[i].Ticket {
			t.Fatalf("number %d: %d, %s", i, s.Sequence, s.Entry.Ticket)
		}
	}
}

func TestGuard(t *testing.T) {
	j := open(t, Config{FS: disktest.New()})
	for what, spoil := range map[string]func(*nodepb.Entry){
		"no time":       func(e *nodepb.Entry) { e.TimeUnixMs = 0 },
		"no role":       func(e *nodepb.Entry) { e.Role = 0 },
		"no event":      func(e *nodepb.Entry) { e.Event = 0 },
		"many subjects": func(e *nodepb.Entry) { e.AlsoSubjects = make([]*registrypb.Subject, MaxAlsoSubjects+1) },
		"empty subject": func(e *nodepb.Entry) { e.AlsoSubjects = []*registrypb.Subject{{Scheme: "ssin"}} },
		"another's number": func(e *nodepb.Entry) {
			e.AlsoSubjects, e.Detail = []*registrypb.Subject{{Scheme: "ssin", Number: "4711"}}, "of 4711"
		},
		"long detail":    func(e *nodepb.Entry) { e.Detail = strings.Repeat("x", MaxDetail+1) },
		"number":         func(e *nodepb.Entry) { e.Detail = "about " + e.Subject.Number },
		"short hash":     func(e *nodepb.Entry) { e.RequestHash = []byte("content") },
		"long hash":      func(e *nodepb.Entry) { e.AnswerCommitment = make([]byte, 33) },
		"long id":        func(e *nodepb.Entry) { e.ClearanceId = make([]byte, 33) },
		"unknown fields": func(e *nodepb.Entry) { e.ProtoReflect().SetUnknown([]byte{0xa2, 0x06, 1, 'x'}) },
		"too large":      func(e *nodepb.Entry) { e.Fields = []string{strings.Repeat("x", MaxEntry)} },
	} {
		e := entry(1)
		spoil(e)
		if _, err := j.Append(context.Background(), e); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		} else if strings.Contains(err.Error(), e.Subject.Number) {
			t.Errorf("%s: the error repeats the number: %v", what, err)
		}
	}
	if _, err := j.Append(context.Background(), nil); !errors.Is(err, ErrRefused) {
		t.Errorf("nil: %v", err)
	}
	if err := j.Healthy(); err != nil || j.Next() != 0 {
		t.Errorf("a refusal did harm: %v, %d", err, j.Next())
	}
}

// TestNothingInClear looks for what must not lie readable on the disk.
func TestNothingInClear(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	e := entry(1)
	e.Subject.Number, e.Ticket, e.User = "74071238186", "a-ticket-to-look-for", "a-user-to-look-for"
	add(t, j, e)
	find(t, j, Query{})
	j.Close()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, s := range []string{e.Subject.Number, e.Ticket, e.User} {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s holds %q", path, s)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLock(t *testing.T) {
	for _, cfg := range []Config{{FS: disktest.New(), Key: testKey}, {Dir: t.TempDir(), Key: testKey}} {
		j := open(t, cfg)
		if _, err := Open(cfg); !errors.Is(err, disk.ErrLocked) {
			t.Errorf("opened twice: %v", err)
		}
		j.Close()
		open(t, cfg).Close()
	}
}

func TestWrongKey(t *testing.T) {
	fs := disktest.New()
	j := open(t, Config{FS: fs})
	add(t, j, entry(0))
	j.Close()
	if _, err := Open(Config{FS: fs, Key: make([]byte, KeySize)}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another key: %v", err)
	}
	if _, err := Open(Config{FS: fs, Key: make([]byte, 16)}); err == nil {
		t.Error("a short key passed")
	}
	open(t, Config{FS: fs})
}

// TestPeriodKeyGone: without a month's key nothing of it can be read, and that
// does not go unnoticed; yet the commitments still can.
func TestPeriodKeyGone(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	add(t, j, entry(0))
	want := find(t, j, Query{})[0].Commitment
	j.Close()
	if err := os.Remove(filepath.Join(dir, "log", "key-2026-11")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, Key: testKey}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "key-2026-11") {
		t.Fatalf("%v", err)
	}
	fs, _ := disk.OpenDir(filepath.Join(dir, "log"))
	if _, err := Open(Config{FS: fs, Key: testKey}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("with a new index: %v", err)
	}
	f, err := fs.Open(segmentName(0), false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end, err := scan(f, 0, 10, func(_ location, h header, _ []byte) error {
		if h.commitment != want {
			t.Error("another commitment")
		}
		return nil
	})
	if err != nil || end.sequence != 1 {
		t.Fatalf("%+v %v", end, err)
	}
}

func TestCancelledAppend(t *testing.T) {
	j := open(t, Config{FS: disktest.New()})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for i := range 50 {
		if n, err := j.Append(ctx, entry(i)); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("%d, %v", n, err)
		}
	}
	n := add(t, j, entry(50))
	if got := find(t, j, Query{}); uint64(len(got)) != n+1 {
		t.Fatalf("%d entries, want %d", len(got), n+1)
	}
}

func TestClosed(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	j := open(t, Config{FS: disktest.New()})
	var all sync.WaitGroup
	acked := make(chan uint64, 1000)
	for range 16 {
		all.Go(func() {
			for i := 0; ; i++ {
				n, err := j.Append(context.Background(), entry(i))
				if errors.Is(err, ErrUnavailable) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case acked <- n:
				default:
				}
			}
		})
	}
	for range 200 {
		<-acked
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if _, err := j.Find(context.Background(), Query{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("find: %v", err)
	}
	if _, err := j.Verify(context.Background()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("verify: %v", err)
	}
	if j.Close() != nil || !errors.Is(j.Healthy(), ErrUnavailable) {
		t.Error("closing twice")
	}
}

// TestIndexLost rebuilds the index from the log, whole and in part.
func TestIndexLost(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Dir: dir, Key: testKey, SegmentSize: 4 << 10, ChunkSize: 1 << 10}
	for round := range 3 {
		j := open(t, cfg)
		for i := range 40 {
			add(t, j, entry(round*40+i))
		}
		if n := len(find(t, j, Query{})); n != (round+1)*40 {
			t.Fatalf("round %d: %d entries", round, n)
		}
		j.Close()
		if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMissingSegment takes a whole file away.
func TestMissingSegment(t *testing.T) {
	for _, first := range []bool{true, false} {
		dir := t.TempDir()
		cfg := Config{Dir: dir, Key: testKey, SegmentSize: 4 << 10, ChunkSize: 1 << 10}
		j := open(t, cfg)
		for i := range 60 {
			add(t, j, entry(i))
		}
		files, err := segments(j.fs)
		if err != nil || len(files) < 3 {
			t.Fatal(files, err)
		}
		gone := files[1]
		if first {
			gone = 0
		}
		if err := os.Rename(filepath.Join(dir, "log", segmentName(gone)), filepath.Join(dir, "elsewhere")); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Verify(context.Background()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("verify without %d: %v", gone, err)
		}
		if _, err := j.Find(context.Background(), Query{}); err == nil {
			t.Errorf("find without %d gave an answer", gone)
		}
		j.Close()
	}
}
