package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/runs"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

// A restore makes every row of the directory once: it gathers what each command does to
// each row (record.Replay), sorts that in portions into runs of their own, sealed as all
// runs are, and folds them in order of key into the one run that stays.
const (
	portionItems = 3 << 20
	portionBytes = 144 << 20
	chunkBits    = 20 // chunks of a megabyte; the effects of one command on one row fit well
)

// item is one subject's effects of one command.
type item struct {
	prefix    uint64 // of the key, past what all keys of the portion share
	off, size uint32
}

// portion is gathered in memory: for each item, in chunks that are used again, one byte
// for the size of its key, the key, and effects.
type portion struct {
	items  []item
	chunks [][]byte
	used   int // of chunks
	bytes  int
}

func (p *portion) record(i item) []byte {
	at := i.off & (1<<chunkBits - 1)
	return p.chunks[i.off>>chunkBits][at : at+i.size]
}

func (p *portion) key(i item) []byte {
	r := p.record(i)
	return r[1 : 1+r[0]]
}

func (p *portion) effects(i item) []byte {
	r := p.record(i)
	return r[1+r[0]:]
}

func (p *portion) full() bool { return len(p.items) >= portionItems || p.bytes > portionBytes }

func (p *portion) empty() { p.items, p.used, p.bytes = p.items[:0], 0, 0 }

// begin adds an item.
func (p *portion) begin(key, effect []byte) {
	n := 1 + len(key) + len(effect)
	off := p.room(n)
	c := &p.chunks[p.used-1]
	*c = append(append(append(*c, byte(len(key))), key...), effect...)
	p.items = append(p.items, item{off: off, size: uint32(n)})
	p.bytes += n
}

// extend adds an effect to the last item.
func (p *portion) extend(effect []byte) {
	i := &p.items[len(p.items)-1]
	c := &p.chunks[p.used-1]
	if len(*c)+len(effect) > 1<<chunkBits { // the item moves to a chunk with more room
		was := p.record(*i)
		i.off = p.room(1 << chunkBits)
		c = &p.chunks[p.used-1]
		*c = append(*c, was...)
	}
	*c = append(*c, effect...)
	i.size += uint32(len(effect))
	p.bytes += len(effect)
}

// room makes the last chunk one with room for n bytes, and gives where they begin.
func (p *portion) room(n int) uint32 {
	if p.used == 0 || len(p.chunks[p.used-1])+n > 1<<chunkBits {
		if p.used == len(p.chunks) {
			p.chunks = append(p.chunks, make([]byte, 0, 1<<chunkBits))
		}
		p.chunks[p.used] = p.chunks[p.used][:0]
		p.used++
	}
	return uint32((p.used-1)<<chunkBits + len(p.chunks[p.used-1]))
}

// gathering takes effects and keeps them sorted on disk. Close removes them.
type gathering struct {
	dir    string
	tree   *runs.Tree
	now    *portion
	spare  *portion
	writes errgroup.Group // one portion at a time
	keys   distinct
}

func gather(dir string, key []byte) (*gathering, error) {
	g := &gathering{dir: filepath.Join(dir, "effects"), now: new(portion), spare: new(portion)}
	var err error
	g.tree, err = runs.Open(g.dir, key, nil)
	return g, err
}

// add takes an effect; a nil key is that of the effect before.
func (g *gathering) add(key, effect []byte) error {
	if key == nil {
		g.now.extend(effect)
		return nil
	}
	if g.now.full() {
		if err := g.flush(); err != nil {
			return err
		}
	}
	g.now.begin(key, effect)
	g.keys.add(key)
	return nil
}

// flush has the portion written while the next one is gathered.
func (g *gathering) flush() error {
	if err := g.writes.Wait(); err != nil {
		return err
	}
	g.writes = errgroup.Group{}
	full := g.now
	g.now, g.spare = g.spare, full
	g.now.empty()
	if len(full.items) == 0 {
		return nil
	}
	g.writes.Go(func() error {
		full.sort()
		run, err := g.tree.Write(0, full.rows) // nobody looks for a key in it: its filter need tell nothing
		if err != nil {
			return err
		}
		v := g.tree.Current()
		defer v.Release()
		g.tree.Install(v.With(run))
		return nil
	})
	return nil
}

// sort orders the items by key, and effects on one key as they came.
func (p *portion) sort() {
	first := p.key(p.items[0])
	shared := len(first)
	for _, i := range p.items {
		k := p.key(i)
		n := 0
		for n < shared && n < len(k) && k[n] == first[n] {
			n++
		}
		shared = n
	}
	for n, i := range p.items {
		var b [8]byte
		copy(b[:], p.key(i)[shared:])
		p.items[n].prefix = binary.BigEndian.Uint64(b[:])
	}
	slices.SortFunc(p.items, func(x, y item) int {
		if x.prefix != y.prefix {
			return cmp.Compare(x.prefix, y.prefix)
		}
		if c := bytes.Compare(p.key(x), p.key(y)); c != 0 {
			return c
		}
		return cmp.Compare(x.off, y.off)
	})
}

// rows gives the rows of the portion's run.
func (p *portion) rows(yield func(key, effects []byte) bool) {
	var all []byte
	for n := 0; n < len(p.items); {
		key := p.key(p.items[n])
		all = append(all[:0], p.effects(p.items[n])...)
		for n++; n < len(p.items) && bytes.Equal(p.key(p.items[n]), key); n++ {
			all = append(all, p.effects(p.items[n])...)
		}
		if !yield(key, all) {
			return
		}
	}
}

// fold makes every row, in order of key.
func (g *gathering) fold(replay *record.Replay, counts *record.Counts, row func(key, value []byte) error) error {
	if err := errors.Join(g.flush(), g.writes.Wait()); err != nil {
		return err
	}
	g.now, g.spare = nil, nil
	v := g.tree.Current()
	defer v.Release()
	it, err := v.Iterate([]byte{0})
	if err != nil {
		return err
	}
	var effects []byte
	for it.Valid() {
		key, _ := it.Row()
		effects = effects[:0]
		it.All(func(e []byte) { effects = append(effects, e...) })
		value, err := replay.Fold(key, effects, counts)
		if err != nil {
			return err
		}
		if value != nil {
			if err := row(key, value); err != nil {
				return err
			}
		}
		if err := it.Next(); err != nil {
			return err
		}
	}
	return nil
}

func (g *gathering) close() error {
	return errors.Join(g.writes.Wait(), g.tree.Close(), os.RemoveAll(g.dir))
}

// replayBulk is replay for a store that keeps runs.
func (s *Store) replayBulk(g *generation, r io.Reader) (index uint64, err error) {
	effects, err := gather(g.dir, s.cfg.Key)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, effects.close()) }()
	replay := record.NewReplay(s.rules, effects.add)
	w, index, err := s.replayInto(g, r, replay.Apply)
	defer func() { w.discard() }()
	if err != nil {
		return 0, err
	}
	var counts record.Counts
	var folding error
	run, err := g.layers.tree.Write(effects.keys.atMost(), func(yield func(k, v []byte) bool) {
		folding = effects.fold(replay, &counts, func(k, v []byte) error {
			w.addToHash(k, v)
			if !yield(k, v) {
				return errors.New("the run cannot be written")
			}
			return nil
		})
	})
	if folding != nil {
		if run != nil {
			folding = errors.Join(folding, run.Drop())
		}
		return 0, refusedAt(folding)
	}
	if err != nil {
		return 0, err
	}
	if err := replay.End(w, counts); err != nil {
		return 0, errors.Join(refusedAt(err), run.Drop())
	}
	if err := s.markEnd(w, index); err != nil {
		return 0, err
	}
	return index, g.commitWith(w, index, spilled{run: run})
}

func refusedAt(err error) error {
	if record.IsRefusal(err) {
		return fmt.Errorf("%w: %w", ErrBadSnapshot, err)
	}
	return err
}

// addToHash adds a row that was not there before, and is written beside the transaction.
func (w *writer) addToHash(k, v []byte) {
	b, _ := statehash.Bucket(k, record.OfPublic(k))
	w.hash.Add(w.sumOf(b), k, v)
}

// distinct estimates how many different keys there are (HyperLogLog): the filter of a run
// must be sized before its rows are known.
type distinct struct{ most [1 << 12]uint8 }

func (d *distinct) add(key []byte) {
	h := xxhash.Sum64(key)
	at := h >> 52
	d.most[at] = max(d.most[at], uint8(bits.LeadingZeros64(h<<12|1<<11)+1))
}

// atMost is hardly ever too small, and then the filter is a little worse.
func (d *distinct) atMost() uint64 {
	sum, empty := 0.0, 0
	for _, m := range d.most {
		sum += math.Pow(2, -float64(m))
		if m == 0 {
			empty++
		}
	}
	n := float64(len(d.most))
	estimate := 0.7213 / (1 + 1.079/n) * n * n / sum
	if estimate < 2.5*n && empty > 0 {
		estimate = n * math.Log(n/float64(empty))
	}
	return uint64(1.1*estimate) + 16
}
