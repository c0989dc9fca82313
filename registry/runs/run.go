package runs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"
	"sync/atomic"
)

// run is one open file. Its fields do not change, but for refs.
type run struct {
	number uint64
	f      *os.File
	path   string
	size   int64
	seal   *seal
	bits   filter
	rows   uint64
	// Of block i: where it begins (one more: where the last one ends), and its first key.
	offsets []int64
	keys    []byte
	keyEnds []uint32

	refs atomic.Int32 // of versions
}

func openRun(path string, number uint64, key []byte) (_ *run, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &run{number: number, f: f, path: path}
	if err := r.load(key); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("run %s: %w", path, err)
	}
	return r, nil
}

func (r *run) load(key []byte) error {
	info, err := r.f.Stat()
	if err != nil {
		return err
	}
	r.size = info.Size()
	head, err := r.read(0, int64(headSize))
	if err != nil {
		return err
	}
	if string(head[:len(magic)]) != magic {
		return fmt.Errorf("%w: it does not begin as one", ErrDamaged)
	}
	if r.seal, err = newSeal(key, head[len(magic):]); err != nil {
		return err
	}
	end := r.size - 4
	tail, err := r.read(end, 4)
	if err != nil {
		return err
	}
	foot, err := r.part(&end, int64(binary.BigEndian.Uint32(tail)), partFoot)
	if err != nil {
		return err
	}
	if len(foot) != footSize {
		return fmt.Errorf("%w: its foot", ErrDamaged)
	}
	n := func(i int) int64 { return int64(binary.BigEndian.Uint64(foot[8*i:])) }
	r.rows = uint64(n(0))
	bits, err := r.part(&end, n(3), partFilter)
	if err != nil {
		return err
	}
	if r.bits = filter(bits); len(bits) == 0 || len(bits)%lineSize != 0 {
		return fmt.Errorf("%w: its filter", ErrDamaged)
	}
	index, err := r.part(&end, n(2), partIndex)
	if err != nil {
		return err
	}
	return r.readIndex(index, n(1), end)
}

// part reads the sealed part of size bytes that ends at end, and moves end before it.
func (r *run) part(end *int64, size int64, part byte) ([]byte, error) {
	if size < 0 || size > *end {
		return nil, fmt.Errorf("%w: a part of %d bytes", ErrDamaged, size)
	}
	*end -= size
	b, err := r.read(*end, size)
	if err != nil {
		return nil, err
	}
	return r.seal.open(part, 0, b)
}

func (r *run) read(at, size int64) ([]byte, error) {
	if at < 0 || at+size > r.size {
		return nil, fmt.Errorf("%w: it is too short", ErrDamaged)
	}
	b := make([]byte, size)
	_, err := r.f.ReadAt(b, at)
	return b, err
}

func (r *run) readIndex(b []byte, blocks, end int64) error {
	bad := fmt.Errorf("%w: its index", ErrDamaged)
	if blocks < 0 || blocks > int64(len(b)) {
		return bad
	}
	r.offsets = make([]int64, 1, blocks+1)
	r.offsets[0] = int64(headSize)
	var key []byte
	for off := 0; off < len(b); {
		shared, start, stop, ok := entryKey(b, off)
		if !ok || shared > len(key) {
			return bad
		}
		key = append(key[:shared], b[start:stop]...)
		size, n := binary.Uvarint(b[stop:])
		if n <= 0 || size > uint64(end) {
			return bad
		}
		off = stop + n
		r.keys = append(r.keys, key...)
		r.keyEnds = append(r.keyEnds, uint32(len(r.keys)))
		r.offsets = append(r.offsets, r.offsets[len(r.offsets)-1]+int64(size))
	}
	if int64(len(r.keyEnds)) != blocks || r.offsets[blocks] != end {
		return bad
	}
	return nil
}

func (r *run) blocks() int { return len(r.keyEnds) }

func (r *run) firstKey(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = r.keyEnds[i-1]
	}
	return r.keys[start:r.keyEnds[i]]
}

// blockOf gives the block that holds key if any does: the last that does not begin
// after it, or -1.
func (r *run) blockOf(key []byte) int {
	return sort.Search(r.blocks(), func(i int) bool { return bytes.Compare(r.firstKey(i), key) > 0 }) - 1
}

func (r *run) release() {
	if r.refs.Add(-1) == 0 {
		_ = r.f.Close()
		_ = os.Remove(r.path)
	}
}

// cursor walks through one run, forwards cheaply. It is not safe for concurrent use.
type cursor struct {
	run   *run
	block int // the one in data, or -1
	raw   []byte
	data  []byte
	off   int // of the row after this one
	key   []byte
	value []byte
	valid bool // key and value are of a row
}

// spare holds the memory of cursors that were let go: nearly every look at a run takes
// one block, and then ends.
var spare = sync.Pool{New: func() any { return new(cursor) }}

func newCursor(r *run) *cursor {
	c := spare.Get().(*cursor)
	*c = cursor{run: r, block: -1, raw: c.raw[:0], key: c.key[:0]}
	return c
}

func (c *cursor) release() {
	if cap(c.raw) > 64<<10 { // of an unusual block
		return
	}
	*c = cursor{block: -1, raw: c.raw, key: c.key}
	spare.Put(c)
}

// seek goes to the first row whose key is not below key.
func (c *cursor) seek(key []byte) error {
	if !c.valid || bytes.Compare(key, c.key) < 0 || !c.within(key) {
		b := max(0, c.run.blockOf(key))
		if err := c.load(b); err != nil {
			return err
		}
		if err := c.next(); err != nil {
			return err
		}
	}
	for c.valid && bytes.Compare(c.key, key) < 0 {
		if err := c.next(); err != nil {
			return err
		}
	}
	return nil
}

// within reports whether key would stand in this block or the next one.
func (c *cursor) within(key []byte) bool {
	return c.block+2 >= c.run.blocks() || bytes.Compare(key, c.run.firstKey(c.block+2)) < 0
}

func (c *cursor) load(b int) error {
	c.off, c.valid, c.key = 0, false, c.key[:0]
	if b == c.block {
		return nil
	}
	c.block = -1
	if b >= c.run.blocks() {
		c.data = nil
		return nil
	}
	at := c.run.offsets[b]
	size := int(c.run.offsets[b+1] - at)
	if cap(c.raw) < size {
		c.raw = make([]byte, size+size/4)
	}
	c.raw = c.raw[:size]
	if _, err := c.run.f.ReadAt(c.raw, at); err != nil {
		if err == io.EOF {
			err = fmt.Errorf("%w: it is too short", ErrDamaged)
		}
		return fmt.Errorf("run %s: %w", c.run.path, err)
	}
	data, err := c.run.seal.open(partBlock, uint64(b), c.raw)
	if err != nil {
		return fmt.Errorf("run %s: %w", c.run.path, err)
	}
	c.data, c.block = data, b
	return nil
}

// next goes to the next row; at the end valid is false.
func (c *cursor) next() error {
	if c.block >= 0 && c.off == len(c.data) {
		if c.block+1 == c.run.blocks() {
			c.valid = false
			return nil
		}
		if err := c.load(c.block + 1); err != nil {
			return err
		}
	}
	if c.block < 0 {
		c.valid = false
		return nil
	}
	shared, start, stop, ok := entryKey(c.data, c.off)
	if !ok || shared > len(c.key) {
		return fmt.Errorf("run %s: %w: block %d", c.run.path, ErrDamaged, c.block)
	}
	size, n := binary.Uvarint(c.data[stop:])
	if n <= 0 || size > uint64(len(c.data)-stop-n) {
		return fmt.Errorf("run %s: %w: block %d", c.run.path, ErrDamaged, c.block)
	}
	c.key = append(c.key[:shared], c.data[start:stop]...)
	c.value = c.data[stop+n : stop+n+int(size)]
	c.off = stop + n + int(size)
	c.valid = true
	return nil
}

// get gives the value of key, which is good until the cursor moves.
func (c *cursor) get(key []byte) (value []byte, found bool, err error) {
	if err := c.seek(key); err != nil || !c.valid || !bytes.Equal(c.key, key) {
		return nil, false, err
	}
	return c.value, true, nil
}
