package mesh

import (
	"sync"
	"sync/atomic"
)

// maxIdle is how many goroutines of one connection wait for the next stream.
const maxIdle = 4

// workers serve the streams of one connection. A goroutine that served one serves the
// next: its stack has grown to what a call needs, which for a new one costs as much as
// some calls do.
type workers struct {
	serving sync.WaitGroup
	next    chan func() // taken by who is idle
	idle    atomic.Int32
}

func newWorkers() *workers { return &workers{next: make(chan func())} }

// serve has f called, at once.
func (w *workers) serve(f func()) {
	select {
	case w.next <- f:
	default:
		w.serving.Go(func() { w.work(f) })
	}
}

func (w *workers) work(f func()) {
	for ok := true; ok; {
		f()
		if w.idle.Add(1) > maxIdle {
			w.idle.Add(-1)
			return
		}
		f, ok = <-w.next
		w.idle.Add(-1)
	}
}

// wait returns when all have ended; nothing is served any more.
func (w *workers) wait() {
	close(w.next)
	w.serving.Wait()
}
