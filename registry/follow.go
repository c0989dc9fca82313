package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

// ErrGap means that what several members send, or vouch for, does not agree with what
// this watcher holds: some member had left a command out before, or lied about its
// index. The watcher cannot be relied on, so Run ends; the next Open begins from the
// genesis file again and fetches everything anew.
var ErrGap = errors.New("this watcher's history has a gap")

// anewFile marks a watcher's directory that must not be used again; turnsFile counts in
// bytes how often that happened, so that each time another member is followed first.
const anewFile, turnsFile = "ANEW", "TURNS"

// follow keeps a watcher's replica up with the members, until ctx ends.
func (r *Registry) follow(ctx context.Context) error {
	refusedBy := make(map[names.NodeID]bool)
	pause := retryLeast
	for ctx.Err() == nil {
		m, err := r.route.member(0)
		if err != nil {
			return err
		}
		before := r.store.AppliedIndex()
		err = r.followOne(ctx, m)
		if ctx.Err() != nil {
			return nil
		}
		if r.store.AppliedIndex() > before {
			pause = retryLeast
			clear(refusedBy)
		}
		var refused *store.RefusedError
		switch {
		case errors.As(err, &refused):
			refusedBy[m] = true
			if err := r.anew(refusedBy); err != nil {
				return err
			}
		case errors.Is(err, store.ErrFailed), errors.Is(err, store.ErrClosed), errors.Is(err, record.ErrOldProgram):
			return err
		}
		r.cfg.Log.Debug("registry watch ended", "member", m.String(), "error", err)
		r.route.failed(m)
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
		}
		pause = min(2*pause, time.Second)
	}
	return nil
}

// anew gives up the replica when its word no longer stands against that of one member
// alone: two say the same, or there is only one.
func (r *Registry) anew(refusedBy map[names.NodeID]bool) error {
	voters, err := r.voters()
	if err != nil || len(refusedBy) < min(2, len(voters)) {
		return err
	}
	return r.giveUp()
}

// giveUp ends a watcher whose copy cannot be relied on, and marks that.
func (r *Registry) giveUp() error {
	turns := append(turnsOf(r.dir), '.')
	err := os.WriteFile(filepath.Join(r.dir, turnsFile), turns, 0o600)
	if err = errors.Join(err, os.WriteFile(filepath.Join(r.dir, anewFile), nil, 0o600)); err != nil {
		return fmt.Errorf("%w: and it could not be marked: %w", ErrGap, err)
	}
	return fmt.Errorf("%w at index %d: start the node again", ErrGap, r.store.AppliedIndex())
}

// mostTurns bounds the file; they begin again then.
const mostTurns = 1000

// turnsOf gives a byte for each time that the copy in dir was given up. None can be read:
// then none.
func turnsOf(dir string) []byte {
	turns, _ := os.ReadFile(filepath.Join(dir, turnsFile))
	if len(turns) >= mostTurns {
		return nil
	}
	return turns
}

// prepareDir makes the directory of a replica, empty if it was marked.
func prepareDir(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, anewFile)); err == nil {
		// The mark goes last, so that a crash in between begins again.
		if err := os.RemoveAll(filepath.Join(dir, "state")); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(dir, anewFile)); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o700)
}

// followOne follows one member until that fails, it falls silent, or it sends
// something that is not so.
func (r *Registry) followOne(ctx context.Context, m names.NodeID) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)

	silence := 3 * r.cfg.Tuning.WatchKeepalive
	watchdog := time.AfterFunc(silence, func() { cancel(errors.New("the member fell silent")) })
	defer watchdog.Stop()

	stream, err := r.cfg.Peers.Watch(ctx, m, &registrypb.WatchRequest{FromIndex: r.store.AppliedIndex() + 1})
	if err != nil {
		return err
	}
	defer stream.Close()
	events := make(chan *registrypb.WatchEvent, watchCommands)
	wg.Go(func() {
		for {
			e, err := stream.Receive()
			if err != nil {
				cancel(err)
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	})
	at, movedAt := r.store.AppliedIndex(), time.Now()
	for {
		select {
		case <-r.behind:
			// It lives, and sends nothing of what the leader has: it is cut off itself, or
			// keeps news back.
			if now := r.store.AppliedIndex(); now != at {
				at, movedAt = now, time.Now()
			} else if time.Since(movedAt) > r.cfg.Genesis.Bounds.Lease {
				return fmt.Errorf("%s stays at index %d, and the leader vouches for more", m, at)
			}
		case <-r.withheld.turn:
			return fmt.Errorf("%s keeps back what takes a right away", m)
		case e := <-events:
			watchdog.Reset(silence)
			if err := r.applyEvents(m, gather(events, e)); err != nil {
				return err
			}
			if !r.isVoter(m) { // soon it hears of nothing more, and lives
				return fmt.Errorf("%s is no member any more", m)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// gather takes what has arrived, within bounds.
func gather(events <-chan *registrypb.WatchEvent, first *registrypb.WatchEvent) []*registrypb.WatchEvent {
	batch, size := []*registrypb.WatchEvent{first}, len(first.GetEnvelope())
	for size < watchBytes {
		select {
		case e := <-events:
			batch, size = append(batch, e), size+len(e.GetEnvelope())
		default:
			return batch
		}
	}
	return batch
}

// applyEvents has the store judge what m sent, and keeps evidence if it refuses.
func (r *Registry) applyEvents(m names.NodeID, events []*registrypb.WatchEvent) error {
	var entries []store.Entry
	last := r.store.AppliedIndex()
	for _, e := range events {
		switch {
		case e.GetIndex() > last:
			entries = append(entries, entryOf(e))
			last = e.GetIndex()
		case len(e.GetEnvelope()) > 0:
			return fmt.Errorf("%s sent index %d after %d", m, e.GetIndex(), last)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	err := r.store.ApplyAccepted(entries)
	var refused *store.RefusedError
	if errors.As(err, &refused) {
		for _, e := range entries {
			if e.Index == refused.Index {
				sum := sha256.Sum256(e.Envelope)
				// The command itself may hold subjects' numbers; its hash finds it again.
				r.cfg.Log.Error("registry: a member sent as accepted what is refused: it lies, or left something out, or another did",
					"member", m.String(), "index", e.Index, "envelope_sha256", hex.EncodeToString(sum[:]),
					"author", refused.Result.Author, "refusal", refused.Result.Refusal)
			}
		}
	}
	return err
}
