package push

import (
	"cmp"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// maxTrouble is how many items a Status names.
const maxTrouble = 100

// Trouble is an item that the target did not accept.
type Trouble struct {
	ID       uint64
	Ticket   names.Ticket
	Attempts int
	Since    time.Time // of the first
	Next     time.Time // when it is tried again
	Refused  bool      // set aside; otherwise the target failed
	Why      string    // the last time
}

// Status is how a target does.
type Status struct {
	Name      string
	Delivered uint64    // since the node started
	Failures  int       // in a row; 0: it works
	Since     time.Time // of the first of them
	Next      time.Time // when it is tried again
	Paused    bool      // it accepts nothing from this node
	Why       string    // the last time
	Refused   int       // items that are set aside
	Trouble   []Trouble // the first so many that were not accepted, oldest first
}

// Status tells how the target does.
func (p *Pusher) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Name: p.cfg.Consumer, Delivered: p.delivered, Failures: p.failures, Since: p.since, Next: p.next, Paused: p.paused, Why: p.why}
	for id, t := range p.trouble {
		if p.cfg.Now().Sub(t.Next) > 24*time.Hour { // its life ended meanwhile
			delete(p.trouble, id)
			continue
		}
		if t.Refused {
			s.Refused++
		}
		s.Trouble = append(s.Trouble, t.Trouble)
	}
	slices.SortFunc(s.Trouble, func(a, b Trouble) int { return cmp.Compare(a.ID, b.ID) })
	s.Trouble = s.Trouble[:min(len(s.Trouble), maxTrouble)]
	return s
}

// Resume tries everything again at once: what was set aside, and a target that was left
// alone. It gives how many items that concerns.
func (p *Pusher) Resume() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.paused = time.Time{}, false
	for _, t := range p.trouble {
		t.Refused, t.Next = false, p.cfg.Now()
		_ = p.cfg.Inbox.Release(p.cfg.Consumer, t.receipt)
	}
	p.wake()
	return len(p.trouble)
}
