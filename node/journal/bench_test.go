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
	"time"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

// waiting runs do b.N times from n goroutines.
func waiting(b *testing.B, n int, do func(i int) error) {
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	used := processor(b)
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
	b.ReportMetric(float64((processor(b)-used).Nanoseconds())/float64(b.N), "cpu-ns/append")
}

// processor gives the time that this process has used of the processors: what can be
// compared on a machine that others use too.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// load makes the n-th entry of a busy node: now, of 500 users and a million subjects,
// every ticket new.
func load(n int) *nodepb.Entry {
	e := entry(n)
	e.TimeUnixMs = time.Now().UnixMilli()
	e.Ticket = fmt.Sprintf("%026d", n)
	e.User = fmt.Sprintf("user-%d", n*7919%500)
	e.Subject.Number = fmt.Sprintf("%011d", n*7919%1_000_003)
	e.Purpose, e.Dataset, e.Authorization = "social-inquiry", "wages-quarterly/v1", "demo-2026-001"
	e.RequestHash, e.ClearanceHash = make([]byte, 32), make([]byte, 32)
	return e
}

// BenchmarkDurable compares a durable append with a Badger transaction and with
// the bare disk, in the same run.
func BenchmarkDurable(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("journal/waiting=%d", n), func(b *testing.B) {
			j := open(b, Config{Dir: b.TempDir()})
			waiting(b, n, func(i int) error {
				_, err := j.Append(context.Background(), load(i))
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
				raw, err := proto.Marshal(load(i))
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
