// Package recovery is a member's part in replacing a threshold group whose keys are
// lost: it says that it sees the announcement, and when by its own clock the delay is
// over. Two signed statements of a majority are what times a replacement, since the rules
// of the registry have no clock; see registry/record, recovery.go.
//
// On every node, member or not, it warns of what was announced, so that nobody can say
// the change of keys was not public.
package recovery

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Registry is what a node knows; registry.Registry is one.
type Registry interface {
	View(fn func(record.View) error) error
	Changes() (<-chan struct{}, func())
}

// Author writes the institution's commands; registry.Author is one.
type Author interface {
	Do(ctx context.Context, c *registrypb.Command) (*registrypb.SubmitResponse, error)
}

// Config is what a Watch needs; everything is required.
type Config struct {
	Self     names.InstitutionID
	Delay    time.Duration // of the genesis file
	Registry Registry
	Author   Author
	Now      func() time.Time
	Log      *slog.Logger
}

// look is how often a delay that runs is looked at, at the latest.
const look = time.Minute

// Watch is one node's. It is used by one Run.
type Watch struct {
	cfg    Config
	warned map[string]bool
}

// New makes a Watch.
func New(cfg Config) *Watch { return &Watch{cfg: cfg, warned: make(map[string]bool)} }

// Run does its part until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	changes, stop := w.cfg.Registry.Changes()
	defer stop()
	for {
		next, err := w.step(ctx)
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn("what is due for a recovery was not said; it is tried again", "err", err)
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changes:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// due is one statement that this institution has to make.
type due struct {
	group string
	id    []byte
}

// step says what is due now, and gives the time until it must look again.
func (w *Watch) step(ctx context.Context) (next time.Duration, err error) {
	next = look
	var all []due
	err = w.cfg.Registry.View(func(v record.View) error {
		pending, err := v.PendingRecoveries()
		if err != nil || len(pending) == 0 {
			return err
		}
		votes, err := w.votes(v)
		if err != nil {
			return err
		}
		for _, p := range pending {
			w.warn(p)
			if !votes {
				continue
			}
			said, err := v.RecoveryConfirmation(p.Group, w.cfg.Self)
			if err != nil {
				return err
			}
			// Rounded up to whole milliseconds, which commands carry.
			left := said.Seen.Add(w.cfg.Delay + time.Millisecond).Sub(w.cfg.Now())
			switch {
			case said.Over:
			case said.Seen.IsZero() || left <= 0:
				all = append(all, due{p.Group, p.ID})
			default:
				next = min(next, left)
			}
		}
		return nil
	})
	if err != nil {
		return time.Second, err
	}
	for _, d := range all {
		resp, err := w.cfg.Author.Do(ctx, &registrypb.Command{
			TimeUnixMs: w.cfg.Now().UnixMilli(),
			Body:       &registrypb.Command_ConfirmRecovery{ConfirmRecovery: &registrypb.Recovery{Announcement: d.id}},
		})
		if err == nil && !resp.GetAccepted() {
			err = errors.New(resp.GetRefusal())
		}
		if err != nil {
			return time.Second, err
		}
	}
	return next, nil
}

// votes reports whether a voting member of this institution stands.
func (w *Watch) votes(v record.View) (bool, error) {
	members, err := v.Members()
	for _, m := range members {
		if m.Institution == w.cfg.Self {
			return v.NodeStands(m)
		}
	}
	return false, err
}

func (w *Watch) warn(p record.PendingRecovery) {
	id := hex.EncodeToString(p.ID)
	if w.warned[id] {
		return
	}
	w.warned[id] = true
	w.cfg.Log.Warn("new keys are announced for a group that signs for the mesh; if its keys are not lost, the group must cancel this",
		"group", p.Group, "announced_by", p.Announcer, "id", id, "delay", w.cfg.Delay.String())
}
