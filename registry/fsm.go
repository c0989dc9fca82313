package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

// machine feeds committed log entries to the store.
//
// The store keeps the applied index in the transaction of the change, so raft does
// not load a snapshot at start (NoSnapshotRestoreOnStart): it takes the snapshot's
// index as applied and hands over everything that follows it once more. The store
// gives the old verdict on what it holds already, and changes nothing; what it had decided
// and not yet settled when it ended (store.Behind), it decides again.
//
// When the store fails, it refuses whatever comes next: raft has no word for "no",
// and to go on with the next entry would make this replica differ from all others.
// The registry ends with that error, and a restart continues where the store stands.
type machine struct {
	store *store.Store
	fatal func(error) // ends the registry
	// verified takes the signatures of what is about to be decided together.
	verified *envelope.Memory
	log      *slog.Logger
	// door says why an honest leader would not have proposed a command, or nothing; leader
	// names who leads now. Nil: nobody looks.
	door   func(envelope []byte) string
	leader func() string
	// last index that raft handed over; owned by raft's goroutine for the state machine
	last uint64
	// size of the log, of which so many entries at most stay behind a snapshot
	size logSize
	keep int
}

var _ raft.BatchingFSM = (*machine)(nil)

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. Each answer is an error, or a []record.Result:
// one for each command of the entry.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	var entries []store.Entry
	var commands [][]byte
	ends := make([]int, len(logs))
	for i, l := range logs {
		m.size.note(len(l.Data), m.keep)
		end := store.Entry{Index: indexAfter(l.Index)}
		switch {
		case l.Type != raft.LogCommand: // a change of raft's configuration only moves the index
		case len(l.Data) == 0:
			end.Envelope = store.MarkHere
		default:
			for place, c := range splitCommands(l.Data) {
				commands = append(commands, c)
				entries = append(entries, store.Entry{Index: indexOf(l.Index, place), Envelope: c})
			}
		}
		entries = append(entries, end)
		ends[i] = len(entries)
	}
	if len(logs) > 0 {
		m.last = logs[len(logs)-1].Index
	}
	m.verified.Ahead(envelope.Command, commands)
	results, err := m.store.ApplyBatch(entries)
	if err != nil {
		m.fatal(err)
	}
	m.lookAtRefused(entries, results)
	answers := make([]any, len(logs))
	from := 0
	for i, end := range ends {
		if err != nil {
			answers[i] = err
		} else {
			answers[i] = results[from : end-1]
		}
		from = end
	}
	return answers
}

// Snapshot implements raft.FSM. There is none while raft, after a restart, hands over
// once more what the store holds: the snapshot would be of a later index than raft thinks.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	f, err := m.store.Freeze()
	if err != nil {
		return nil, err
	}
	if f.Index() != indexAfter(m.last) {
		f.Release()
		return nil, fmt.Errorf("the state stands at index %d, raft is at %d", f.Index(), indexAfter(m.last))
	}
	return snapshot{f}, nil
}

// Restore implements raft.FSM. The store judges every command in the snapshot again
// and, if one of them is refused, stays as it was.
func (m *machine) Restore(r io.ReadCloser) error {
	err := m.store.Restore(r)
	switch {
	case err == nil:
		m.last = entryAt(m.store.AppliedIndex())
	case errors.Is(err, record.ErrOldProgram):
		m.fatal(err)
	case errors.Is(err, store.ErrBadSnapshot):
		m.log.Error("registry: a snapshot is not what replicas agreed on; the member that leads is broken or lies", "error", err)
	case err != nil:
		m.fatal(err)
	}
	return err
}

type snapshot struct{ *store.Frozen }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.WriteTo(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// lookAtRefused leaves evidence of a leader that put before the replicas what an honest
// one refuses at its door.
func (m *machine) lookAtRefused(entries []store.Entry, results []record.Result) {
	if m.door == nil {
		return
	}
	for i, res := range results {
		e := entries[i]
		if res.Accepted || len(e.Envelope) <= 1 {
			continue
		}
		if why := m.door(e.Envelope); why != "" {
			sum := sha256.Sum256(e.Envelope)
			m.log.Error("registry: a leader proposed what nobody signed who could; it is refused, and the leader lies or is broken",
				"index", e.Index, "leader", m.leader(), "envelope_sha256", hex.EncodeToString(sum[:]), "refusal", why)
		}
	}
}
