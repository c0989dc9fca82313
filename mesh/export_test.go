package mesh

// KeptStreams is how many streams wait for the next call, over all connections.
func (e *Endpoint) KeptStreams() (n int) {
	e.calls.mu.Lock()
	defer e.calls.mu.Unlock()
	for l := range e.calls.live {
		n += len(l.kept)
	}
	return n
}
