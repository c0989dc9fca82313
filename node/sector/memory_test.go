package sector

import (
	"context"
	"crypto/rand"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// memory is a journal in memory, which fails when told.
type memory struct {
	mu     sync.Mutex
	stored []journal.Stored
	// fail gives an error instead of an outcome; kept says whether the entry reached the
	// disk all the same.
	fail func(*nodepb.Entry) (kept bool, err error)
}

func (j *memory) Append(_ context.Context, e *nodepb.Entry) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	kept, failed := j.fails(e)
	if !kept {
		return 0, failed
	}
	sequence, err := j.keep(e)
	return sequence, cmpErr(failed, err)
}

// AppendAll keeps all of them or none, as one write does.
func (j *memory) AppendAll(_ context.Context, entries []*nodepb.Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var failed error
	for _, e := range entries {
		kept, err := j.fails(e)
		if !kept {
			return err
		}
		failed = cmpErr(failed, err)
	}
	for _, e := range entries {
		_, err := j.keep(e)
		failed = cmpErr(failed, err)
	}
	return failed
}

func (j *memory) fails(e *nodepb.Entry) (kept bool, err error) {
	if j.fail != nil {
		kept, err = j.fail(e)
	}
	return kept || err == nil, err
}

func (j *memory) keep(e *nodepb.Entry) (uint64, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	s := journal.Stored{Sequence: uint64(len(j.stored)), Entry: proto.CloneOf(e), Raw: raw}
	rand.Read(s.Salt[:])
	s.Commitment = journal.EntryCommitment(s.Salt, raw)
	j.stored = append(j.stored, s)
	return s.Sequence, err
}

func (j *memory) Find(_ context.Context, q journal.Query) (found []journal.Stored, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.stored {
		about := s.Entry.GetSubject().GetNumber() == q.Subject.Number() || journal.InLot(s.Entry, q.Subject) != nil
		for _, also := range s.Entry.GetAlsoSubjects() {
			about = about || also.GetNumber() == q.Subject.Number()
		}
		if (q.Ticket == "" || s.Entry.GetTicket() == string(q.Ticket)) && (q.Subject.IsZero() || about) {
			found = append(found, s)
		}
	}
	return found, nil
}

func (j *memory) of(event nodepb.Event) (found []*nodepb.Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.stored {
		if s.Entry.GetEvent() == event {
			found = append(found, s.Entry)
		}
	}
	return found
}

func (j *memory) size() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.stored)
}
