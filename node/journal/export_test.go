package journal

import (
	"strings"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// Loose is a record taken out of a log, for tests that put it together otherwise.
type Loose struct {
	Raw        []byte
	Salt       [SaltSize]byte
	Commitment [CommitmentSize]byte
	Erased     bool // Raw and Salt are gone
	month      period
}

// Bury lets a record pass for one of an erased month: as whoever has the keys could, to
// hide an entry.
func (l *Loose) Bury(month string) (err error) {
	l.Erased = true
	l.month, err = parsePeriod(month)
	return err
}

// Recommit makes the commitment fit again what was changed.
func (l *Loose) Recommit() { l.Commitment = EntryCommitment(l.Salt, l.Raw) }

// TakeApart gives all records of a log to somebody who has the storage key.
func TakeApart(fs disk.FS, key []byte) (list []Loose, err error) {
	j := &Journal{fs: fs, cfg: Config{Key: key}}
	if err := j.openKept(); err != nil {
		return nil, err
	}
	firsts, err := segments(fs)
	if err != nil {
		return nil, err
	}
	for _, first := range firsts {
		f, err := fs.Open(segmentName(first), false)
		if err != nil {
			return nil, err
		}
		_, err = scan(f, first, ^uint64(0), func(_ location, h header, b []byte) error {
			l := Loose{Commitment: h.commitment, Erased: j.keys.isErased(h.period), month: h.period}
			if l.Erased {
				l.Raw = make([]byte, 50)
			} else {
				l.Salt, l.Raw, err = openRecord(b, h, j.keys.get(h.period).aead)
			}
			list = append(list, l)
			return err
		})
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// PutTogether writes records as a whole log, with every checksum right.
func PutTogether(fs disk.FS, key []byte, list []Loose, segmentSize int64) error {
	j := &Journal{fs: fs, cfg: Config{Key: key, SegmentSize: segmentSize, ChunkSize: 512}}
	if err := j.openKept(); err != nil {
		return err
	}
	names, err := fs.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix) {
			if err := fs.Remove(name); err != nil {
				return err
			}
		}
	}
	if j.seg, err = j.beginSegment(0); err != nil {
		return err
	}
	for i, l := range list {
		h := header{period: l.month, sequence: uint64(i), commitment: l.Commitment}
		aead := j.keys.wrap // noise under any key
		if !l.Erased {
			aead = j.keys.get(l.month).aead
		}
		b := appendRecord(nil, h, aead, l.Salt, l.Raw)
		if err := j.makeRoom(int64(len(b)), uint64(i)); err != nil {
			return err
		}
		if _, err := j.seg.file.WriteAt(b, j.seg.end); err != nil {
			return err
		}
		j.seg.end += int64(len(b))
	}
	return j.seg.file.Sync()
}
