package registry

import (
	"context"
	"errors"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

const (
	watchCommands = 256     // most commands, and about most bytes, read at once
	watchBytes    = 1 << 20 // by a watch, or applied at once by a follower
)

// HandleWatch answers MethodWatch on a member, whatever its role: it sends what
// from may see, in order of index, from req.FromIndex on, and then what comes. An
// event without an envelope says that everything visible up to its index was sent.
// It returns when ctx ends, send fails, from is suspended, or the registry is closed.
//
// Run and Close do not wait for send: a follower that takes nothing would keep a member
// whose disk failed from ending, and so from being started again. The ctx of the caller is
// what ends a send.
func (r *Registry) HandleWatch(ctx context.Context, from names.NodeID, req *registrypb.WatchRequest, send func(*registrypb.WatchEvent) error) error {
	if r.member == nil {
		return ErrNotMember
	}
	next := max(1, req.GetFromIndex())
	for first := true; ; first = false {
		commands, upTo, err := r.news(ctx, from, next, !first)
		if err != nil {
			return err
		}
		for _, c := range commands {
			if err := send(&registrypb.WatchEvent{Index: c.Index, Envelope: c.Envelope}); err != nil {
				return err
			}
		}
		if len(commands) == 0 || commands[len(commands)-1].Index < upTo {
			// Also when nothing is new: then it says that the watch lives.
			if err := send(&registrypb.WatchEvent{Index: max(upTo, next-1)}); err != nil {
				return err
			}
		}
		next = max(upTo+1, next)
	}
}

// news gives what visible does if from is admitted; if wait is set, as soon as next is
// applied or the follower wants a sign of life.
func (r *Registry) news(ctx context.Context, from names.NodeID, next uint64, wait bool) ([]record.Command, uint64, error) {
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	if wait {
		if err := r.awaitNews(ctx, next); err != nil {
			return nil, 0, err
		}
	}
	if err := r.admitted(from); err != nil {
		return nil, 0, err
	}
	return r.visible(from.Institution, next)
}

// visible reads the next commands for a follower of inst, and how far they reach.
func (r *Registry) visible(inst names.InstitutionID, next uint64) (commands []record.Command, upTo uint64, err error) {
	err = r.store.View(func(v record.View) error {
		if upTo, err = v.AppliedIndex(); err != nil {
			return err
		}
		commands, err = v.VisibleTo(inst, next, watchCommands, watchBytes)
		return err
	})
	size := 0
	for _, c := range commands {
		size += len(c.Envelope)
	}
	if len(commands) == watchCommands || size >= watchBytes { // there may be more
		upTo = commands[len(commands)-1].Index
	}
	return commands, upTo, err
}

// awaitNews returns when next is applied, or the follower wants a sign of life.
func (r *Registry) awaitNews(ctx context.Context, next uint64) error {
	if r.store.AppliedIndex() >= next {
		return ctx.Err() // in the middle of what there is
	}
	wait, cancel := context.WithTimeout(ctx, r.cfg.Tuning.WatchKeepalive)
	defer cancel()
	if err := r.store.WaitApplied(wait, next); err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
		return err
	}
	// What comes together is sent together.
	select {
	case <-time.After(r.cfg.Tuning.WatchPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// entryOf turns what a member sent into what the store takes.
func entryOf(e *registrypb.WatchEvent) store.Entry {
	return store.Entry{Index: e.GetIndex(), Envelope: e.GetEnvelope()}
}
