package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// route is how a watcher chooses among the members: all in an order of its own, so
// that thousands of watchers spread, and the same one for everything until it fails.
type route struct {
	reg *Registry

	mu   sync.Mutex
	from int // counts failures: the first choice, modulo the number of members
}

// member gives the nth choice.
func (t *route) member(nth int) (names.NodeID, error) {
	members, err := t.reg.voters()
	if err != nil {
		return names.NodeID{}, err
	}
	members = slices.DeleteFunc(members, func(m names.NodeID) bool { return m == t.reg.cfg.Self })
	if len(members) == 0 {
		return names.NodeID{}, fmt.Errorf("%w: the members record names nobody else", ErrNoLeader)
	}
	rank(members, t.reg.cfg.Self)
	t.mu.Lock()
	defer t.mu.Unlock()
	return members[(t.from+nth)%len(members)], nil
}

// failed makes the next member the first choice, if m still is it.
func (t *route) failed(m names.NodeID) {
	if first, err := t.member(0); err != nil || first != m {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.from++
}

// call asks the nth choice.
func (t *route) call(ctx context.Context, nth int, method string, req, resp proto.Message) error {
	m, err := t.member(nth)
	if err != nil {
		return err
	}
	return t.callTo(ctx, m, method, req, resp)
}

// callTo asks m.
func (t *route) callTo(ctx context.Context, m names.NodeID, method string, req, resp proto.Message) error {
	if err := t.reg.cfg.Peers.Call(ctx, m, method, req, resp); err != nil {
		t.failed(m)
		return fmt.Errorf("%s: %w", m, err)
	}
	return nil
}

// rank orders members by a hash of each together with self.
func rank(members []names.NodeID, self names.NodeID) {
	weight := func(m names.NodeID) []byte {
		sum := sha256.Sum256([]byte(self.String() + "\x00" + m.String()))
		return sum[:]
	}
	slices.SortFunc(members, func(a, b names.NodeID) int { return bytes.Compare(weight(a), weight(b)) })
}
