package sector

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// source is an institution's own system.
type source struct {
	mu      sync.Mutex
	records map[subject.ID][]exchange.Record
	failing map[subject.ID]bool
	err     error
	delay   time.Duration
	asked   []exchange.Query
}

func (s *source) Fetch(ctx context.Context, q exchange.Query) ([]exchange.Record, error) {
	s.mu.Lock()
	records, err, delay := s.records[q.Subject], s.err, s.delay
	if s.failing[q.Subject] {
		err = errors.New("no such table")
	}
	s.asked = append(s.asked, q)
	s.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return records, err
}

func (s *source) fetched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func (s *source) set(id subject.ID, records ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[id] = nil
	for _, r := range records {
		s.records[id] = append(s.records[id], exchange.Record(r))
	}
}

var errLost = errors.New("lost")

// inbox keeps what is delivered, in memory.
type inbox struct {
	mu   sync.Mutex
	took []Delivered
	err  error
}

func (b *inbox) Accept(_ context.Context, d Delivered) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	for _, o := range b.took {
		if o.Publisher == d.Publisher && o.ID == d.ID {
			return nil
		}
	}
	b.took = append(b.took, d)
	return nil
}
