// Package nonce keeps what a node asks identity providers to attest: each challenge that it
// gives out is good for one use, by one application, for a few minutes, and for exactly
// the payload that was asked.
package nonce

import (
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/identity"
)

const (
	life   = 5 * time.Minute
	most   = 10_000 // open at this node
	mostOf = 1_000  // of one application
)

// ErrBusy means that too many challenges are open.
var ErrBusy = errors.New("too many open challenges")

// ErrUnknown means that a nonce cannot be used.
var ErrUnknown = errors.New("its nonce was not given out by this node to this application, was used, or has expired")

// challenge is what a nonce was given out for.
type challenge struct {
	application string
	payload     []byte // as hashed
	until       time.Time
}

// Book holds the nonces that were given out and not used. They are in memory only: what
// is not here cannot be used, so a restart loses them and allows nothing. It is safe for
// concurrent use.
type Book struct {
	mu   sync.Mutex
	open map[[identity.NonceSize]byte]challenge
	apps map[string]int // how many of open are each application's
}

// NewBook makes an empty one.
func NewBook() *Book {
	return &Book{open: make(map[[identity.NonceSize]byte]challenge), apps: make(map[string]int)}
}

// Give makes a nonce for a payload, and says until when it is good.
func (n *Book) Give(now time.Time, application string, payload []byte) ([]byte, time.Time, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.open) >= most || n.apps[application] >= mostOf {
		for k, c := range n.open {
			if !now.Before(c.until) {
				n.forget(k, c)
			}
		}
	}
	if len(n.open) >= most || n.apps[application] >= mostOf {
		return nil, time.Time{}, ErrBusy
	}
	var k [identity.NonceSize]byte
	rand.Read(k[:])
	until := now.Add(life)
	n.open[k] = challenge{application, payload, until}
	n.apps[application]++
	return k[:], until, nil
}

// Take uses a nonce up, whoever shows it, and gives the payload it was for.
func (n *Book) Take(now time.Time, application string, nonce []byte) ([]byte, error) {
	if len(nonce) != identity.NonceSize {
		return nil, ErrUnknown
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	k := [identity.NonceSize]byte(nonce)
	c, ok := n.open[k]
	if !ok {
		return nil, ErrUnknown
	}
	n.forget(k, c)
	if c.application != application || !now.Before(c.until) {
		return nil, ErrUnknown
	}
	return c.payload, nil
}

func (n *Book) forget(k [identity.NonceSize]byte, c challenge) {
	delete(n.open, k)
	if n.apps[c.application]--; n.apps[c.application] == 0 {
		delete(n.apps, c.application)
	}
}
