package mesh

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

const (
	prefixSize = 4
	// maxHeader bounds CallHeader and ReplyHeader.
	maxHeader = 4 << 10
	// trusted is how much memory an announced length gets before its bytes arrive.
	trusted = 64 << 10
)

// tooLargeError is a frame or message above its limit.
type tooLargeError struct{ size, limit int }

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("message of %d bytes, at most %d are taken", e.size, e.limit)
}

// appendFrame appends the frame of m to b. It fails if m does not marshal or is larger
// than limit bytes (*tooLargeError).
func appendFrame(b []byte, m proto.Message, limit int) ([]byte, error) {
	size := proto.Size(m)
	if size > limit {
		return b, &tooLargeError{size, limit}
	}
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
}

// readLength reads the length of the next frame and checks it. A clean end gives io.EOF.
func readLength(r io.Reader, limit int) (int, error) { return readLengthFrom(nil, r, limit) }

// readLengthFrom is readLength of a length of which the bytes begun were read.
func readLengthFrom(begun []byte, r io.Reader, limit int) (int, error) {
	var prefix [prefixSize]byte
	if had := copy(prefix[:], begun); had < prefixSize {
		if _, err := io.ReadFull(r, prefix[had:]); err != nil {
			return 0, err
		}
	}
	n := binary.BigEndian.Uint32(prefix[:])
	if uint64(n) > uint64(limit) {
		return 0, &tooLargeError{int(n), limit}
	}
	return int(n), nil
}

// readBody reads n bytes. Memory grows as they arrive: a length alone costs nothing.
func readBody(r io.Reader, n int) ([]byte, error) {
	if n <= trusted {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, truncated(err)
	}
	buf := bytes.NewBuffer(make([]byte, 0, trusted))
	_, err := io.CopyN(buf, r, int64(n))
	return buf.Bytes(), truncated(err)
}

// readFrame reads one frame of at most limit bytes. A clean end gives io.EOF.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	n, err := readLength(r, limit)
	if err != nil {
		return nil, err
	}
	return readBody(r, n)
}

// truncated keeps an end in the middle of a frame from looking like a clean one.
func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
