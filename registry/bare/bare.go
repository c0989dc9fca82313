// Package bare is consensus with nothing in it: three or more replicas with the log
// store, the sealing, the transport and the settings of a registry member, and a state
// machine that does nothing. It is what a registry is measured against.
package bare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/sealed"
)

// Member is one replica.
type Member struct {
	ID         names.NodeID
	Stream     raft.StreamLayer // see registry.Consensus
	Dir        string
	StorageKey []byte // nil: the log is not sealed
}

// As those of a registry member.
const (
	segmentSize = 8 << 20
	maxAppend   = 16
	connPool    = 3

	cachedEntries = 64
	rpcTimeout    = 5 * time.Second
)

// Commits measures how many entries of a size, one a command, are committed in a second
// with so many under way, for a while.
func Commits(ctx context.Context, members []Member, size, inFlight int, during time.Duration) (perSecond float64, err error) {
	var all []*replica
	defer func() {
		for _, r := range all {
			err = errors.Join(err, r.close())
		}
	}()
	var first raft.Configuration
	for _, m := range members {
		first.Servers = append(first.Servers, raft.Server{ID: raft.ServerID(m.ID.String()), Address: raft.ServerAddress(m.ID.String())})
	}
	for _, m := range members {
		r, err := open(m, first)
		if err != nil {
			return 0, err
		}
		all = append(all, r)
	}
	leader, err := waitLeader(ctx, all)
	if err != nil {
		return 0, err
	}
	var done atomic.Int64
	var failed atomic.Pointer[error]
	ctx, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	began := time.Now()
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() {
			for data := make([]byte, size); ctx.Err() == nil; done.Add(1) {
				if err := leader.Apply(data, rpcTimeout).Error(); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(done.Load()) / time.Since(began).Seconds(), nil
}

func waitLeader(ctx context.Context, all []*replica) (*raft.Raft, error) {
	for {
		for _, r := range all {
			if r.raft.State() == raft.Leader {
				return r.raft, nil
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("bare consensus has no leader: %w", ctx.Err())
		}
	}
}

type replica struct {
	raft      *raft.Raft
	transport *raft.NetworkTransport
	wal       *wal.WAL
	meta      *metadb.BoltMetaDB
}

func open(m Member, first raft.Configuration) (_ *replica, err error) {
	r := &replica{meta: new(metadb.BoltMetaDB)}
	dir := filepath.Join(m.Dir, "log")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	log := hclog.NewNullLogger()
	if r.wal, err = wal.Open(dir, wal.WithLogger(log), wal.WithSegmentSize(segmentSize), wal.WithMetaStore(r.meta)); err != nil {
		return nil, err
	}
	var logs raft.LogStore = r.wal
	if len(m.StorageKey) > 0 {
		if logs, err = sealed.Logs(r.wal, m.StorageKey); err != nil {
			return nil, err
		}
	}
	if logs, err = raft.NewLogCache(cachedEntries, logs); err != nil {
		return nil, err
	}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(m.ID.String())
	conf.MaxAppendEntries = maxAppend
	conf.CommitTimeout = 20 * time.Millisecond
	conf.NoLegacyTelemetry = true
	conf.Logger = log
	snaps := raft.NewDiscardSnapshotStore()
	if err := raft.BootstrapCluster(conf, logs, r.wal, snaps, nil, first); err != nil {
		return nil, err
	}
	r.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: m.Stream, MaxPool: connPool, Timeout: rpcTimeout, Logger: log, MsgpackUseNewTimeFormat: true, MaxRPCsInFlight: 1,
	})
	r.raft, err = raft.NewRaft(conf, machine{}, logs, r.wal, snaps, r.transport)
	return r, err
}

func (r *replica) close() error {
	stopped := r.raft.Shutdown()
	err := r.transport.Close() // frees whoever waits for an answer
	r.transport.CloseStreams()
	return errors.Join(stopped.Error(), err, r.wal.Close(), r.meta.Close())
}

// machine does nothing.
type machine struct{}

var _ raft.BatchingFSM = machine{}

func (machine) Apply(*raft.Log) any                 { return nil }
func (machine) ApplyBatch(logs []*raft.Log) []any   { return make([]any, len(logs)) }
func (machine) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("nothing to snapshot") }
func (machine) Restore(r io.ReadCloser) error       { return r.Close() }
