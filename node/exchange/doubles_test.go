package exchange

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	nodejournal "github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

var errDisk = errors.New("disk full")

// journal keeps entries in memory, and fails when told.
type journal struct {
	n       *testNode
	mu      sync.Mutex
	entries []*nodepb.Entry
	fail    func(e *nodepb.Entry) error
	real    *nodejournal.Journal // if there is one, it must take every entry
}

// realJournal lets an institution's journal be a real one, which is choosy.
func (w *world) realJournal(institution string) *nodejournal.Journal {
	w.t.Helper()
	real, err := nodejournal.Open(nodejournal.Config{FS: disktest.New(), Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = real.Close() })
	w.node(institution).journal.real = real
	return real
}

func (j *journal) Append(ctx context.Context, e *nodepb.Entry) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if j.fail != nil {
		if err := j.fail(e); err != nil {
			return 0, err
		}
	}
	if j.real != nil {
		if _, err := j.real.Append(ctx, e); err != nil {
			return 0, err
		}
	}
	j.entries = append(j.entries, proto.Clone(e).(*nodepb.Entry))
	j.n.w.log.add("%s journal %s", j.n.id.Institution, e.GetEvent())
	return uint64(len(j.entries) - 1), nil
}

func (j *journal) setFail(f func(e *nodepb.Entry) error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fail = f
}

func (j *journal) all() []*nodepb.Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.entries)
}

// of gives the entries of one kind.
func (j *journal) of(event nodepb.Event) (found []*nodepb.Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.entries {
		if e.GetEvent() == event {
			found = append(found, e)
		}
	}
	return found
}

func failing(*nodepb.Entry) error { return errDisk }

// faultyOutbox fails writes when told: before they are made, or after.
type faultyOutbox struct {
	*outbox.Outbox
	mu            sync.Mutex
	before, after func() error
}

func (f *faultyOutbox) Write(changes ...outbox.Change) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	if err := f.Outbox.Write(changes...); err != nil || after == nil {
		return err
	}
	return after()
}

// source is an institution's own system.
type source struct {
	n       *testNode
	mu      sync.Mutex
	records []Record
	err     error
	hook    func(ctx context.Context, q Query)
	last    Query
}

func (s *source) Fetch(ctx context.Context, q Query) ([]Record, error) {
	s.mu.Lock()
	records, err, hook := s.records, s.err, s.hook
	s.last = q
	s.mu.Unlock()
	s.n.w.log.add("%s fetch", s.n.id.Institution)
	if hook != nil {
		hook(ctx, q)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return records, err
}

func (s *source) set(records []Record, err error, hook func(context.Context, Query)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records, s.err, s.hook = records, err, hook
}
