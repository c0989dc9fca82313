package tlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// checkpointsName is the file, beside the log, that keeps every checkpoint ever
// signed, one after the other:
//
//	"XRJCKPT1" ‖ length (4) ‖ CRC-32C of length and note (4) ‖ note
//
// little-endian.
const (
	checkpointsName = "checkpoints"
	keptMagic       = "XRJCKPT1"
	keptHead        = len(keptMagic) + 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkpointFile is the file open for adding.
type checkpointFile struct {
	file disk.File
	end  int64
	last []byte // the last note in it; nil: none
}

// openCheckpoints opens the file, makes it if there is none, and makes durable again
// what is last in it: it may have been shown.
func openCheckpoints(fs disk.FS) (_ *checkpointFile, err error) {
	f, err := fs.Open(checkpointsName, true)
	if err != nil {
		return nil, err
	}
	c := &checkpointFile{file: f}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err = fs.SyncDir(); err != nil {
		return nil, err
	}
	var at int64
	at, c.end, err = scanKept(f, func(msg []byte) error {
		c.last = bytes.Clone(msg)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if c.last != nil {
		if _, err = f.WriteAt(keptRecord(c.last), at); err == nil {
			err = f.Sync()
		}
	}
	return c, err
}

func keptRecord(msg []byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte(keptMagic), uint32(len(msg)))
	sum := crc32.Update(crc32.Checksum(b[len(keptMagic):], castagnoli), castagnoli, msg)
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(b, msg...)
}

// add makes a note durable. After an error nothing more may be added.
func (c *checkpointFile) add(msg []byte) error {
	b := keptRecord(msg)
	if _, err := c.file.WriteAt(b, c.end); err != nil {
		return fmt.Errorf("write %s: %w", checkpointsName, err)
	}
	if err := c.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", checkpointsName, err)
	}
	c.end += int64(len(b))
	c.last = msg
	return nil
}

func (c *checkpointFile) close() error { return c.file.Close() }

// scanKept gives fn every note in the file, and tells where the last begins and
// ends. What a crash left half-written behind it is passed over: nobody was shown
// it. Anything whole behind such a place was added later, so the file is damaged:
// the error wraps journal.ErrCorrupt.
func scanKept(f io.ReaderAt, fn func(msg []byte) error) (last, end int64, err error) {
	r := io.NewSectionReader(f, 0, math.MaxInt64)
	head := make([]byte, keptHead)
	for {
		msg, err := nextKept(r, head)
		if err != nil {
			return last, end, err
		}
		if msg == nil {
			return last, end, keptTail(f, end)
		}
		if err := fn(msg); err != nil {
			return last, end, err
		}
		last, end = end, end+int64(keptHead+len(msg))
	}
}

// nextKept reads one record; nil when there is no whole one.
func nextKept(r io.Reader, head []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, ignoreEnd(err)
	}
	n := binary.LittleEndian.Uint32(head[len(keptMagic):])
	if !bytes.HasPrefix(head, []byte(keptMagic)) || n == 0 || n > MaxCheckpoint {
		return nil, nil
	}
	msg := make([]byte, n)
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, ignoreEnd(err)
	}
	sum := crc32.Update(crc32.Checksum(head[len(keptMagic):len(keptMagic)+4], castagnoli), castagnoli, msg)
	if binary.LittleEndian.Uint32(head[len(keptMagic)+4:]) != sum {
		return nil, nil
	}
	return msg, nil
}

// keptTail makes sure that nothing whole stands behind the end.
func keptTail(f io.ReaderAt, end int64) error {
	tail, err := io.ReadAll(io.NewSectionReader(f, end, math.MaxInt64-end))
	if err != nil {
		return err
	}
	for i := 1; i < len(tail); i++ {
		j := bytes.Index(tail[i:], []byte(keptMagic))
		if j < 0 {
			break
		}
		i += j
		if msg, err := nextKept(bytes.NewReader(tail[i:]), make([]byte, keptHead)); err == nil && msg != nil {
			return fmt.Errorf("%w: %s, offset %d: it is unreadable, yet a checkpoint signed later stands behind it: "+
				"restore the file from a copy, and keep the damaged one for the inspection", journal.ErrCorrupt, checkpointsName, end)
		}
	}
	return nil
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
