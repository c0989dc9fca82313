package tlog

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
)

// load makes the n-th entry of a busy node: now, of 500 users and a million subjects.
func load(n int64) *nodepb.Entry {
	e := entry(int(n))
	e.TimeUnixMs = time.Now().UnixMilli()
	e.Ticket, e.User = fmt.Sprintf("%026d", n), fmt.Sprintf("user-%d", n*7919%500)
	e.Subject.Number = fmt.Sprintf("%011d", n*7919%1_000_003)
	e.Purpose, e.Dataset, e.Authorization = "social-inquiry", "wages-quarterly/v1", "demo-2026-001"
	e.RequestHash, e.ClearanceHash = make([]byte, 32), make([]byte, 32)
	return e
}

// processor gives the time that this process has used of the processors.
func processor(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func waiting(b *testing.B, n int, count int64, do func(i int64) error) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for i := next.Add(1); i <= count; i = next.Add(1) {
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

func measured(b *testing.B, do func(i int64) error) {
	b.ResetTimer()
	used := processor(b)
	waiting(b, 64, int64(b.N), do)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
	b.ReportMetric(float64((processor(b)-used).Nanoseconds())/float64(b.N), "cpu-ns/append")
}

// BenchmarkAppend compares durable appends with 64 waiting: without and with the
// tree and its checkpoints, and a transaction of Badger for each, in one run.
func BenchmarkAppend(b *testing.B) {
	for _, tree := range []bool{false, true} {
		b.Run(fmt.Sprintf("tree=%t", tree), func(b *testing.B) {
			dir := b.TempDir()
			j, err := journal.Open(journal.Config{Dir: dir, Key: testKey})
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			if tree {
				l, err := Open(context.Background(), Config{Journal: j, Dir: dir, Origin: testOrigin, Signer: testSigner})
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
			}
			measured(b, func(i int64) error {
				_, err := j.Append(context.Background(), load(i))
				return err
			})
		})
	}
	b.Run("badger", func(b *testing.B) {
		db, err := badgerdb.Open(badgerdb.Config{Dir: b.TempDir(), Key: testKey})
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		measured(b, func(i int64) error {
			raw, err := proto.Marshal(load(i))
			if err != nil {
				return err
			}
			return db.Update(func(tx *badger.Txn) error { return tx.Set(binary.BigEndian.AppendUint64(nil, uint64(i)), raw) })
		})
	})
}

// BenchmarkLeaf is what the tree costs for each entry, without the journal.
func BenchmarkLeaf(b *testing.B) {
	fs, err := disk.OpenDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	t := &tiles{fs: fs}
	defer t.close()
	var c [journal.CommitmentSize]byte
	for i := range b.N {
		binary.LittleEndian.PutUint64(c[:], uint64(i))
		if err := t.add(journal.LeafHash(c)); err != nil {
			b.Fatal(err)
		}
	}
	if err := t.sync(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkVerify verifies a whole log of b.N entries: go test -bench Verify
// -benchtime 1000000x.
func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	j, err := journal.Open(journal.Config{Dir: dir, Key: testKey})
	if err != nil {
		b.Fatal(err)
	}
	l, err := Open(context.Background(), Config{Journal: j, Dir: dir, Origin: testOrigin, Signer: testSigner})
	if err != nil {
		b.Fatal(err)
	}
	waiting(b, 1024, int64(b.N), func(i int64) error {
		_, err := j.Append(context.Background(), load(i))
		return err
	})
	l.Close()
	j.Close()
	fs, err := disk.OpenDir(filepath.Join(dir, TilesDir))
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	used := processor(b)
	report, err := Verify(context.Background(), VerifyConfig{
		Journal: journal.Config{Dir: dir, Key: testKey}, Tiles: fs, Origin: testOrigin, Key: testPublic, Anchors: [][]byte{l.Checkpoint()},
	})
	b.StopTimer()
	if err != nil || !report.OK() || report.Entries != int64(b.N) {
		b.Fatal(err, report)
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e7/float64(b.N), "s/10M")
	b.ReportMetric(float64((processor(b)-used).Nanoseconds())/float64(b.N), "cpu-ns/entry")
}
