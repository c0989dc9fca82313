package registry

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/record"
)

// A log entry holds one command as it is, or several: a zero byte, with which no
// command begins, and for each its length as a uvarint and itself. So a command has a
// place within its entry, and the index under which all replicas know it is made of
// both: entry n covers the indexes above (n-1) × placesPerEntry up to n × placesPerEntry,
// its commands take the first of these, and with the last one it is decided.
const (
	placesPerEntry = 1024
	// batchBytes bounds an entry of more than one command: replicas acknowledge entries
	// whole, and whoever waits for a small one waits for those before.
	batchBytes = 256 << 10
	// entriesInFlight of a lane are proposed at a time, one that is decided while the next is
	// on its way; what comes meanwhile waits and shares the one after. An entry costs every
	// member a sync and a message, however many share it.
	entriesInFlight = 2
	// smallCommand is up to how many bytes a command goes with its like, and not behind
	// those that declare ten thousand references, a tenth of a second for each member.
	smallCommand = 16 << 10
)

// indexAfter gives the index at which everything up to an entry is decided.
func indexAfter(entry uint64) uint64 { return entry * placesPerEntry }

// indexOf gives the index of the command at a place, from 0, of an entry.
func indexOf(entry uint64, place int) uint64 {
	return (entry-1)*placesPerEntry + 1 + uint64(place)
}

// entryAt gives the entry that an index lies in.
func entryAt(index uint64) uint64 { return (index + placesPerEntry - 1) / placesPerEntry }

// joinCommands makes the data of an entry.
func joinCommands(commands [][]byte) []byte {
	if len(commands) == 1 {
		return commands[0]
	}
	b := []byte{0}
	for _, c := range commands {
		b = append(binary.AppendUvarint(b, uint64(len(c))), c...)
	}
	return b
}

// splitCommands gives the commands of an entry. Data that a broken leader made up hold
// none, at every replica alike.
func splitCommands(data []byte) (commands [][]byte) {
	if len(data) == 0 || data[0] != 0 {
		return [][]byte{data}
	}
	for b := data[1:]; len(b) > 0; {
		size, n := binary.Uvarint(b)
		if n <= 0 || size == 0 || size > uint64(len(b)-n) || len(commands) == placesPerEntry-1 {
			return nil
		}
		commands = append(commands, b[n:n+int(size)])
		b = b[n+int(size):]
	}
	return commands
}

// proposal is a command on its way into the log.
type proposal struct {
	command []byte
	hash    [sha256.Size]byte
	done    chan struct{} // closed when the rest is known
	index   uint64
	result  record.Result
	err     error
}

// batcher gathers commands into entries. It is safe for concurrent use.
type batcher struct {
	apply func(data []byte) raft.ApplyFuture

	mu sync.Mutex
	// under way, by hash: who sends a command again because the answer is slow to come,
	// as Submit does, shares it, instead of making everything slower still.
	known       map[[sha256.Size]byte]*proposal
	small, bulk lane
	flights     sync.WaitGroup
}

// lane is commands of about a size. Each has entries of its own, so that neither waits until
// the other's have been proposed.
type lane struct {
	waiting []*proposal
	flying  int
}

// lane gives the one that a command takes.
func (b *batcher) lane(command []byte) *lane {
	if len(command) <= smallCommand {
		return &b.small
	}
	return &b.bulk
}

// propose has a command decided, with others that wait at the same moment.
func (b *batcher) propose(command []byte) *proposal {
	hash := sha256.Sum256(command)
	b.mu.Lock()
	p := b.known[hash]
	if p == nil {
		p = &proposal{command: command, hash: hash, done: make(chan struct{})}
		if b.known == nil {
			b.known = make(map[[sha256.Size]byte]*proposal)
		}
		b.known[hash] = p
		l := b.lane(command)
		l.waiting = append(l.waiting, p)
		b.launch(l)
	}
	b.mu.Unlock()
	<-p.done
	return p
}

// launch proposes what waits in a lane, if it may. The caller holds mu.
func (b *batcher) launch(l *lane) {
	for l.flying < entriesInFlight && len(l.waiting) > 0 {
		n, size := 0, 0
		for n < len(l.waiting) && n < placesPerEntry-1 && (n == 0 || size+len(l.waiting[n].command) <= batchBytes) {
			size += len(l.waiting[n].command)
			n++
		}
		batch := l.waiting[:n:n]
		l.waiting = l.waiting[n:]
		l.flying++
		b.flights.Go(func() { b.fly(l, batch) })
	}
}

// fly waits until an entry is decided, which ends when raft does.
func (b *batcher) fly(l *lane, batch []*proposal) {
	commands := make([][]byte, len(batch))
	for i, p := range batch {
		commands[i] = p.command
	}
	f := b.apply(joinCommands(commands))
	err := f.Error()
	var results []record.Result
	if err == nil {
		switch r := f.Response().(type) {
		case []record.Result:
			results = r
		case error:
			err = fmt.Errorf("%w: %w", ErrNotLeader, r) // the state failed: this member is about to end
		}
	}
	if err == nil && len(results) != len(batch) {
		err = fmt.Errorf("%w: an entry of %d commands has %d verdicts", ErrNotLeader, len(batch), len(results))
	}
	b.mu.Lock()
	l.flying--
	for _, p := range batch {
		delete(b.known, p.hash)
	}
	b.launch(l)
	b.mu.Unlock()
	for i, p := range batch {
		if p.err = err; err == nil {
			p.index, p.result = indexOf(f.Index(), i), results[i]
		}
		close(p.done)
	}
}

// join waits until nothing is under way. raft must have ended.
func (b *batcher) join() { b.flights.Wait() }
