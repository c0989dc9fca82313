package registry

import (
	"runtime"
	"sync"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
)

// together has the signatures of small commands verified in one batch that are at the door at
// the same moment, which takes some two thirds of what it takes one by one. Who comes with one
// of them is not to wait until a large one is hashed. It is safe for concurrent use.
type together struct {
	memory *envelope.Memory

	turn sync.Mutex // held while a batch is verified; before mu
	mu   sync.Mutex
	next *round // gathering; nil: nobody waits
}

type round struct {
	commands [][]byte
	done     chan struct{} // closed when they were verified, as far as they do
}

// ahead returns when memory knows that the command is signed, or nobody could tell ahead:
// then its signature is verified when it is judged, as each is whose batch did not verify.
func (t *together) ahead(command []byte) {
	if len(command) > smallCommand {
		return
	}
	t.mu.Lock()
	r := t.next
	leads := r == nil
	if leads {
		r = &round{done: make(chan struct{})}
		t.next = r
	}
	r.commands = append(r.commands, command)
	t.mu.Unlock()
	if !leads {
		<-r.done
		return
	}
	defer close(r.done)
	t.turn.Lock()
	defer t.turn.Unlock()
	runtime.Gosched() // who is ready to come along does: only a busy processor lets anybody wait
	t.mu.Lock()
	t.next = nil
	t.mu.Unlock()
	t.memory.Ahead(envelope.Command, r.commands)
}
