package record

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// ErrNotReached means that a state is asked for which this replica has not reached.
var ErrNotReached = errors.New("this replica has not reached that index")

// AsOf gives a view of what the clearing looks at as it stood when everything up to an
// index had been decided: institutions, nodes, members, datasets, offerings,
// authorizations and identity providers, and of the person directory the rows and
// mandates of one subject. Signing keys, anchors and everybody else's references are not to be looked for
// in it. v must hold the whole history, so only members can.
//
// If nothing of this changed since, that is v itself. Else the history is replayed:
// the public commands, which are few, and those of the directory only if the subject's
// rows changed since, which can take minutes on a large mesh: stop is asked between
// commands, and its error ends the work. The view reads v and is good as long as v.
func (v View) AsOf(r *Rules, index uint64, about subject.ID, stop func() error) (View, error) {
	applied, err := v.AppliedIndex()
	if err != nil {
		return View{}, err
	}
	if index > applied {
		return View{}, fmt.Errorf("%w: %d is asked for, %d is applied", ErrNotReached, index, applied)
	}
	family, err := v.Family(about) // numbers are joined for ever: whoever belonged then does now
	if err != nil {
		return View{}, err
	}
	w := &rewind{view: v, rules: r, stop: stop, family: family}
	if err := w.since(index); err != nil {
		return View{}, err
	}
	if !w.public && !w.directory {
		return v, nil
	}
	if err := w.replay(index); err != nil {
		return View{}, err
	}
	if w.directory {
		return NewView(&w.state), nil
	}
	return View{g: &spliced{&w.state, v.g}, names: v.names}, nil
}

// rewind is one AsOf under way.
type rewind struct {
	view   View
	rules  *Rules
	stop   func() error
	family []subject.ID
	// What changed after the index: the public tables, or the subject's own rows.
	public, directory bool
	state             MapState
}

// since looks for what changed after index.
func (w *rewind) since(index uint64) error {
	return w.view.History(index+1, func(_ uint64, raw []byte) error {
		if w.public && w.directory {
			return ErrStop
		}
		c, err := historic(raw)
		if err != nil {
			return err
		}
		w.concerned(c)
		switch b := c.Body.(type) {
		case *registrypb.Command_SetKey, *registrypb.Command_SetAnchors, *registrypb.Command_SetFeatureLevel,
			*registrypb.Command_SetGroup, *registrypb.Command_AnnounceRecovery,
			*registrypb.Command_CancelRecovery, *registrypb.Command_ConfirmRecovery, *registrypb.Command_SetAutopilot:
		case *registrypb.Command_DeclareReferences:
			w.directory = w.directory || len(b.DeclareReferences.References) > 0
		case *registrypb.Command_SetNumbers:
			w.directory = w.directory || len(b.SetNumbers.Events) > 0
		case *registrypb.Command_GiveMandate, *registrypb.Command_RevokeMandate:
			w.directory = w.directory || w.opens(c)
		default:
			w.public = true
		}
		return w.stop()
	})
}

// concerned leaves in a directory command only the rows of the subject.
func (w *rewind) concerned(c *registrypb.Command) {
	other := func(s *registrypb.Subject) bool {
		return s == nil || !slices.Contains(w.family, subject.Raw(subject.Scheme(s.Scheme), s.Number))
	}
	if b, ok := c.Body.(*registrypb.Command_DeclarePacked); ok { // as it would stand there row by row
		refs, _ := unpackReferences(b.DeclarePacked, func(id subject.ID) bool { return slices.Contains(w.family, id) })
		c.Body = &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: refs}}
	}
	switch b := c.Body.(type) {
	case *registrypb.Command_DeclareReferences:
		b.DeclareReferences.References = slices.DeleteFunc(b.DeclareReferences.References, func(r *registrypb.Reference) bool { return other(r.Subject) })
	case *registrypb.Command_SetNumbers:
		b.SetNumbers.Events = slices.DeleteFunc(b.SetNumbers.Events, func(e *registrypb.NumberEvent) bool { return other(e.Subject) && other(e.Successor) })
	}
}

// opens reports whether a command gives or takes back a mandate of the subject.
func (w *rewind) opens(c *registrypb.Command) bool {
	_, _, giver := MandateOf(c)
	return slices.Contains(w.family, subject.Raw(subject.Scheme(giver.GetScheme()), giver.GetNumber()))
}

// replay applies what was accepted up to index. It is this replica's own history, so
// neither signatures nor chains are looked at again.
func (w *rewind) replay(index uint64) error {
	if err := Bootstrap(&w.state, w.rules); err != nil {
		return err
	}
	history := w.view.Commands
	if w.directory {
		history = w.view.History
	}
	return history(0, func(at uint64, raw []byte) error {
		if at > index {
			return ErrStop
		}
		if err := w.again(at, raw); err != nil {
			return fmt.Errorf("command %d of the history does not apply again: %w", at, err)
		}
		return w.stop()
	})
}

func (w *rewind) again(at uint64, raw []byte) error {
	opened, err := envelope.Open(envelope.Command, raw)
	if err != nil {
		return err
	}
	o := newOverlay(&w.state)
	a := newApplier(o, w.rules)
	a.index = at
	if err := a.decode(opened.Payload); err != nil {
		return err
	}
	w.concerned(a.cmd)
	switch b := a.cmd.Body.(type) {
	case *registrypb.Command_SetKey, *registrypb.Command_SetAnchors,
		*registrypb.Command_SetGroup, *registrypb.Command_AnnounceRecovery,
		*registrypb.Command_CancelRecovery, *registrypb.Command_ConfirmRecovery, *registrypb.Command_SetAutopilot:
		return nil
	case *registrypb.Command_DeclareReferences:
		if len(b.DeclareReferences.References) == 0 {
			return nil
		}
	case *registrypb.Command_SetNumbers:
		if len(b.SetNumbers.Events) == 0 {
			return nil
		}
	case *registrypb.Command_GiveMandate, *registrypb.Command_RevokeMandate:
		if !w.opens(a.cmd) {
			return nil
		}
	}
	if err := a.applyBody(); err != nil {
		return err
	}
	return o.commit()
}

func historic(raw []byte) (*registrypb.Command, error) {
	opened, err := envelope.Open(envelope.Command, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	c := new(registrypb.Command)
	if err := proto.Unmarshal(opened.Payload, c); err != nil {
		return nil, fmt.Errorf("%w: command", ErrCorrupt)
	}
	return c, nil
}

// spliced reads the person directory in one state and everything else in another.
type spliced struct{ public, directory Getter }

func (s *spliced) of(k []byte) Getter {
	if len(k) > 0 {
		switch k[0] {
		case tabReferences, tabNumber, tabInterned, tabMandate, tabMandateGiver, tabMandateHolder, tabMandateEnd:
			return s.directory
		}
	}
	return s.public
}

func (s *spliced) Get(key []byte) ([]byte, error) { return s.of(key).Get(key) }

func (s *spliced) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	return s.of(prefix).Scan(prefix, start, fn)
}
