package journal

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	headerSize  = 64
	alignment   = 8
	padding     = 0xA5
	recordMagic = "XRJ1"
	recordLabel = "crossroads journal record v1\x00"
	gcmOverhead = 16
	maxBody     = SaltSize + MaxEntry + gcmOverhead
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the readable part of a record.
type header struct {
	length     uint32 // of the ciphertext
	place      uint32 // in its commit group
	period     period
	sequence   uint64
	commitment [CommitmentSize]byte
}

// group gives the sequence number of the first record of the commit group.
func (h header) group() uint64 { return h.sequence - uint64(h.place) }

// size gives the bytes that the whole record takes.
func (h header) size() int64 { return recordSize(int(h.length)) }

func recordSize(body int) int64 {
	return int64(headerSize+body+alignment-1) / alignment * alignment
}

var (
	errHeader = errors.New("the header's checksum is wrong")
	errBody   = errors.New("the record's checksum is wrong")
)

// appendRecord encrypts an entry and appends its record to dst.
func appendRecord(dst []byte, h header, aead cipher.AEAD, salt [SaltSize]byte, entry []byte) []byte {
	h.length = uint32(SaltSize + len(entry) + gcmOverhead)
	start := len(dst)
	dst = append(dst, recordMagic...)
	dst = append(dst, make([]byte, 8)...) // the two checksums
	dst = binary.LittleEndian.AppendUint32(dst, h.length)
	dst = binary.LittleEndian.AppendUint32(dst, h.place)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.period))
	dst = binary.LittleEndian.AppendUint64(dst, h.sequence)
	dst = append(dst, h.commitment[:]...)
	var ad [len(recordLabel) + headerSize - 12]byte
	body := len(dst)
	dst = append(append(dst, salt[:]...), entry...)
	dst = aead.Seal(dst[:body], nonce(h), dst[body:], appendAdditional(ad[:0], dst[start:]))
	for len(dst)-start < int(h.size()) {
		dst = append(dst, padding)
	}
	rec := dst[start:]
	binary.LittleEndian.PutUint32(rec[8:], crc32.Checksum(rec[headerSize:], castagnoli))
	binary.LittleEndian.PutUint32(rec[4:], crc32.Checksum(rec[8:headerSize], castagnoli))
	return dst
}

func nonce(h header) []byte { return h.commitment[:12] }

func appendAdditional(dst, head []byte) []byte {
	return append(append(dst, recordLabel...), head[12:headerSize]...)
}

// parseHeader reads the first headerSize bytes of b.
func parseHeader(b []byte) (header, error) {
	if len(b) < headerSize || string(b[:4]) != recordMagic ||
		binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[8:headerSize], castagnoli) {
		return header{}, errHeader
	}
	h := header{
		length:     binary.LittleEndian.Uint32(b[12:]),
		place:      binary.LittleEndian.Uint32(b[16:]),
		period:     period(binary.LittleEndian.Uint32(b[20:])),
		sequence:   binary.LittleEndian.Uint64(b[24:]),
		commitment: [CommitmentSize]byte(b[32:]),
	}
	if h.length < SaltSize+gcmOverhead || h.length > maxBody || uint64(h.place) > h.sequence {
		return header{}, errHeader
	}
	return h, nil
}

// parseRecord reads the record at the beginning of b and checks both checksums.
// It gives the header also when only the rest is wrong (errBody).
func parseRecord(b []byte) (header, error) {
	h, err := parseHeader(b)
	if err != nil {
		return header{}, err
	}
	if int64(len(b)) < h.size() ||
		binary.LittleEndian.Uint32(b[8:]) != crc32.Checksum(b[headerSize:h.size()], castagnoli) {
		return h, errBody
	}
	return h, nil
}

// openRecord decrypts a record that parseRecord accepted and checks that it is
// what was committed to.
func openRecord(b []byte, h header, aead cipher.AEAD) (salt [SaltSize]byte, entry []byte, err error) {
	plain, err := aead.Open(nil, nonce(h), b[headerSize:headerSize+int(h.length)], appendAdditional(nil, b))
	if err != nil {
		return salt, nil, errors.New("it does not decrypt under its period's key")
	}
	salt, entry = [SaltSize]byte(plain), plain[SaltSize:]
	if EntryCommitment(salt, entry) != h.commitment {
		return salt, nil, fmt.Errorf("it is not what was committed to")
	}
	return salt, entry, nil
}
