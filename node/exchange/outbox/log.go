package outbox

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// A file is named after its number, and begins with
//
//	"XROUT02\n" ‖ number (8) ‖ number of the file it replaces, or 0 (8) ‖ salt (16) ‖ check (16) ‖ CRC-32C of these (4) ‖ 4 zero bytes
//
// where key ‖ check = HKDF-Expand(files, "segment" ‖ number ‖ salt), 48 bytes, and
// files = HKDF-SHA256(storage key, info "crossroads outbox v2 files"). Groups
// follow, each written and synced as one, then zeros:
//
//	"XROG" ‖ CRC-32C of all that follows (4) ‖ number of the file (8) ‖ index, from 0 (8) ‖ size of names (4) ‖ size of values (4) ‖ names ‖ values ‖ zeros to a multiple of 8
//
// names is AES-256-GCM(key, nonce = index, aad = number ‖ index) over one item for
// each row: uvarint size of the row's name ‖ name ‖ uvarint size of its value.
// A value of no size is a deletion. Integers are little-endian.
const (
	segmentMagic  = "XROUT02\n"
	segmentHead   = 64
	segmentSuffix = ".outbox"
	groupMagic    = "XROG"
	groupHead     = 32
	saltSizeFile  = 16
	alignment     = 8

	// maxWrite bounds the rows of one write, and with it a group, in bytes.
	maxWrite = 16 << 20
	// maxBody bounds what is believed of a group's head.
	maxBody = 2 * maxWrite
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is one file.
type segment struct {
	number   uint64
	replaces uint64
	names    cipher.AEAD
	file     disk.File
	groups   uint64 // the writer's: index of the next group
	end      int64  // the writer's: where it goes
	filled   int64  // the writer's: zeros lie durably up to here
	live     int64  // bytes of values that are wanted; guarded by Outbox.mu
}

// place is where a sealed value lies.
type place struct {
	segment *segment // nil: nowhere
	offset  int64
	size    int32
}

func (p place) read() ([]byte, error) {
	raw := make([]byte, p.size)
	if _, err := p.segment.file.ReadAt(raw, p.offset); err != nil {
		return nil, fmt.Errorf("outbox: read %s: %w", segmentName(p.segment.number), err)
	}
	return raw, nil
}

func segmentName(number uint64) string { return fmt.Sprintf("%020d%s", number, segmentSuffix) }

// numbers gives the numbers of all files, in order.
func numbers(fs disk.FS) (all []uint64, err error) {
	names, err := fs.List()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, segmentSuffix)
		if n, err := strconv.ParseUint(digits, 10, 64); ok && err == nil && segmentName(n) == name {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

// header makes a new file's head, and its cipher.
func (s *segment) header(files []byte) ([]byte, error) {
	b := binary.LittleEndian.AppendUint64([]byte(segmentMagic), s.number)
	b = binary.LittleEndian.AppendUint64(b, s.replaces)
	salt := make([]byte, saltSizeFile)
	rand.Read(salt)
	check, err := s.unlock(files, salt)
	if err != nil {
		return nil, err
	}
	b = append(append(b, salt...), check...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return append(b, make([]byte, segmentHead-len(b))...), nil
}

// readHeader reads it back.
func (s *segment) readHeader(files []byte) error {
	b := make([]byte, segmentHead)
	if _, err := s.file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if string(b[:8]) != segmentMagic || binary.LittleEndian.Uint64(b[8:]) != s.number ||
		binary.LittleEndian.Uint32(b[56:]) != crc32.Checksum(b[:56], castagnoli) {
		return s.damaged(0, "its head is wrong")
	}
	s.replaces = binary.LittleEndian.Uint64(b[16:])
	check, err := s.unlock(files, b[24:40])
	if err != nil {
		return err
	}
	if string(check) != string(b[40:56]) {
		return ErrWrongKey
	}
	return nil
}

// unlock derives the file's cipher, and what tells the right key from another.
func (s *segment) unlock(files, salt []byte) (check []byte, err error) {
	info := binary.LittleEndian.AppendUint64([]byte("segment"), s.number)
	key, err := hkdf.Expand(sha256.New, files, string(append(info, salt...)), 48)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key[:32])
	if err != nil {
		return nil, err
	}
	s.names, err = cipher.NewGCM(block)
	return key[32:], err
}

func (s *segment) damaged(offset int64, why string) error {
	return fmt.Errorf("%w: %s, offset %d: %s; restore the file, or move the directory away and let the node rest for "+
		"as long as clearances live: exchanges under way are then forgotten", ErrDamaged, segmentName(s.number), offset, why)
}

// rowSize bounds what a row takes in a group.
func rowSize(r *row) int { return 1 + len(r.ID) + len(r.raw) + 2*binary.MaxVarintLen32 }

// appendGroup encodes rows as the next group of s, and gives where the values
// begin in it.
func (s *segment) appendGroup(b []byte, rows []*row) []byte {
	var names []byte
	size := 0
	for _, r := range rows {
		names = binary.AppendUvarint(names, uint64(1+len(r.ID)))
		names = append(append(names, byte(r.Table)), r.ID...)
		names = binary.AppendUvarint(names, uint64(len(r.raw)))
		size += len(r.raw)
	}
	start := len(b)
	b = append(append(b, groupMagic...), 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, s.number)
	b = binary.LittleEndian.AppendUint64(b, s.groups)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(names)+s.names.Overhead()))
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = s.names.Seal(b, s.nonce(s.groups), names, b[start+8:start+24])
	for _, r := range rows {
		b = append(b, r.raw...)
	}
	for (len(b)-start)%alignment != 0 {
		b = append(b, 0)
	}
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(b[start+8:], castagnoli))
	return b
}

func (s *segment) nonce(index uint64) []byte {
	return binary.LittleEndian.AppendUint64(make([]byte, s.names.NonceSize()-8), index)
}

// groupSize judges a group's head and gives the size of the whole.
func (s *segment) groupSize(b []byte) (size, names int, ok bool) {
	if len(b) < groupHead || string(b[:4]) != groupMagic || binary.LittleEndian.Uint64(b[8:]) != s.number {
		return 0, 0, false
	}
	n, v := binary.LittleEndian.Uint32(b[24:]), binary.LittleEndian.Uint32(b[28:])
	if n > maxBody || v > maxBody {
		return 0, 0, false
	}
	size = groupHead + int(n) + int(v)
	return (size + alignment - 1) / alignment * alignment, int(n), true
}

// readGroup decodes the group that b begins with, which lies at offset. Values of
// the rows are parts of b. ok is false when there is no whole group.
func (s *segment) readGroup(b []byte, index uint64, offset int64) (rows []*row, ok bool) {
	size, n, ok := s.groupSize(b)
	if !ok || size > len(b) || binary.LittleEndian.Uint64(b[16:]) != index ||
		binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[8:size], castagnoli) {
		return nil, false
	}
	names, err := s.names.Open(nil, s.nonce(index), b[groupHead:groupHead+n], b[8:24])
	if err != nil {
		return nil, false
	}
	for at := groupHead + n; len(names) > 0; {
		name, rest, ok := cut(names)
		if !ok || len(name) == 0 {
			return nil, false
		}
		v, k := binary.Uvarint(rest)
		if k <= 0 || v > uint64(size-at) {
			return nil, false
		}
		r := &row{Key: Key{Table(name[0]), string(name[1:])}}
		if v > 0 {
			r.raw = b[at : at+int(v)]
			r.from = place{s, offset + int64(at), int32(v)}
			if r.until, err = untilOf(r.raw); err != nil {
				r.until = 0 // Get will say so
			}
		}
		rows, names, at = append(rows, r), rest[k:], at+int(v)
	}
	return rows, true
}

func cut(b []byte) (part, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	return b[k : k+int(n)], b[k+int(n):], true
}

// scan gives fn the rows of each whole group, in order, and gives where the first
// byte lies that belongs to none. The values are fn's only during the call.
func (s *segment) scan(fn func(rows []*row) error) (end int64, groups uint64, err error) {
	end = segmentHead
	br := bufio.NewReaderSize(io.NewSectionReader(s.file, segmentHead, math.MaxInt64-segmentHead), 1<<20)
	var buf []byte
	for ; ; groups++ {
		head, err := br.Peek(groupHead)
		if err != nil {
			return end, groups, ignoreEOF(err)
		}
		size, _, ok := s.groupSize(head)
		if !ok {
			return end, groups, nil
		}
		buf = slices.Grow(buf[:0], size)[:size]
		if _, err := io.ReadFull(br, buf); err != nil {
			return end, groups, ignoreEOF(err)
		}
		rows, ok := s.readGroup(buf, groups, end)
		if !ok {
			return end, groups, nil
		}
		if err := fn(rows); err != nil {
			return end, groups, err
		}
		end += int64(size)
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
