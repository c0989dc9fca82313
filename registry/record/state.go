package record

import (
	"errors"
	"maps"
	"slices"
)

// ErrStop may be returned by the function given to a Scan or to a method of View
// to end it early; the method then returns nil.
var ErrStop = errors.New("stop")

// ErrCorrupt means that a row cannot be what Apply wrote. Nothing mends it but a
// restore of the replica.
var ErrCorrupt = errors.New("corrupt registry row")

// Getter reads rows. Slices it gives are the caller's to keep, and never changed.
type Getter interface {
	// Get gives the value of key, or nil when there is none. No row is empty.
	Get(key []byte) ([]byte, error)
	// Scan calls fn with the rows whose keys begin with prefix and are not below
	// start, in order of key. An error of fn ends the scan and is returned.
	Scan(prefix, start []byte, fn func(key, value []byte) error) error
}

// State is what Apply changes. Its users keep others from writing meanwhile.
type State interface {
	Getter
	Set(key, value []byte) error
	Delete(key []byte) error
}

// Decoding is a State that knows a Memo of the public tables as they stand in it, or, once
// one of their rows was written, none.
type Decoding interface {
	Decoded() *Memo
}

// overlay holds what one command would write until it is accepted; dropping it is
// how a refusal changes nothing.
type overlay struct {
	base   State
	writes map[string][]byte // nil: deleted
	size   int               // bytes and overhead of all writes, see MaxWrite
	public bool              // a row of the small public tables was written
}

func newOverlay(base State) *overlay {
	return &overlay{base: base, writes: make(map[string][]byte)}
}

func (o *overlay) Get(key []byte) ([]byte, error) {
	if v, ok := o.writes[string(key)]; ok {
		return v, nil
	}
	return o.base.Get(key)
}

// Scan sees the base alone: no command reads by scan a table it has written.
func (o *overlay) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	return o.base.Scan(prefix, start, fn)
}

func (o *overlay) Set(key, value []byte) error {
	o.size += len(key) + len(value) + rowOverhead
	o.public = o.public || OfCatalogue(key)
	o.writes[string(key)] = value
	return nil
}

func (o *overlay) Delete(key []byte) error {
	o.size += len(key) + rowOverhead
	o.public = o.public || OfCatalogue(key)
	o.writes[string(key)] = nil
	return nil
}

// commit writes to the base, in order of key.
func (o *overlay) commit() error {
	for _, k := range slices.Sorted(maps.Keys(o.writes)) {
		var err error
		if v := o.writes[k]; v == nil {
			err = o.base.Delete([]byte(k))
		} else {
			err = o.base.Set([]byte(k), v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var (
	_ State = (*overlay)(nil)
	_ State = (*MapState)(nil)
)
