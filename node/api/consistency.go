package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// Reads gives views as new as wanted; registry.Registry is one.
type Reads interface {
	Read(ctx context.Context, want registry.Reading, fn func(v record.View, age time.Duration) error) error
	Rules() *record.Rules
}

// registryAsIs is what this node holds.
var registryAsIs registry.Reading

// consistencyQuery are the parameters of routes that show public tables.
var consistencyQuery = []string{"consistency", "max_stale"}

// reading reads how new a view the caller wants. A linearizable one costs the leader
// work, so it takes a token.
func (s *Server) reading(q *request) (r registry.Reading, err error) {
	v := q.URL.Query()
	if c := v.Get("consistency"); c != "" {
		if r.Consistency, err = registry.ParseConsistency(c); err != nil {
			return r, problem(CodeMalformed, "consistency", "Want stale, lease or linearizable.")
		}
	}
	if m := v.Get("max_stale"); m != "" {
		if r.MaxStale, err = time.ParseDuration(m); err != nil || r.MaxStale <= 0 || r.Consistency != registry.Stale {
			return r, problem(CodeMalformed, "max_stale", "Want a duration like 30s, with consistency=stale.")
		}
	}
	if r.Consistency == registry.Linearizable && q.app == s.public {
		who := *q // the slot that q holds is everybody's
		return r, s.authenticate(&who, token)
	}
	return r, nil
}

// readView calls fn with a view as new as q wants.
func (s *Server) readView(q *request, fn func(v record.View, age time.Duration) error) error {
	want, err := s.reading(q)
	if err != nil {
		return err
	}
	err = s.cfg.Reads.Read(q.Context(), want, fn)
	if errors.Is(err, registry.ErrStale) {
		return fmt.Errorf("%w: %w", problem(CodeUnavailable, "consistency", "No view as new as that is to be had now; see GET /readyz, or ask with consistency=stale."), err)
	}
	return err
}
