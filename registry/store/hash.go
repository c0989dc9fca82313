package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

// MarkEvery is how many indexes lie between those at which every replica writes down
// the hash of its state: those of 256 log entries (package registry). It does so too at
// each command that took a right away, and where an Entry says so.
const MarkEvery = 256 << 10

// How many marks are kept, and of how many the digests of all buckets.
const (
	keptMarks   = 256
	keptDigests = 16
)

// The rows of the state hash; indexes are 8 bytes, big-endian.
const (
	hashVersion = 'v' //         1
	hashSum     = 's' // bucket  its Sum
	hashMark    = 'm' // index   Root, public Root
	hashDigests = 'd' // index   digest of every bucket
)

// Mark is the hash of a state as it was when everything up to Index was decided.
type Mark struct {
	Index uint64
	// Root is over all tables; only members can have the same. Public is over the tables
	// that every node holds.
	Root, Public statehash.Root
}

// hasher keeps the hash of one database as it was last committed; owned by whoever
// applies.
type hasher struct {
	statehash.Hasher
	sums    statehash.State
	digests []statehash.Digest      // of sums, but for those that are stale
	stale   [statehash.Buckets]bool // sums that changed since
	marks   []uint64                // that are kept, ascending
	unsaved bool                    // no row of the hash was ever written
}

// loadHash reads the hash, or makes it anew for a database that has none: a new one, or
// one of a version that kept none. The next commit then writes it.
func loadHash(g *generation) (*hasher, error) {
	h := new(hasher)
	r := newRows(g.now.base, nil)
	defer r.close()
	version, err := r.Get(record.StateHashKey(hashVersion))
	if err != nil {
		return nil, err
	}
	if h.unsaved = version == nil; h.unsaved {
		err = sumRows(r, &h.Hasher, &h.sums)
	} else {
		err = readSums(r, &h.sums)
	}
	if err != nil {
		return nil, err
	}
	h.digests = h.sums.Digests()
	return h, r.Scan(record.StateHashKey(hashMark), nil, func(k, _ []byte) error {
		h.marks = append(h.marks, binary.BigEndian.Uint64(k[2:]))
		return nil
	})
}

// sumRows makes the hash anew from all rows.
func sumRows(r record.Getter, h *statehash.Hasher, into *statehash.State) error {
	return r.Scan(nil, nil, func(k, v []byte) error {
		if record.Hashed(k) {
			b, _ := statehash.Bucket(k, record.OfPublic(k))
			h.Add(&into[b], k, v)
		}
		return nil
	})
}

func readSums(r record.Getter, into *statehash.State) error {
	return r.Scan(record.StateHashKey(hashSum), nil, func(k, v []byte) (err error) {
		if len(k) != 3 {
			return fmt.Errorf("%w: bucket", record.ErrCorrupt)
		}
		into[k[2]], err = statehash.SumOf(v)
		return err
	})
}

// change is a row that was read or written in a transaction.
type change struct {
	key      string
	was, now []byte // since the hash was last brought up to date; nil: no row
	written  bool
	waits    bool // a row of the directory, to be written beside the transaction
}

// Get gives a copy of the value of k, or nil. What it read is remembered: whoever
// writes a row has mostly read it, and the hash needs to know what it was.
func (w *writer) Get(k []byte) ([]byte, error) {
	if !record.Hashed(k) {
		if v, ok := w.own[string(k)]; ok {
			return bytes.Clone(orNone(v)), nil
		}
		return w.decided(k)
	}
	if c, ok := w.touched[string(k)]; ok {
		return c.now, nil
	}
	v, err := w.decided(k)
	if err == nil {
		w.touch(k, v)
	}
	return v, err
}

// changesAtOnce is how many changes memory is taken for at a time.
const changesAtOnce = 256

// touch begins to remember a row, which was v.
func (w *writer) touch(k, v []byte) *change {
	last := len(w.changes) - 1
	if last < 0 || len(w.changes[last]) == cap(w.changes[last]) {
		n := changesAtOnce
		if last < 0 { // most writers touch a few rows
			n = 16
		}
		w.changes = append(w.changes, make([]change, 0, n))
		last++
	}
	some := &w.changes[last]
	*some = append(*some, change{key: string(k), was: v, now: v})
	c := &(*some)[len(*some)-1]
	w.touched[c.key] = c
	return c
}

// decided gives a row as it was before the writer.
func (w *writer) decided(k []byte) ([]byte, error) {
	if record.OfDirectory(k) { // hot keeps none
		return w.rows.Get(k)
	}
	if v, ok := w.of.hot.get(k); ok {
		return v, nil
	}
	v, err := w.rows.Get(k)
	if err == nil {
		w.of.hot.note(k, v)
	}
	return v, err
}

// note remembers what a row is now, and reports whether it waits beside the transaction.
func (w *writer) note(k, v []byte) (waits bool, err error) {
	if !record.Hashed(k) {
		return false, nil
	}
	c, ok := w.touched[string(k)]
	if !ok {
		was, err := w.decided(k)
		if err != nil {
			return false, err
		}
		c = w.touch(k, was)
	}
	c.now, c.written = v, true
	if w.version == nil || !record.OfDirectory(k) {
		return false, nil
	}
	if !c.waits {
		c.waits = true
		w.pending = append(w.pending, c.key)
	}
	w.pendingBytes += len(k) + len(v) + 16
	return true, nil
}

// fold brings the sums of the transaction up to date with what it wrote. A row that was
// written many times counts as it was before, and as it is now.
func (w *writer) fold() {
	for _, some := range w.changes {
		for i := range some {
			if c := &some[i]; c.written {
				w.foldOne(c)
			}
		}
	}
}

func (w *writer) foldOne(c *change) {
	c.written = false
	if bytes.Equal(c.was, c.now) && (c.was == nil) == (c.now == nil) {
		return
	}
	w.key = append(w.key[:0], c.key...)
	b, _ := statehash.Bucket(w.key, record.OfPublic(w.key))
	s := w.sumOf(b)
	if c.was != nil {
		w.hash.Remove(s, w.key, c.was)
	}
	if c.now != nil {
		w.hash.Add(s, w.key, c.now)
	}
	c.was = c.now
}

// sumOf gives the sum of a bucket, to be changed in this transaction.
func (w *writer) sumOf(b int) *statehash.Sum {
	s := w.sums[b]
	if s == nil {
		s = new(statehash.Sum)
		*s = w.hash.sums[b]
		w.sums[b] = s
	}
	return s
}

// mark writes down the hash as it is with everything up to index decided.
func (w *writer) mark(index uint64) error {
	w.fold()
	digests := append([]statehash.Digest(nil), w.hash.brought()...)
	for b, s := range w.sums {
		digests[b] = s.Digest()
	}
	m, all := markOf(index, digests), make([]byte, 0, len(digests)*len(digests[0]))
	for _, d := range digests {
		all = append(all, d[:]...)
	}
	at := binary.BigEndian.AppendUint64(nil, index)
	w.marks = append(w.marks, index)
	if err := w.Set(record.StateHashKey(hashMark, at...), append(m.Root[:], m.Public[:]...)); err != nil {
		return err
	}
	return w.Set(record.StateHashKey(hashDigests, at...), all)
}

// brought brings the digests up to date: only marks need them.
func (h *hasher) brought() []statehash.Digest {
	for b, stale := range h.stale {
		if stale {
			h.digests[b], h.stale[b] = h.sums[b].Digest(), false
		}
	}
	return h.digests
}

func markOf(index uint64, digests []statehash.Digest) Mark {
	return Mark{index, statehash.RootOf(digests), statehash.RootOf(digests[:statehash.PublicBuckets])}
}

// saveHash writes the sums that changed, and takes away marks that are too many.
func (w *writer) saveHash() error {
	w.fold()
	if w.hash.unsaved {
		if err := w.Set(record.StateHashKey(hashVersion), []byte{1}); err != nil {
			return err
		}
		for b, s := range w.hash.sums {
			if w.sums[b] == nil && s != (statehash.Sum{}) {
				w.sums[b] = &s
			}
		}
	}
	for b, s := range w.sums {
		if err := w.Set(record.StateHashKey(hashSum, byte(b)), s.Bytes()); err != nil {
			return err
		}
	}
	for i := range w.marks {
		if err := w.forgetMark(len(w.hash.marks) + i); err != nil {
			return err
		}
	}
	return nil
}

// forgetMark makes room for the nth mark.
func (w *writer) forgetMark(n int) error {
	for kind, keep := range map[byte]int{hashMark: keptMarks, hashDigests: keptDigests} {
		if old := n - keep; old >= 0 && old < len(w.hash.marks) {
			at := binary.BigEndian.AppendUint64(nil, w.hash.marks[old])
			if err := w.Delete(record.StateHashKey(kind, at...)); err != nil {
				return err
			}
		}
	}
	return nil
}

// saved takes over what the transaction, now committed, made of the hash.
func (w *writer) saved() {
	h := w.hash
	h.unsaved = false
	for b, s := range w.sums {
		h.sums[b], h.stale[b] = *s, true
	}
	w.of.hot.wrote(w.own)
	h.marks = append(h.marks, w.marks...)
	if n := len(h.marks); n > keptMarks {
		h.marks = append([]uint64(nil), h.marks[n-keptMarks:]...)
	}
}

// passed gives the last index to mark between what is decided and the next entry.
func passed(last, next uint64) (uint64, bool) {
	at := (next - 1) / MarkEvery * MarkEvery
	return at, at > last
}
