package reading

import (
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/identity"
)

const (
	nonceLife    = 5 * time.Minute
	maxNonces    = 10_000 // open at this node
	maxNoncesApp = 1_000  // of one application
)

var errNonce = errors.New("its nonce was not given out by this node to this application, was used, or has expired")

// challenge is what a nonce was given out for.
type challenge struct {
	application string
	viewing     []byte // as hashed
	until       time.Time
}

// nonces are those that were given out and not used. They are in memory only: what
// is not here cannot be used, so a restart loses them and allows nothing.
type nonces struct {
	mu   sync.Mutex
	open map[[identity.NonceSize]byte]challenge
	apps map[string]int // how many of open are each application's
}

func newNonces() *nonces {
	return &nonces{open: make(map[[identity.NonceSize]byte]challenge), apps: make(map[string]int)}
}

// give makes a nonce.
func (n *nonces) give(now time.Time, application string, viewing []byte) ([]byte, time.Time, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.open) >= maxNonces || n.apps[application] >= maxNoncesApp {
		for k, c := range n.open {
			if !now.Before(c.until) {
				n.forget(k, c)
			}
		}
	}
	if len(n.open) >= maxNonces || n.apps[application] >= maxNoncesApp {
		return nil, time.Time{}, ErrBusy
	}
	var k [identity.NonceSize]byte
	rand.Read(k[:])
	until := now.Add(nonceLife)
	n.open[k] = challenge{application, viewing, until}
	n.apps[application]++
	return k[:], until, nil
}

// take uses a nonce up, whoever shows it, and gives what it was for.
func (n *nonces) take(now time.Time, application string, nonce []byte) ([]byte, error) {
	if len(nonce) != identity.NonceSize {
		return nil, errNonce
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	k := [identity.NonceSize]byte(nonce)
	c, ok := n.open[k]
	if !ok {
		return nil, errNonce
	}
	n.forget(k, c)
	if c.application != application || !now.Before(c.until) {
		return nil, errNonce
	}
	return c.viewing, nil
}

func (n *nonces) forget(k [identity.NonceSize]byte, c challenge) {
	delete(n.open, k)
	if n.apps[c.application]--; n.apps[c.application] == 0 {
		delete(n.apps, c.application)
	}
}
