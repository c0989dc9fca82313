package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"strings"
	"unicode"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

// RowHash stands for one row where the row itself must not be told.
type RowHash struct {
	Key, Row [sha256.Size]byte // SHA-256 of the key, and of key and value
	Table    byte              // first byte of the key
	// Name says which row it is, without a subject's number.
	Name string
}

// Parts gives a hash over the rows of each part of a bucket, and the index at which they
// were read. It reads every row of the state.
func (s *Store) Parts(ctx context.Context, bucket int) (parts [][]byte, index uint64, err error) {
	sums := make([]hash.Hash, 256)
	for i := range sums {
		sums[i] = sha256.New()
	}
	index, err = s.scanBucket(ctx, bucket, func(part int, h RowHash) { sums[part].Write(h.Row[:]) })
	for _, sum := range sums {
		parts = append(parts, sum.Sum(nil))
	}
	return parts, index, err
}

// PartRows gives the rows of one part, in order of key. It reads every row of the state.
func (s *Store) PartRows(ctx context.Context, bucket, part int) (found []RowHash, index uint64, err error) {
	index, err = s.scanBucket(ctx, bucket, func(p int, h RowHash) {
		if p == part {
			found = append(found, h)
		}
	})
	return found, index, err
}

func (s *Store) scanBucket(ctx context.Context, bucket int, fn func(part int, h RowHash)) (index uint64, err error) {
	err = s.read(func(r rows) error {
		if index, err = record.NewView(r).AppliedIndex(); err != nil {
			return err
		}
		return paced{r, func(int) error { return ctx.Err() }}.Scan(nil, nil, func(k, v []byte) error {
			if !record.Hashed(k) {
				return nil
			}
			b, part := statehash.Bucket(k, record.OfPublic(k))
			if b != bucket {
				return nil
			}
			h := RowHash{Key: sha256.Sum256(k), Table: k[0], Name: rowName(k)}
			row := sha256.New()
			fmt.Fprintf(row, "%d\n", len(k))
			row.Write(k)
			row.Write(v)
			row.Sum(h.Row[:0])
			fn(part, h)
			return nil
		})
	})
	return index, err
}

// rowName says which row k is the key of. Only rows of the public tables are called by
// their key: others may hold a subject's number, and the hash finds them again.
func rowName(k []byte) string {
	switch {
	case record.OfPublic(k) && printable(k[1:]):
		return fmt.Sprintf("the row %s of table %q", strings.ReplaceAll(string(k[1:]), "\x00", " "), rune(k[0]))
	case record.OfPublic(k) && len(k) == 9:
		return fmt.Sprintf("the row of index %d of table %q", binary.BigEndian.Uint64(k[1:]), rune(k[0]))
	}
	return fmt.Sprintf("the row of table %q whose key has the SHA-256 %x", rune(k[0]), sha256.Sum256(k))
}

func printable(b []byte) bool {
	for _, r := range string(b) {
		if r != 0 && (r > unicode.MaxASCII || !unicode.IsPrint(r)) {
			return false
		}
	}
	return true
}
