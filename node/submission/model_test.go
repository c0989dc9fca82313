package submission

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// modelled is what the rules of package and docs make of a declaration.
type modelled struct {
	ticket names.Ticket
	by     string
	kind   registrypb.Change
	of     *modelled // which it corrects or cancels
	state  nodepb.DeclarationState
	fresh  bool // accepted just now
}

// step is one thing that happens; which and flag choose among what there is then.
type step struct {
	what  string
	which int
	flag  bool
}

// Whatever two firms declare, correct and cancel, however an office decides, in whatever
// order, and whoever loses power in between: both sides come to what a few lines say that
// must become of it, and everybody concerned is told once of what was accepted.
func TestModel(t *testing.T) {
	steps := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) step {
		return step{rapid.SampledFrom([]string{"declare", "declare", "amend", "amend", "decide", "decide", "decide", "power"}).Draw(r, "what"),
			rapid.IntRange(0, 99).Draw(r, "which"), rapid.Bool().Draw(r, "flag")}
	}), 3, 12)
	rapid.Check(t, func(r *rapid.T) {
		script := steps.Draw(r, "script")
		var err error
		synctest.Test(t, func(t *testing.T) { err = play(t, script) })
		if err != nil {
			r.Fatal(err)
		}
	})
}

func play(t *testing.T, script []step) error {
	w := newWorld(t)
	defer w.close()
	var all []*modelled
	published := 0
	for i, s := range script {
		switch {
		case s.what == "power":
			w.nodes[[]string{"office", "firm", "pension"}[s.which%3]].powerLoss()
		case s.what == "declare" || len(all) == 0:
			m := &modelled{by: map[bool]string{true: "firm", false: "rival"}[s.flag], kind: registrypb.Change_CHANGED, state: received}
			m.ticket = w.nodes[m.by].declare(change(i, worker))
			all = append(all, m)
		case s.what == "amend":
			of := all[s.which%len(all)]
			m := &modelled{by: of.by, of: of, state: received, kind: registrypb.Change_CORRECTED}
			if s.flag {
				m.kind = registrypb.Change_CANCELLED_CHANGE
			}
			c := change(i, worker)
			c.Kind, c.RefersTo = m.kind, of.ticket
			m.ticket = w.nodes[m.by].declare(c)
			all = append(all, m)
		default:
			m := all[s.which%len(all)]
			wanted := m.decide(s.flag)
			_, err := w.nodes["office"].source.Decide(context.Background(), clerk, m.ticket, s.flag, []*nodepb.FieldReason{{Code: "why"}})
			if !errors.Is(err, wanted) {
				return fmt.Errorf("step %d: %v, want %v", i, err, wanted)
			}
			if wanted == nil && m.fresh {
				m.fresh = false
				published++
			}
		}
	}
	time.Sleep(10 * time.Minute)
	for range all { // each may have another one asked about once more
		for _, by := range []string{"firm", "rival"} {
			if err := w.nodes[by].declarant.Poll(context.Background()); err != nil {
				return err
			}
		}
	}
	for i, m := range all {
		s, err := w.nodes[m.by].declarant.Status(m.ticket)
		if err != nil || s.State != m.state {
			return fmt.Errorf("declaration %d is %+v, want %s: %v", i, s, m.state, err)
		}
	}
	if told := len(w.nodes["pension"].take()); told != published {
		return fmt.Errorf("told %d times of %d", told, published)
	}
	return nil
}

// decide says what a decision makes of it, and whether it is refused.
func (m *modelled) decide(accept bool) error {
	switch {
	case m.state != received && accept == (m.state == declined):
		return ErrDecided
	case m.state != received:
		return nil
	case !accept:
		m.state = declined
	case m.of != nil && m.of.state != accepted:
		return ErrOriginal
	default:
		m.state, m.fresh = accepted, true
		if m.of != nil && m.kind == registrypb.Change_CORRECTED {
			m.of.state = amended
		} else if m.of != nil {
			m.of.state = annulled
		}
	}
	return nil
}
