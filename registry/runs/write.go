package runs

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/crossroads-mesh/crossroads/registry/pace"
)

const (
	magic     = "CRRUN1\r\n"
	headSize  = len(magic) + saltSize
	footSize  = 4 * 8
	blockSize = 4 << 10
	maxKey    = 1 << 10
	maxValue  = 256 << 20
	// addsAtOnce is how many keys are added to the filter at once, see filter.add.
	addsAtOnce = 1 << 10
)

// Writer writes one run. It is not safe for concurrent use.
type Writer struct {
	path  string
	f     *os.File
	w     *bufio.Writer
	seal  *seal
	block []byte // rows of the block under way
	last  []byte // key of the last row
	index []byte
	first []byte // key of the last block begun
	bits  filter
	adds  []uint64 // hashes of keys that bits lacks

	rows, blocks uint64
	written      pace.Written
	sealed       []byte // scratch
}

// create begins a run, with a filter for so many rows.
func create(path string, key []byte, filterFor uint64) (*Writer, error) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	s, err := newSeal(key, salt)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{path: path, f: f, w: bufio.NewWriterSize(f, 256<<10), seal: s, bits: newFilter(filterFor)}
	if err := w.put(append([]byte(magic), salt...)); err != nil {
		return nil, errors.Join(err, w.abort())
	}
	return w, nil
}

// Add writes the next row; keys ascend. An empty value says that the row was deleted.
func (w *Writer) Add(key, value []byte) error {
	if len(key) == 0 || len(key) > maxKey || len(value) > maxValue {
		return fmt.Errorf("a row of %d and %d bytes does not fit into a run", len(key), len(value))
	}
	if w.rows > 0 && bytes.Compare(key, w.last) <= 0 {
		return errors.New("rows of a run out of order")
	}
	if len(w.block) >= blockSize {
		if err := w.flush(); err != nil {
			return err
		}
	}
	prev := w.last
	if len(w.block) == 0 { // a block stands for itself
		prev = nil
		w.index = appendKey(w.index, w.first, key)
		w.first = append(w.first[:0], key...)
	}
	w.block = appendKey(w.block, prev, key)
	w.block = append(binary.AppendUvarint(w.block, uint64(len(value))), value...)
	w.last = append(w.last[:0], key...)
	if w.adds = append(w.adds, hashOf(key)); len(w.adds) == addsAtOnce {
		w.filter()
	}
	w.rows++
	return nil
}

// filter adds what the filter lacks.
func (w *Writer) filter() {
	w.bits.add(w.adds...)
	w.adds = w.adds[:0]
}

func appendKey(b, prev, key []byte) []byte {
	shared := 0
	for shared < len(prev) && shared < len(key) && prev[shared] == key[shared] {
		shared++
	}
	b = binary.AppendUvarint(b, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(key)-shared))
	return append(b, key[shared:]...)
}

func (w *Writer) flush() error {
	n, err := w.part(partBlock, w.blocks, w.block)
	if err != nil {
		return err
	}
	w.index = binary.AppendUvarint(w.index, uint64(n))
	w.blocks++
	w.block = w.block[:0]
	return nil
}

func (w *Writer) part(part byte, number uint64, open []byte) (int, error) {
	w.sealed = w.seal.close(w.sealed[:0], part, number, open)
	return len(w.sealed), w.put(w.sealed)
}

func (w *Writer) put(b []byte) error {
	if _, err := w.w.Write(b); err != nil {
		return err
	}
	if !w.written.Due(len(b)) {
		return nil
	}
	return errors.Join(w.w.Flush(), w.f.Sync())
}

// finish makes the file whole and durable, but for its name in the folder.
func (w *Writer) finish() error {
	if len(w.block) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	index, err := w.part(partIndex, 0, w.index)
	if err != nil {
		return err
	}
	w.filter()
	bits, err := w.part(partFilter, 0, w.bits)
	if err != nil {
		return err
	}
	foot := binary.BigEndian.AppendUint64(nil, w.rows)
	foot = binary.BigEndian.AppendUint64(foot, w.blocks)
	foot = binary.BigEndian.AppendUint64(foot, uint64(index))
	foot = binary.BigEndian.AppendUint64(foot, uint64(bits))
	n, err := w.part(partFoot, 0, foot)
	if err != nil {
		return err
	}
	if err := w.put(binary.BigEndian.AppendUint32(nil, uint32(n))); err != nil {
		return err
	}
	return errors.Join(w.w.Flush(), w.f.Sync(), w.f.Close())
}

func (w *Writer) abort() error { return errors.Join(w.f.Close(), os.Remove(w.path)) }
