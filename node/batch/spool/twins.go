package spool

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// Twins finds the lines of a file that are about a subject that another line is about,
// whatever the file's length, in memory that does not grow with it: each number's hash goes
// into one of some parts on disk, encrypted under a key that only this memory holds, and
// each part is then sorted by itself. It is for one goroutine.
type Twins struct {
	fs    disk.FS
	name  string
	seeds [2]maphash.Seed
	parts [parts]*part
}

const (
	parts    = 64
	twinSize = 16 + 4 // hash, line
	buffered = 4 << 10
)

type part struct {
	file   disk.File
	name   string
	stream *bufio.Writer
	end    int64
	count  int
	aead   cipher.Stream // for writing
	key    []byte
}

// Twin is a line, and the first one that is about the same subject.
type Twin struct{ Line, First uint32 }

// Twins begins to look for twins; name is of files that nobody else uses. The caller calls
// Close.
func (s *Spool) Twins(name string) *Twins {
	return &Twins{fs: s.fs, name: name, seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

// Add tells of a line and its subject's number.
func (t *Twins) Add(line uint32, number string) error {
	var b [twinSize]byte
	for i, s := range t.seeds {
		binary.BigEndian.PutUint64(b[8*i:], maphash.String(s, number))
	}
	binary.BigEndian.PutUint32(b[16:], line)
	i := int(b[0]) % parts
	if t.parts[i] == nil {
		p, err := t.part(i)
		if err != nil {
			return err
		}
		t.parts[i] = p
	}
	p := t.parts[i]
	p.count++
	_, err := p.stream.Write(b[:])
	return err
}

func (t *Twins) part(i int) (*part, error) {
	p := &part{name: fmt.Sprintf("%s-%d%s", t.name, i, partial), key: make([]byte, 32)}
	rand.Read(p.key)
	var err error
	if p.file, err = t.fs.Open(p.name, true); err != nil {
		return nil, fmt.Errorf("lot spool: %w", err)
	}
	if p.aead, err = p.cipher(); err != nil {
		return nil, err
	}
	p.stream = bufio.NewWriterSize(p, buffered)
	return p, nil
}

// cipher gives the key's stream from its beginning: the key is fresh and used once.
func (p *part) cipher() (cipher.Stream, error) {
	block, err := aes.NewCipher(p.key)
	if err != nil {
		return nil, err
	}
	return cipher.NewCTR(block, make([]byte, aes.BlockSize)), nil
}

// Write is for the buffer.
func (p *part) Write(b []byte) (int, error) {
	c := make([]byte, len(b))
	p.aead.XORKeyStream(c, b)
	n, err := p.file.WriteAt(c, p.end)
	p.end += int64(n)
	return n, err
}

// All gives every line that has an earlier twin, in order of line.
func (t *Twins) All() (all []Twin, err error) {
	for _, p := range t.parts {
		if p == nil {
			continue
		}
		if all, err = p.twins(all); err != nil {
			return nil, fmt.Errorf("lot spool: %w", err)
		}
	}
	slices.SortFunc(all, func(a, b Twin) int { return cmp.Compare(a.Line, b.Line) })
	return all, nil
}

func (p *part) twins(all []Twin) ([]Twin, error) {
	if err := p.stream.Flush(); err != nil {
		return nil, err
	}
	raw := make([]byte, p.count*twinSize)
	if _, err := p.file.ReadAt(raw, 0); err != nil && err != io.EOF {
		return nil, err
	}
	stream, err := p.cipher()
	if err != nil {
		return nil, err
	}
	stream.XORKeyStream(raw, raw)
	order := make([][]byte, p.count)
	for i := range order {
		order[i] = raw[i*twinSize : (i+1)*twinSize]
	}
	slices.SortFunc(order, bytes.Compare) // by hash, and then by line
	first := 0
	for i := 1; i < len(order); i++ {
		if !bytes.Equal(order[i][:16], order[first][:16]) {
			first = i
			continue
		}
		all = append(all, Twin{binary.BigEndian.Uint32(order[i][16:]), binary.BigEndian.Uint32(order[first][16:])})
	}
	return all, nil
}

// Close removes the files.
func (t *Twins) Close() error {
	var errs []error
	for _, p := range t.parts {
		if p != nil {
			errs = append(errs, p.file.Close(), t.fs.Remove(p.name))
		}
	}
	return errors.Join(errs...)
}
