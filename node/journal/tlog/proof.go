package tlog

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	merkle "golang.org/x/mod/sumdb/tlog"
)

// Tile gives a tile's hashes: 32 bytes each, one after the other. path is
// "tile/<L>/<N>" with "/p" and a width for one that is not full, as
// c2sp.org/tlog-tiles has it. Only what the last checkpoint covers is given: the
// error wraps ErrNotInTree for all else. The bytes of one path never change.
func (l *Log) Tile(path string) ([]byte, error) {
	t, err := parseTilePath(path)
	if err != nil {
		return nil, err
	}
	if end := t.N*tileWidth + int64(t.W); end > l.Size()>>(tileHeight*t.L) {
		return nil, fmt.Errorf("%w: %s", ErrNotInTree, path)
	}
	return l.tiles.read(t)
}

// InclusionProof proves that entry seq is in the tree of the first size entries,
// which the last checkpoint must cover. What it is made from is checked against
// that checkpoint.
func (l *Log) InclusionProof(size, seq int64) ([]Hash, error) {
	r, err := l.reader(size)
	if err != nil {
		return nil, err
	}
	if seq < 0 || seq >= size {
		return nil, fmt.Errorf("%w: entry %d of %d", ErrNotInTree, seq, size)
	}
	p, err := merkle.ProveRecord(size, seq, r)
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w; rebuild the tree with crossroads journal rebuild", seq, err)
	}
	return p, nil
}

// ConsistencyProof proves that the tree of the first older entries is the beginning
// of that of the first newer, which the last checkpoint must cover.
func (l *Log) ConsistencyProof(older, newer int64) ([]Hash, error) {
	r, err := l.reader(newer)
	if err != nil {
		return nil, err
	}
	switch {
	case older < 0 || older > newer:
		return nil, fmt.Errorf("%w: a tree of %d before one of %d", ErrNotInTree, older, newer)
	case older == 0 || older == newer:
		return nil, nil
	}
	p, err := merkle.ProveTree(newer, older, r)
	if err != nil {
		return nil, fmt.Errorf("prove that %d continues %d: %w; rebuild the tree with crossroads journal rebuild", newer, older, err)
	}
	return p, nil
}

// reader gives the hashes of the last checkpoint's tree, each checked.
func (l *Log) reader(size int64) (merkle.HashReader, error) {
	c := l.Latest()
	if size < 0 || size > c.Size {
		return nil, fmt.Errorf("%w: a tree of %d, the last checkpoint covers %d", ErrNotInTree, size, c.Size)
	}
	return merkle.TileHashReader(merkle.Tree{N: c.Size, Hash: c.Root}, tileReader{l.tiles}), nil
}

// tileReader lends the tiles to package merkle.
type tileReader struct{ *tiles }

func (tileReader) Height() int { return tileHeight }

func (r tileReader) ReadTiles(list []merkle.Tile) (data [][]byte, err error) {
	data = make([][]byte, len(list))
	for i, t := range list {
		if data[i], err = r.read(t); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (tileReader) SaveTiles([]merkle.Tile, [][]byte) {}

// CheckConsistency checks that the tree of newer continues that of older.
func CheckConsistency(older, newer Checkpoint, proof []Hash) error {
	switch {
	case older.Size > newer.Size:
		return fmt.Errorf("a tree of %d does not continue one of %d", newer.Size, older.Size)
	case older.Size == newer.Size && older.Root != newer.Root:
		return fmt.Errorf("two roots for one size of %d: %v and %v", older.Size, older.Root, newer.Root)
	case older.Size == 0 || older.Size == newer.Size:
		if len(proof) != 0 {
			return errors.New("a proof where none is needed")
		}
		return nil
	}
	return merkle.CheckTree(proof, newer.Size, newer.Root, older.Size, older.Root)
}

// Proof is an inclusion proof together with the checkpoint it leads to.
type Proof struct {
	Index      int64
	Path       []Hash
	Checkpoint []byte // a signed note, with whatever cosignatures it has
}

const proofHead = "c2sp.org/tlog-proof@v1\n"

// maxProof bounds what ParseProof reads: 64 hashes and a checkpoint.
const maxProof = MaxCheckpoint + 4096

// Marshal gives the proof in the form of c2sp.org/tlog-proof@v1.
func (p Proof) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%sindex %d\n", proofHead, p.Index)
	for _, h := range p.Path {
		fmt.Fprintln(&b, base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(p.Checkpoint)
	return b.Bytes()
}

// ParseProof reads the form of c2sp.org/tlog-proof@v1, without extra data, which we
// do not write. Nothing is verified.
func ParseProof(b []byte) (Proof, error) {
	malformed := func(what string) (Proof, error) { return Proof{}, errors.New("malformed proof: " + what) }
	if len(b) > maxProof {
		return malformed("it is too long")
	}
	rest, ok := strings.CutPrefix(string(b), proofHead+"index ")
	if !ok {
		return malformed("want " + strings.TrimSpace(proofHead) + " and an index")
	}
	head, checkpoint, ok := strings.Cut(rest, "\n\n")
	if !ok {
		return malformed("it has no checkpoint")
	}
	lines := strings.Split(head, "\n")
	p := Proof{Checkpoint: []byte(checkpoint)}
	var err error
	if p.Index, err = strconv.ParseInt(lines[0], 10, 64); err != nil || p.Index < 0 || strconv.FormatInt(p.Index, 10) != lines[0] {
		return malformed("its index is no number")
	}
	for _, line := range lines[1:] {
		h, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(h) != hashSize || base64.StdEncoding.EncodeToString(h) != line {
			return malformed("one of its lines is no hash")
		}
		p.Path = append(p.Path, Hash(h))
	}
	return p, nil
}

// Check checks that the proof leads from a leaf to a checkpoint, which the caller
// has opened from p.Checkpoint.
func (p Proof) Check(c Checkpoint, leaf Hash) error {
	if err := merkle.CheckRecord(p.Path, c.Size, c.Root, p.Index, leaf); err != nil {
		return fmt.Errorf("entry %d is not in the tree of %d entries of %s: %w", p.Index, c.Size, c.Origin, err)
	}
	return nil
}
