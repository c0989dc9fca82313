package bench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Append is what a durable append costs with 64 waiting.
type Append struct {
	What     string `json:"what"`
	Waiting  int    `json:"waiting"`
	Measured        // CPU is of this process alone
}

const appendsWaiting = 64

const withTree = "journal, tree and checkpoints"

var (
	benchKey    = bytes.Repeat([]byte{7}, 32)
	benchSigner = ed25519.NewKeyFromSeed(benchKey)
	benchOrigin = tlog.Origin("bench.crossroads.test", names.NodeID{Institution: "bench", Node: "n1"})
)

// Verified is what reading a whole log and computing its tree again took.
type Verified struct {
	Entries   int64   `json:"entries"`
	PerSecond float64 `json:"entries_per_second"`
}

// measureVerify verifies the log that lies in dir.
func measureVerify(ctx context.Context, dir string) (*Verified, error) {
	fs, err := disk.OpenDir(filepath.Join(dir, tlog.TilesDir))
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	report, err := tlog.Verify(ctx, tlog.VerifyConfig{
		Journal: journal.Config{Dir: dir, Key: benchKey}, Tiles: fs, Origin: benchOrigin, Key: benchSigner.Public().(ed25519.PublicKey),
	})
	if err != nil {
		return nil, err
	}
	if !report.OK() {
		return nil, fmt.Errorf("a journal that this program wrote does not verify: %+v", report.Findings)
	}
	return &Verified{report.Entries, float64(report.Entries) / time.Since(begun).Seconds()}, nil
}

// measureJournal measures appends without and with the tree, and a Badger
// transaction for each; and verifying what was appended.
func measureJournal(ctx context.Context, d time.Duration) (all []Append, verified *Verified, err error) {
	dir, err := os.MkdirTemp("", "crossroads-bench-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	for _, m := range []struct {
		what string
		run  func(dir string, measure func(func(int64) error) (Append, error)) (Append, error)
	}{
		{"journal", func(dir string, m func(func(int64) error) (Append, error)) (Append, error) {
			return appending(ctx, dir, false, m)
		}},
		{withTree, func(dir string, m func(func(int64) error) (Append, error)) (Append, error) {
			return appending(ctx, dir, true, m)
		}},
		{"a Badger transaction each", transacting},
	} {
		at := filepath.Join(dir, fmt.Sprint(len(all)))
		a, err := m.run(at, func(do func(int64) error) (Append, error) { return appends(ctx, d, do) })
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", m.what, err)
		}
		if m.what == withTree {
			if verified, err = measureVerify(ctx, at); err != nil {
				return nil, nil, err
			}
		}
		a.What = m.what
		all = append(all, a)
	}
	return all, verified, nil
}

// appends keeps appendsWaiting appends under way for d.
func appends(ctx context.Context, d time.Duration, do func(i int64) error) (Append, error) {
	var next atomic.Int64
	used := usageOf(map[string]int{"": os.Getpid()})
	s, err := closedLoop(ctx, appendsWaiting, d, func(context.Context, int) error { return do(next.Add(1)) })
	if err != nil {
		return Append{}, err
	}
	s.CPU = used.since(s.Count).perCall()[""]
	return Append{Waiting: appendsWaiting, Measured: s.Measured}, nil
}

func appending(ctx context.Context, dir string, tree bool, measure func(func(int64) error) (Append, error)) (a Append, err error) {
	j, err := journal.Open(journal.Config{Dir: dir, Key: benchKey})
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if tree {
		l, err := tlog.Open(ctx, tlog.Config{
			Journal: j, Dir: dir, Origin: benchOrigin, Signer: benchSigner,
		})
		if err != nil {
			return a, err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
	}
	return measure(func(i int64) error {
		_, err := j.Append(ctx, entry(i))
		return err
	})
}

func transacting(dir string, measure func(func(int64) error) (Append, error)) (a Append, err error) {
	db, err := badgerdb.Open(badgerdb.Config{Dir: dir, Key: benchKey})
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return measure(func(i int64) error {
		raw, err := proto.Marshal(entry(i))
		if err != nil {
			return err
		}
		return db.Update(func(tx *badger.Txn) error { return tx.Set(binary.BigEndian.AppendUint64(nil, uint64(i)), raw) })
	})
}

// entry makes the n-th entry of a busy node: now, of 500 users and a million subjects.
func entry(n int64) *nodepb.Entry {
	return &nodepb.Entry{
		TimeUnixMs: time.Now().UnixMilli(), Role: nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED,
		Ticket: fmt.Sprintf("%026d", n), User: fmt.Sprintf("user-%d", n*7919%500), Application: "desk",
		Subject: &registrypb.Subject{Scheme: "ssin", Number: fmt.Sprintf("%011d", n*7919%1_000_003)},
		Purpose: "social-inquiry", Dataset: "wages-quarterly/v1", Authorization: "demo-2026-001", Mode: "consultation",
		RequestHash: make([]byte, 32), ClearanceHash: make([]byte, 32), Fields: []string{"gross_wage", "quarter", "year"},
	}
}
