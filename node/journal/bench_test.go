package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

// waiting runs do b.N times from n goroutines.
func waiting(b *testing.B, n int, do func(i int) error) {
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range n {
		all.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				if err := do(int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}

// BenchmarkDurable compares a durable append with a Badger transaction and with
// the bare disk, in the same run.
func BenchmarkDurable(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("journal/waiting=%d", n), func(b *testing.B) {
			j := open(b, Config{Dir: b.TempDir()})
			waiting(b, n, func(i int) error {
				_, err := j.Append(context.Background(), entry(i))
				return err
			})
		})
		b.Run(fmt.Sprintf("badger/waiting=%d", n), func(b *testing.B) {
			db, err := badgerdb.Open(badgerdb.Config{Dir: b.TempDir(), Key: testKey})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			waiting(b, n, func(i int) error {
				raw, err := proto.Marshal(entry(i))
				if err != nil {
					return err
				}
				return db.Update(func(tx *badger.Txn) error {
					return tx.Set(binary.BigEndian.AppendUint64(nil, uint64(i)), raw)
				})
			})
		})
	}
	b.Run("fdatasync", func(b *testing.B) {
		dir := b.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 8<<20), 0o600); err != nil {
			b.Fatal(err)
		}
		fs, err := disk.OpenDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		f, err := fs.Open("f", false)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		block := bytes.Repeat([]byte{1}, 300)
		waiting(b, 1, func(i int) error {
			if _, err := f.WriteAt(block, int64(i*len(block))%(8<<20-300)); err != nil {
				return err
			}
			return f.Sync()
		})
	})
}
