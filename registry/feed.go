package registry

import "sync"

// feed tells any number of listeners that something changed. The zero value is
// ready, and safe for concurrent use.
type feed struct {
	mu        sync.Mutex
	listeners map[chan struct{}]struct{}
}

func (f *feed) notify() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.listeners {
		select {
		case l <- struct{}{}:
		default: // it has not yet looked at the change before
		}
	}
}

// Changes gives a channel that holds a token whenever this replica applied
// something since the last one was taken; many changes may share one. Who listens
// looks at the View then, as for whose connections to close. The second result
// ends it; the channel is never closed.
func (r *Registry) Changes() (<-chan struct{}, func()) {
	f := &r.changes
	l := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listeners == nil {
		f.listeners = make(map[chan struct{}]struct{})
	}
	f.listeners[l] = struct{}{}
	return l, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners, l)
	}
}
