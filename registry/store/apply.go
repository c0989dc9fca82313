package store

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/registry/record"
)

// A Badger transaction takes 15 % of the memory table in bytes, and one row for
// each 96 of them: 4.8 MB and 52,428 rows. One command writes at most
// record.MaxWrite bytes and two rows for each of its own, besides itself, which
// goes to the value log or counts less than valueLog; the state hash adds at most 160 KB
// in 260 rows, and runs.go lets recentBytes in recentRows in. So a command always fits
// into a transaction that holds no more than softBytes and softRows before it.
const (
	memTableMB = 32
	valueLog   = 4 << 10
	softBytes  = 192 << 10
	softRows   = 4_096
)

// ApplyBatch decides on the entries in order and gives a result for each, in as
// few transactions as their sizes allow. An entry at or below AppliedIndex was
// decided before and changes nothing; if it was accepted then its result says so.
// After an error the store refuses further entries, see ErrFailed.
func (s *Store) ApplyBatch(entries []Entry) ([]record.Result, error) {
	return s.takeBatch(entries, false)
}

// Try judges commands in order, as if they came next, and keeps nothing. One that is
// refused changes nothing for those after it. It stops early at what one transaction does
// not hold: there may be fewer results than commands. An error that is not
// record.ErrOldProgram is of the store's reading.
func (s *Store) Try(envelopes [][]byte) (results []record.Result, err error) {
	g, done, err := s.judging()
	if err != nil {
		return nil, err
	}
	defer done()
	w := newWriter(g)
	defer w.discard()
	next := s.applied.Load() + 1
	for i, raw := range envelopes {
		if w.full() {
			break
		}
		res, err := record.Apply(w, s.rules, next+uint64(i), raw)
		if err != nil {
			return nil, err
		}
		results = append(results, res)
	}
	return results, nil
}

// judging gives the tables to who decides on commands, one at a time, until done.
func (s *Store) judging() (g *generation, done func(), err error) {
	s.apply.Lock()
	if err = s.failed; err == nil {
		g, err = s.use()
	}
	if err != nil {
		s.apply.Unlock()
		return nil, nil, err
	}
	return g, func() { g.users.Done(); s.apply.Unlock() }, nil
}

// RefusedError tells of a command that a follower was sent as accepted and that is
// not: whoever sent it lies or is broken, or something was left out before it.
type RefusedError struct {
	Index  uint64
	Result record.Result
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the command at index %d is refused: %s", e.Index, e.Result.Refusal)
}

// ApplyAccepted is ApplyBatch for who follows: every command must be an accepted
// one. At the first that is not, it stops with a RefusedError; what came before is
// applied, and the store stands before that index, open for the true one.
func (s *Store) ApplyAccepted(entries []Entry) error {
	_, err := s.takeBatch(entries, true)
	return err
}

func (s *Store) takeBatch(entries []Entry, strict bool) ([]record.Result, error) {
	g, done, err := s.judging()
	if err != nil {
		return nil, err
	}
	defer done()
	results, err := s.applyBatch(g, entries, strict)
	var refused *RefusedError
	if errors.As(err, &refused) {
		return nil, err
	}
	if errors.Is(err, record.ErrOldProgram) { // nothing is wrong with the disk
		s.failed = err
		return nil, err
	}
	if err != nil && !errors.Is(err, ErrFailed) {
		err = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	if err != nil {
		s.failed = err
		return nil, err
	}
	return results, nil
}

func (s *Store) applyBatch(g *generation, entries []Entry, strict bool) ([]record.Result, error) {
	results := make([]record.Result, len(entries))
	last := s.applied.Load()
	var w *writer
	var changes []Change
	flush := func() error {
		if w == nil {
			return nil
		}
		if err := g.decide(w, last); err != nil {
			return err
		}
		s.announce(last, changes)
		w, changes = nil, nil
		return nil
	}
	defer func() {
		if w != nil {
			w.discard()
		}
	}()
	for i, e := range entries {
		if i > 0 && e.Index <= entries[i-1].Index {
			return nil, fmt.Errorf("entry %d follows on %d", e.Index, entries[i-1].Index)
		}
		var err error
		if e.Index <= last {
			if results[i], err = s.decided(g, e); err != nil {
				return nil, err
			}
			continue
		}
		if w.full() {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		if w == nil {
			w = newWriter(g)
		}
		if at, ok := passed(last, e.Index); ok {
			if err := w.mark(at); err != nil {
				return nil, err
			}
		}
		if e.empty() {
			last = e.Index
			if last%MarkEvery == 0 || len(e.Envelope) > 0 {
				if err := w.mark(last); err != nil {
					return nil, err
				}
			}
			continue
		}
		if results[i], err = record.Apply(w, s.rules, e.Index, e.Envelope); err != nil {
			return nil, fmt.Errorf("apply index %d: %w", e.Index, err)
		}
		if strict && !results[i].Accepted {
			if last > s.applied.Load() {
				if err := flush(); err != nil { // a refused command has written nothing
					return nil, err
				}
			}
			return nil, &RefusedError{e.Index, results[i]}
		}
		last = e.Index
		if last%MarkEvery == 0 || results[i].Accepted && results[i].RemovesRight && !results[i].Repeated {
			if err := w.mark(last); err != nil {
				return nil, err
			}
		}
		changes = append(changes, Change{e.Index, results[i], e.Envelope})
	}
	return results, flush()
}

func (e Entry) empty() bool { return len(e.Envelope) == 0 || bytes.Equal(e.Envelope, MarkHere) }

// decided finds the verdict on an entry that comes again, as a restart replays
// the end of the log. It writes nothing.
func (s *Store) decided(g *generation, e Entry) (record.Result, error) {
	if e.empty() {
		return record.Result{}, nil
	}
	w := newWriter(g)
	defer w.discard()
	res, err := record.Apply(w, s.rules, e.Index, e.Envelope)
	if err == nil && !res.Repeated {
		res = record.Result{Refusal: "it was refused before", Public: res.Public, Author: res.Author, Kind: res.Kind}
	}
	return res, err
}
