package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/sealed"
)

const (
	// segmentSize of the raft log, in bytes: each member holds one or two at first.
	segmentSize = 8 << 20
	// retained snapshots, and the most entries in one append, which is also how many are
	// applied at once. Entries may be a megabyte each.
	retained  = 1
	maxAppend = 16
	connPool  = 3
	// cachedEntries of the log's end stay in memory: each is read by whoever applies it, and
	// by whoever sends it on, right after it was written.
	cachedEntries = 64
	enqueueFor    = 5 * time.Second
)

// member is the voting half of a Registry.
type member struct {
	reg     *Registry
	log     *slog.Logger
	granter *lease.Granter
	machine *machine
	door    together
	batch   batcher
	conf    *raft.Config
	wal     Log
	logs    *failStop // over wal
	snaps   raft.SnapshotStore

	stream    *guardedStream
	transport *witnessTransport
	started   atomic.Pointer[raft.Raft]

	pilot    pilot
	newcomer newcomer
	dir      string
	// empty: there was no log. first: the genesis file names this node.
	empty, first bool
	catchingUp   atomic.Bool // see begin

	marked atomic.Uint64 // term in which a marker of ours is applied; written by confirm
}

// openMember opens the log in dir, and founds it if there is none and the genesis
// file names this node.
func openMember(r *Registry, dir string) (*member, error) {
	t := r.cfg.Tuning
	m := &member{reg: r, log: r.cfg.Log}
	m.pilot.of, m.newcomer.reg, m.dir = m, r, dir
	m.machine = &machine{store: r.store, fatal: r.failed, verified: r.rules.Verified, log: r.cfg.Log, keep: int(t.TrailingLogs)}
	m.door.memory = r.rules.Verified
	m.machine.door = func(envelope []byte) string {
		refusal, err := m.judgeAtDoor(envelope)
		if err != nil { // a failing state says so elsewhere
			return ""
		}
		return refusal
	}
	m.machine.leader = func() string {
		l, _ := m.leader()
		return l.String()
	}
	m.batch.apply = func(data []byte) raft.ApplyFuture { return m.raft().Apply(data, enqueueFor) }
	m.granter = lease.NewGranter(lease.GranterConfig{
		Mesh: r.cfg.Genesis.Mesh, Self: r.cfg.Self, Signer: r.cfg.Signer, Confirm: m.confirm, Now: r.cfg.Now,
	})
	logger := raftLogger(r.cfg.Log)
	m.conf = raft.DefaultConfig()
	m.conf.LocalID = raft.ServerID(r.cfg.Self.String())
	m.conf.HeartbeatTimeout = t.Heartbeat
	m.conf.ElectionTimeout = t.Election
	m.conf.LeaderLeaseTimeout = t.LeaderLease
	m.conf.CommitTimeout = 20 * time.Millisecond
	m.conf.MaxAppendEntries = maxAppend
	m.conf.SnapshotThreshold = neverByCount
	m.conf.SnapshotInterval = t.SnapshotCheck
	m.conf.TrailingLogs = t.TrailingLogs
	m.conf.ShutdownOnRemove = false
	m.conf.NoLegacyTelemetry = true
	m.conf.Logger = logger

	var err error
	if m.wal, err = r.cfg.Disk.OpenLog(filepath.Join(dir, "log"), logger); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLogDamaged, err)
	}
	if err := m.openStores(dir); err != nil {
		if f := m.logs; f != nil && f.err() != nil {
			err = f.err()
		}
		return nil, errors.Join(err, m.closeLog())
	}
	return m, nil
}

func (m *member) openStores(dir string) error {
	files, err := m.reg.cfg.Disk.OpenSnapshots(dir, m.conf.Logger)
	if err != nil {
		return err
	}
	logs := raft.LogStore(sealed.CheckedStore{LogStore: m.wal})
	m.snaps = files
	if key := m.reg.cfg.StorageKey; len(key) > 0 {
		if logs, err = sealed.Logs(m.wal, key); err != nil {
			return err
		}
		if m.snaps, err = sealed.Snapshots(files, key); err != nil {
			return err
		}
	}
	cached, err := raft.NewLogCache(cachedEntries, logs)
	if err != nil {
		return err
	}
	m.logs = &failStop{LogStore: cached, disk: logs, stable: sealed.CheckedStable{StableStore: m.wal}, silence: m.silence, fail: m.reg.failed}
	m.snaps = expectingSnapshots{m.snaps}
	known, err := raft.HasExistingState(m.logs, m.logs, m.snaps)
	if err != nil {
		return fmt.Errorf("read raft log: %w", err)
	}
	if !known {
		return m.checkEmpty()
	}
	return m.checkState()
}

// checkEmpty sees to it that a state without a log is not taken for a new one.
func (m *member) checkEmpty() error {
	m.empty = true
	m.first = slices.ContainsFunc(m.reg.cfg.Genesis.Members, func(g genesis.Member) bool { return g.ID() == m.reg.cfg.Self })
	if m.first && m.reg.store.AppliedIndex() > 0 {
		return fmt.Errorf("the raft log is gone and the state is at index %d: this member would forget how it voted; "+
			"remove its whole registry directory and start anew", m.reg.store.AppliedIndex())
	}
	return nil
}

// found writes the first entry of the log: the configuration of the genesis file,
// the same at every first member, so that it does not matter who is first. A member
// admitted later starts with nothing and is brought up by the leader.
func (m *member) found() error {
	var first raft.Configuration
	for _, g := range m.reg.cfg.Genesis.Members {
		first.Servers = append(first.Servers, server(g.ID()))
	}
	if err := raft.BootstrapCluster(m.conf, m.logs, m.logs, m.snaps, nil, first); err != nil {
		return fmt.Errorf("found the raft log: %w", err)
	}
	return m.logs.err()
}

// silence ends what this member says to others, for good.
func (m *member) silence() {
	if m.stream != nil {
		m.stream.Close()
	}
}

// checkState sees to it that state and log meet: raft takes the last snapshot's
// index as applied. A state behind that, because a crash came between receiving a
// snapshot and restoring it or because the state was lost, is restored first.
func (m *member) checkState() error {
	applied := m.reg.store.AppliedIndex()
	last, err := m.logs.LastIndex()
	if err != nil {
		return err
	}
	snaps, err := m.snaps.List()
	if err != nil {
		return err
	}
	var snap uint64
	if len(snaps) > 0 {
		snap = snaps[0].Index
	}
	if first, err := m.logs.FirstIndex(); err != nil {
		return err
	} else if first > snap+1 {
		return fmt.Errorf("%w: it begins at index %d, and the last snapshot that can be read is of %d", ErrLogDamaged, first, snap)
	}
	if last > 0 && last < snap {
		// Its end is gone, or a crash came after a snapshot was received and before raft
		// emptied the log. raft-wal takes no entry after such a gap, and in the first case
		// more is gone than the snapshot holds: nobody can tell which it is.
		return fmt.Errorf("%w: it ends at index %d, before the last snapshot at %d", ErrLogDamaged, last, snap)
	}
	if term, err := m.logs.GetUint64([]byte("CurrentTerm")); err != nil {
		return err
	} else if term == 0 && last > 0 { // raft wrote it down before it took the first entry
		return fmt.Errorf("%w: the term of this member is gone", ErrLogDamaged)
	}
	m.conf.NoSnapshotRestoreOnStart = applied >= indexAfter(snap)
	if applied > indexAfter(max(last, snap)) {
		return fmt.Errorf("the state is at index %d and the raft log ends at %d: they are not of the same time; "+
			"nothing of it is used: %w", applied, indexAfter(max(last, snap)), ErrLogDamaged)
	}
	return nil
}

// start lets raft run, or begin.
func (m *member) start(ctx context.Context) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	m.stream = newGuardedStream(m.reg.cfg.Raft, m.consents, m.log)
	m.transport = newWitnessTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: m.stream, MaxPool: connPool, Timeout: m.reg.cfg.Tuning.RPC, Logger: m.conf.Logger, MsgpackUseNewTimeFormat: true,
		// No pipelining: when a leader is deposed, raft 1.8's pipeline may wait for ever
		// for its own reader, and then raft never shuts down.
		MaxRPCsInFlight: 1,
	}), m.mayVote)
	r, err := raft.NewRaft(m.conf, m.machine, m.logs, m.logs, m.snaps, m.transport)
	if err != nil {
		if !m.conf.NoSnapshotRestoreOnStart { // nothing else can fail there but to read it
			err = fmt.Errorf("%w, or its snapshot: %w", ErrLogDamaged, err)
		}
		return fmt.Errorf("start raft: %w", err)
	}
	if err := m.logs.err(); err != nil { // in what was read so far
		return errors.Join(err, r.Shutdown().Error())
	}
	m.started.Store(r)
	return nil
}

// close stops raft and waits for all of it.
func (m *member) close() error {
	var err error
	if m.stream != nil {
		var stopped raft.Future
		if r := m.started.Load(); r != nil {
			stopped = r.Shutdown()
		}
		// Cutting the connections first frees whoever waits for an answer.
		m.stream.Close()
		if stopped != nil {
			err = stopped.Error()
		}
		m.transport.Close()
		m.transport.CloseStreams()
		m.batch.join()
		m.stream.join()
	}
	return errors.Join(err, m.closeLog())
}

func (m *member) closeLog() error { return m.wal.Close() }

// raft gives the running raft; calls reach it only after start.
func (m *member) raft() *raft.Raft { return m.started.Load() }

func (m *member) leader() (names.NodeID, bool) {
	r := m.raft()
	if r == nil {
		return names.NodeID{}, false
	}
	_, id := r.LeaderWithID()
	if id == "" {
		return names.NodeID{}, false
	}
	n, err := names.ParseNodeID(string(id))
	return n, err == nil
}

// leads reports whether this member leads, as far as it knows itself.
func (m *member) leads() bool {
	r := m.raft()
	return r != nil && r.State() == raft.Leader
}

// confirm reads the commit index and then makes sure that this member led, in term,
// after the moment of the call.
//
// raft's VerifyLeader lets every answer to a heartbeat count that arrives after the
// question, even when the heartbeat left long before. A leader that was frozen, or
// whose connection was, finds such old answers waiting when it wakes, while another
// leads. So VerifyLeader serves to send heartbeats at once, and what counts are the
// heartbeats that were sent, and answered in this term, after the call.
func (m *member) confirm(ctx context.Context) (lease.Confirmed, error) {
	r := m.raft()
	if r.State() != raft.Leader {
		return lease.Confirmed{}, ErrNotLeader
	}
	if err := m.reg.Sound(); err != nil {
		return lease.Confirmed{}, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	term := r.CurrentTerm()
	if err := m.mark(ctx, term); err != nil {
		return lease.Confirmed{}, err
	}
	asked := time.Now()
	commit := indexAfter(r.CommitIndex())
	voters := votersOf(r)
	for {
		if err := r.VerifyLeader().Error(); err != nil {
			return lease.Confirmed{}, notLeading(err)
		}
		if r.CurrentTerm() != term {
			return lease.Confirmed{}, ErrNotLeader
		}
		if m.transport.majority(voters, m.conf.LocalID, term, asked) {
			return m.vouch(ctx, term, commit)
		}
		select {
		case <-time.After(time.Millisecond): // an old answer was counted: ask anew
		case <-ctx.Done():
			return lease.Confirmed{}, ErrNotLeader
		}
	}
}

// vouch reads what the history is up to commit, or somewhat further.
func (m *member) vouch(ctx context.Context, term, commit uint64) (lease.Confirmed, error) {
	if err := m.reg.store.WaitApplied(ctx, commit); err != nil {
		return lease.Confirmed{}, fmt.Errorf("%w: index %d is not applied here yet: %w", ErrNotLeader, commit, err)
	}
	sure := lease.Confirmed{Term: term}
	err := m.reg.store.View(func(v record.View) (err error) {
		if sure.Commit, err = v.AppliedIndex(); err != nil {
			return err
		}
		past, err := v.PublicPast()
		sure.PublicIndex, sure.PublicHash = past.Index, past.Hash
		return err
	})
	return sure, err
}

// mark makes sure that an entry of this term is applied here. The marker is an empty
// command rather than a barrier, because barriers do not reach the state machine:
// the commit index of a grant must be one that every replica's state reaches.
func (m *member) mark(ctx context.Context, term uint64) error {
	if m.marked.Load() == term {
		return nil
	}
	f := m.raft().Apply(nil, enqueueFor)
	if err := f.Error(); err != nil {
		return notLeading(err)
	}
	if err, ok := f.Response().(error); ok { // the state failed
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	if m.raft().CurrentTerm() != term {
		return ErrNotLeader
	}
	m.marked.Store(term)
	return ctx.Err()
}

// notLeading turns raft's words for "ask another, or again" into ErrNotLeader.
func notLeading(err error) error {
	for _, e := range []error{raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress,
		raft.ErrEnqueueTimeout, raft.ErrAbortedByRestore, raft.ErrRaftShutdown} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrNotLeader, err)
		}
	}
	return err
}

// votes reports whether this member has a vote, as far as it knows.
func (m *member) votes() bool { return slices.Contains(votersOf(m.raft()), m.conf.LocalID) }

func votersOf(r *raft.Raft) (ids []raft.ServerID) {
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

func server(n names.NodeID) raft.Server {
	return raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(n.String()), Address: raft.ServerAddress(n.String())}
}
