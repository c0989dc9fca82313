package tlog

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// TilesDir is the directory of the tiles, within the journal's. It may be deleted
// while nothing runs.
const TilesDir = "tiles"

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	hashSize   = merkle.HashSize

	// maxLevel bounds the levels of tiles: 2^63 leaves have no more.
	maxLevel = 63 / tileHeight
	// maxPending bounds what one level keeps in memory before it is written.
	maxPending = 1 << 20
)

// tiles holds the tree on disk. The file "level-L" holds, in a row, all hashes of
// the tree's level 8·L: 256 in a row are a tile, fewer at its end a partial one.
//
// One goroutine adds; any may read what is written already.
type tiles struct {
	fs    disk.FS
	tree  compact
	level [maxLevel + 1]level

	mu    sync.RWMutex
	files [maxLevel + 1]disk.File // nil: not opened yet
}

// level is one file's end that is not written yet.
type level struct {
	written int64 // hashes
	pending []byte
	dirty   bool // written since the last sync
}

func (t *tiles) size() int64 { return t.tree.n }
func (t *tiles) root() Hash  { return t.tree.root() }

func levelName(l int) string { return fmt.Sprintf("level-%d", l) }

// add adds a leaf.
func (t *tiles) add(leaf Hash) error {
	var full error
	t.tree.add(leaf, func(height int, h Hash) {
		if height%tileHeight != 0 {
			return
		}
		lv := &t.level[height/tileHeight]
		if lv.pending = append(lv.pending, h[:]...); len(lv.pending) >= maxPending {
			full = errors.Join(full, t.write(height/tileHeight))
		}
	})
	return full
}

// write writes what is pending of a level.
func (t *tiles) write(l int) error {
	lv := &t.level[l]
	if len(lv.pending) == 0 {
		return nil
	}
	f, err := t.file(l, true)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(lv.pending, lv.written*hashSize); err != nil {
		return fmt.Errorf("write tiles of level %d: %w", l, err)
	}
	lv.written += int64(len(lv.pending) / hashSize)
	lv.pending, lv.dirty = lv.pending[:0], true
	return nil
}

// sync makes all that was added readable and durable.
func (t *tiles) sync() error {
	for l := range t.level {
		if err := t.write(l); err != nil {
			return err
		}
		if !t.level[l].dirty {
			continue
		}
		f, err := t.file(l, false)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return fmt.Errorf("sync tiles of level %d: %w", l, err)
		}
		t.level[l].dirty = false
	}
	return nil
}

// file gives the open file of a level.
func (t *tiles) file(l int, create bool) (disk.File, error) {
	t.mu.RLock()
	f := t.files[l]
	t.mu.RUnlock()
	if f != nil {
		return f, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.files[l] == nil {
		f, err := t.fs.Open(levelName(l), create)
		if err != nil {
			return nil, err
		}
		if create {
			err = t.fs.SyncDir()
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		t.files[l] = f
	}
	return t.files[l], nil
}

// load takes the tree of n leaves from the files. That they hold the right one is
// for the caller to check.
func (t *tiles) load(n int64) error {
	hashes, err := t.ReadHashes(peakIndexes(n))
	if err != nil {
		return err
	}
	t.reset()
	t.tree = compact{n, hashes}
	for l := range t.level {
		t.level[l].written = n >> (tileHeight * l)
	}
	return nil
}

// reset begins the tree again; what the files hold will be written over.
func (t *tiles) reset() {
	t.tree, t.level = compact{}, [maxLevel + 1]level{}
}

// ReadHashes reads stored hashes, unchecked.
func (t *tiles) ReadHashes(indexes []int64) ([]Hash, error) {
	hashes := make([]Hash, len(indexes))
	for i, x := range indexes {
		tile := merkle.TileForIndex(tileHeight, x)
		data, err := t.read(tile)
		if err != nil {
			return nil, err
		}
		if hashes[i], err = merkle.HashFromTile(tile, data, x); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

var _ merkle.HashReader = (*tiles)(nil)

// read reads a tile from its file, unchecked.
func (t *tiles) read(tile merkle.Tile) ([]byte, error) {
	f, err := t.file(tile.L, false)
	if err != nil {
		return nil, err
	}
	data := make([]byte, tile.W*hashSize)
	if _, err := f.ReadAt(data, tile.N*tileWidth*hashSize); err != nil {
		return nil, fmt.Errorf("read tile %s: %w", tilePath(tile), err)
	}
	return data, nil
}

func (t *tiles) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for i, f := range t.files {
		if f != nil {
			errs = append(errs, f.Close())
			t.files[i] = nil
		}
	}
	return errors.Join(errs...)
}

// tilePath gives a tile's path in the form of c2sp.org/tlog-tiles.
func tilePath(t merkle.Tile) string { return "tile/" + strings.TrimPrefix(t.Path(), "tile/8/") }

// parseTilePath reads a path "tile/<L>/<N>[.p/<W>]".
func parseTilePath(path string) (merkle.Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || len(path) > 100 {
		return merkle.Tile{}, errTilePath
	}
	t, err := merkle.ParseTilePath("tile/8/" + rest)
	if err != nil || t.L < 0 || t.L > maxLevel || t.N > 1<<55 || tilePath(t) != path {
		return merkle.Tile{}, errTilePath
	}
	return t, nil
}

var errTilePath = fmt.Errorf("%w: not the path of a tile of hashes; it is tile/<L>/<N>, or tile/<L>/<N>.p/<W>", ErrNotInTree)
