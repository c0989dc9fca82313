package registry

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/record"
)

// TestPlaces: every command of every entry has an index of its own, in order, and none
// is past the index at which its entry is decided.
func TestPlaces(t *testing.T) {
	last := uint64(0)
	for entry := uint64(1); entry < 4; entry++ {
		for place := range placesPerEntry - 1 {
			at := indexOf(entry, place)
			if at <= last || at >= indexAfter(entry) || entryAt(at) != entry {
				t.Fatalf("entry %d, place %d has index %d", entry, place, at)
			}
			last = at
		}
		if entryAt(indexAfter(entry)) != entry {
			t.Fatal("the end of an entry is of another")
		}
	}
}

// FuzzSplitCommands: data that any leader could put into the log give the same commands
// everywhere, never more than have places, and those that were joined.
func FuzzSplitCommands(f *testing.F) {
	f.Add([]byte{0, 2, 1, 1, 1, 9})
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add(bytes.Repeat([]byte{0, 1}, 5000))
	f.Fuzz(func(t *testing.T, data []byte) {
		commands := splitCommands(data)
		if len(commands) >= placesPerEntry {
			t.Fatalf("%d commands", len(commands))
		}
		if len(commands) < 2 {
			return
		}
		again := splitCommands(joinCommands(commands))
		if fmt.Sprint(again) != fmt.Sprint(commands) {
			t.Fatal("joined and split, they differ")
		}
	})
}

// future is an entry that is decided when it is let go.
type future struct {
	raft.ApplyFuture
	index   uint64
	results []record.Result
	decided chan struct{}
}

func (f *future) Error() error  { <-f.decided; return nil }
func (f *future) Index() uint64 { return f.index }
func (f *future) Response() any { return f.results }

// TestWaitingCommandsShareAnEntry: what comes while entries are under way goes into the
// next one, and everybody gets the verdict on his own.
func TestWaitingCommandsShareAnEntry(t *testing.T) {
	var mu sync.Mutex
	var entries [][][]byte
	gate := make(chan struct{})
	b := batcher{apply: func(data []byte) raft.ApplyFuture {
		mu.Lock()
		defer mu.Unlock()
		commands := splitCommands(data)
		entries = append(entries, commands)
		f := &future{index: uint64(len(entries)), decided: gate}
		for _, c := range commands {
			f.results = append(f.results, record.Result{Author: string(c)})
		}
		return f
	}}
	const n = 300
	var wg sync.WaitGroup
	indexes := make([]uint64, n)
	for i := range n {
		wg.Go(func() {
			name := fmt.Sprintf("author%d", i)
			p := b.propose([]byte(name))
			if p.err != nil || p.result.Author != name {
				t.Errorf("%s got the verdict %+v: %v", name, p.result, p.err)
			}
			indexes[i] = p.index
		})
	}
	for { // everything that may fly does
		b.mu.Lock()
		all := len(b.small.waiting)
		b.mu.Unlock()
		mu.Lock()
		for _, e := range entries {
			all += len(e)
		}
		mu.Unlock()
		if all == n {
			break
		}
	}
	close(gate)
	wg.Wait()
	b.join()
	if len(entries) > 10 {
		t.Errorf("%d commands took %d entries", n, len(entries))
	}
	seen := make(map[uint64]bool)
	for _, i := range indexes {
		if seen[i] {
			t.Fatalf("index %d was given twice", i)
		}
		seen[i] = true
	}
}

// TestSmallCommandsDoNotQueueBehindBulk: with more large commands waiting than may be under
// way, a small one is proposed at once, and so is a large one while small ones wait.
func TestSmallCommandsDoNotQueueBehindBulk(t *testing.T) {
	for _, sizes := range [][2]int{{smallCommand + 1, 1}, {1, smallCommand + 1}} {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			var other atomic.Int32
			b := batcher{apply: func(data []byte) raft.ApplyFuture {
				commands := splitCommands(data)
				for _, c := range commands {
					if len(c) == sizes[1] {
						other.Add(1)
					}
				}
				return &future{index: 1, decided: gate, results: make([]record.Result, len(commands))}
			}}
			var wg sync.WaitGroup
			for n := range 50 {
				wg.Go(func() { b.propose(bytes.Repeat([]byte{byte(n + 2)}, sizes[0])) })
			}
			synctest.Wait()
			wg.Go(func() { b.propose(bytes.Repeat([]byte{1}, sizes[1])) })
			synctest.Wait()
			if n := other.Load(); n != 1 {
				t.Errorf("%d of the other size were proposed", n)
			}
			close(gate)
			wg.Wait()
			b.join()
		})
	}
}

// TestTheSameCommandWaitsOnce: a command that is sent again while it is under way takes no
// second place in the log; sent again later it does, since it may have been refused.
func TestTheSameCommandWaitsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var sent atomic.Int32
		b := batcher{apply: func(data []byte) raft.ApplyFuture {
			sent.Add(1)
			return &future{index: 1, decided: gate, results: make([]record.Result, len(splitCommands(data)))}
		}}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if p := b.propose([]byte("the same")); p.err != nil || p.index != indexOf(1, 0) {
					t.Error(p.index, p.err)
				}
			})
		}
		synctest.Wait() // all of them wait
		close(gate)
		wg.Wait()
		if n := sent.Load(); n != 1 {
			t.Errorf("it was sent %d times", n)
		}
		b.propose([]byte("the same"))
		if n := sent.Load(); n != 2 {
			t.Errorf("sent again later, it was sent %d times in all", n)
		}
		b.join()
	})
}

func TestTrailing(t *testing.T) {
	var l logSize
	for range 100 {
		l.note(1000, 10)
	}
	if n := l.trailing(5500); n != 5 {
		t.Errorf("%d entries hold 5500 bytes", n)
	}
	if n := l.trailing(1 << 30); n < 10 || n > 20 {
		t.Errorf("%d entries are remembered", n)
	}
	l.snapshotTaken(60, 60_000)
	if entries, bytes := l.sinceSnapshot(); entries != 40 || bytes != 40_000 {
		t.Error(entries, bytes)
	}
}
