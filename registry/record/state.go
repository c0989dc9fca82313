package record

import (
	"bytes"
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
	base      State
	writes    map[string][]byte // of other tables than the directory; nil: deleted
	directory []write           // in order of key, as commands write them: ten thousand at once
	size      int               // bytes and overhead of all writes, see MaxWrite
	public    bool              // a row of the small public tables was written
}

// write is what one row becomes; a nil value: it is deleted.
type write struct{ key, value []byte }

func newOverlay(base State) *overlay {
	return &overlay{base: base, writes: make(map[string][]byte)}
}

func (o *overlay) Get(key []byte) ([]byte, error) {
	if OfDirectory(key) {
		if at, found := o.find(key); found {
			return o.directory[at].value, nil
		}
	} else if v, ok := o.writes[string(key)]; ok {
		return v, nil
	}
	return o.base.Get(key)
}

// find tells where a row of the directory stands among the writes, or would.
func (o *overlay) find(key []byte) (at int, found bool) {
	n := len(o.directory)
	if n == 0 || bytes.Compare(o.directory[n-1].key, key) < 0 {
		return n, false
	}
	return slices.BinarySearchFunc(o.directory, key, func(w write, k []byte) int { return bytes.Compare(w.key, k) })
}

// Scan sees the base alone: no command reads by scan a table it has written.
func (o *overlay) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	return o.base.Scan(prefix, start, fn)
}

// Set keeps key and value: nobody may change them afterwards.
func (o *overlay) Set(key, value []byte) error {
	o.size += len(key) + len(value) + rowOverhead
	o.put(key, value)
	return nil
}

func (o *overlay) put(key, value []byte) {
	o.public = o.public || OfCatalogue(key)
	if !OfDirectory(key) {
		o.writes[string(key)] = value
		return
	}
	at, found := o.find(key)
	if found {
		o.directory[at].value = value
		return
	}
	o.directory = slices.Insert(o.directory, at, write{key, value})
}

func (o *overlay) Delete(key []byte) error {
	o.size += len(key) + rowOverhead
	o.put(key, nil)
	return nil
}

// commit writes to the base, the rows of the directory last, and else in order of key.
func (o *overlay) commit() error {
	for _, k := range slices.Sorted(maps.Keys(o.writes)) {
		if err := o.pass([]byte(k), o.writes[k]); err != nil {
			return err
		}
	}
	for _, w := range o.directory {
		if err := o.pass(w.key, w.value); err != nil {
			return err
		}
	}
	return nil
}

func (o *overlay) pass(key, value []byte) error {
	if value == nil {
		return o.base.Delete(key)
	}
	return o.base.Set(key, value)
}

var (
	_ State = (*overlay)(nil)
	_ State = (*MapState)(nil)
)
