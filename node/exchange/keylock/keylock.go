// Package keylock holds a lock for each key in use, so that duplicates of one piece of
// work wait for each other and nobody else does.
package keylock

import (
	"context"
	"sync"
)

// Locks holds one lock for each key in use. The zero value is ready, and safe for
// concurrent use.
type Locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	free chan struct{} // holds one token when free
	uses int           // holder and waiters; guarded by Locks.mu
}

// Acquire waits for the key until ctx is done. release must be called once when there is
// no error.
func (l *Locks) Acquire(ctx context.Context, key string) (release func(), err error) {
	l.mu.Lock()
	k, ok := l.held[key]
	if !ok {
		k = &lock{free: make(chan struct{}, 1)}
		k.free <- struct{}{}
		if l.held == nil {
			l.held = make(map[string]*lock)
		}
		l.held[key] = k
	}
	k.uses++
	l.mu.Unlock()

	select {
	case <-k.free:
		return func() { k.free <- struct{}{}; l.leave(key, k) }, nil
	case <-ctx.Done():
		l.leave(key, k)
		return nil, ctx.Err()
	}
}

func (l *Locks) leave(key string, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.uses--; k.uses == 0 {
		delete(l.held, key)
	}
}
