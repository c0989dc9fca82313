package record

import (
	"fmt"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Command is an accepted command of history.
type Command struct {
	Index    uint64
	Envelope []byte // as its author sent it
}

// History calls fn with all accepted commands from an index on, public and
// directory, in order. Applying them again gives the same tables. Only members
// hold and may see all.
func (v View) History(from uint64, fn func(index uint64, envelope []byte) error) error {
	return ended(v.g.Scan([]byte{tabCommand}, indexKey(tabCommand, from), func(k, b []byte) error {
		index, err := indexOf(k)
		if err != nil {
			return err
		}
		return fn(index, b)
	}))
}

// Commands calls fn with the accepted public commands from an index on, in order.
func (v View) Commands(from uint64, fn func(index uint64, envelope []byte) error) error {
	return v.history([]byte{tabPublic}, indexKey(tabPublic, from), fn)
}

// DirectoryCommands does so with those of an institution's directory chain.
func (v View) DirectoryCommands(inst names.InstitutionID, from uint64, fn func(index uint64, envelope []byte) error) error {
	return v.history(under(tabDirectory, string(inst)), directoryKey(string(inst), from), fn)
}

func (v View) history(prefix, start []byte, fn func(uint64, []byte) error) error {
	return ended(v.g.Scan(prefix, start, func(k, _ []byte) error {
		index, err := indexOf(k)
		if err != nil {
			return err
		}
		envelope, err := v.command(index)
		if err != nil {
			return err
		}
		return fn(index, envelope)
	}))
}

func (v View) command(index uint64) ([]byte, error) {
	b, err := v.g.Get(indexKey(tabCommand, index))
	if err == nil && b == nil {
		err = fmt.Errorf("%w: command %d is missing", ErrCorrupt, index)
	}
	return b, err
}

// VisibleTo gives the next accepted commands, from an index on, that a follower of
// inst may see: all public ones, and those of inst's directory chain. It stops
// after max commands, or when they hold more than maxBytes; at least one is given
// if there is any. Fewer than max and maxBytes: there are no more. Without an inst: the
// public ones.
func (v View) VisibleTo(inst names.InstitutionID, from uint64, max, maxBytes int) (commands []Command, err error) {
	public, err := v.indexes([]byte{tabPublic}, indexKey(tabPublic, from), max)
	if err != nil {
		return nil, err
	}
	var own []uint64
	if inst != "" {
		if own, err = v.indexes(under(tabDirectory, string(inst)), directoryKey(string(inst), from), max); err != nil {
			return nil, err
		}
	}
	for size := 0; len(public)+len(own) > 0 && len(commands) < max && size < maxBytes; {
		next := &public
		if len(public) == 0 || len(own) > 0 && own[0] < public[0] {
			next = &own
		}
		envelope, err := v.command((*next)[0])
		if err != nil {
			return nil, err
		}
		commands = append(commands, Command{(*next)[0], envelope})
		size += len(envelope)
		*next = (*next)[1:]
	}
	return commands, nil
}

// indexes gives the first max indexes under prefix from start on.
func (v View) indexes(prefix, start []byte, max int) (found []uint64, err error) {
	err = ended(v.g.Scan(prefix, start, func(k, _ []byte) error {
		if len(found) == max {
			return ErrStop
		}
		index, err := indexOf(k)
		found = append(found, index)
		return err
	}))
	return found, err
}
