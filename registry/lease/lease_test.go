package lease_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

var (
	leader = names.NodeID{Institution: "m1", Node: "a"}
	holder = names.NodeID{Institution: "w1", Node: "a"}
	errNo  = errors.New("no")
)

func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func trust(n names.NodeID) ([]ed25519.PublicKey, error) {
	if n != leader {
		return nil, errNo
	}
	return []ed25519.PublicKey{key("m1").Public().(ed25519.PublicKey)}, nil
}

// world is a leader and a holder joined by functions.
type world struct {
	mu       sync.Mutex
	commit   uint64
	applied  uint64
	moved    chan struct{}
	confirm  error
	compare  error
	confirms int
	ahead    time.Duration // of the leader's clock
	way      func(ctx context.Context, nonce []byte) ([]byte, error)
	granter  *lease.Granter
	holder   *lease.Holder
}

func newWorld(t *testing.T) *world {
	w := &world{commit: 5, applied: 5, moved: make(chan struct{})}
	w.granter = lease.NewGranter(lease.GranterConfig{
		Mesh: "test.example", Self: leader, Signer: key("m1"),
		Now: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return time.Now().Add(w.ahead) },
		Confirm: func(ctx context.Context) (lease.Confirmed, error) {
			w.mu.Lock()
			commit := w.commit
			w.confirms++
			w.mu.Unlock()
			time.Sleep(20 * time.Millisecond) // virtual: a round to the majority
			w.mu.Lock()
			defer w.mu.Unlock()
			return lease.Confirmed{Term: 1, Commit: commit}, w.confirm
		},
	})
	w.way = func(ctx context.Context, nonce []byte) ([]byte, error) { return w.granter.Grant(ctx, holder, nonce) }
	w.holder = lease.NewHolder(lease.HolderConfig{
		Mesh: "test.example", Self: holder, Lease: 2 * time.Second, Skew: time.Second, Trust: trust, Now: time.Now,
		Log: slog.New(slog.DiscardHandler),
		Ask: func(ctx context.Context, nonce []byte) ([]byte, error) {
			w.mu.Lock()
			way := w.way
			w.mu.Unlock()
			return way(ctx, nonce)
		},
		Applied: func() uint64 { w.mu.Lock(); defer w.mu.Unlock(); return w.applied },
		Compare: func(*registrypb.Grant) error { w.mu.Lock(); defer w.mu.Unlock(); return w.compare },
		WaitApplied: func(ctx context.Context, index uint64) error {
			for {
				w.mu.Lock()
				ok, moved := w.applied >= index, w.moved
				w.mu.Unlock()
				if ok {
					return nil
				}
				select {
				case <-moved:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.granter.Run(ctx) })
	wg.Go(func() { w.holder.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.moved)
	w.moved = make(chan struct{})
}

func (w *world) stands() bool { _, err := w.holder.Standing(); return err == nil }

func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

func TestStandingLastsWhileRenewed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		if w.stands() {
			t.Error("it stands before any grant")
		}
		if _, err := w.holder.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if !w.stands() {
				t.Fatal("the standing lapsed while the leader answers")
			}
		}
		w.set(func() { w.way = func(context.Context, []byte) ([]byte, error) { return nil, errNo } })
		time.Sleep(2 * time.Second)
		if w.stands() {
			t.Error("it stands longer than a lease after the last grant")
		}
	})
}

// The lease counts from asking, not from the answer.
func TestSlowAnswerIsNoLongerLease(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		synctest.Wait()
		slow := func(ctx context.Context, nonce []byte) ([]byte, error) {
			raw, err := w.granter.Grant(ctx, holder, nonce)
			time.Sleep(1500 * time.Millisecond)
			return raw, err
		}
		w.set(func() { w.way = slow })
		if _, err := w.holder.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // only slow answers by now
		s, err := w.holder.Standing()
		if err == nil && time.Until(s.Until) > 500*time.Millisecond {
			t.Errorf("%s are left", time.Until(s.Until))
		}
	})
}

func TestNothingStandsBeforeItIsApplied(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.set(func() { w.commit = 9 })
		time.Sleep(5 * time.Second)
		if w.stands() {
			t.Error("it stands on what it has not applied")
		}
		w.set(func() { w.applied = 9 })
		s, err := w.holder.Wait(t.Context())
		if err != nil || s.Index != 9 {
			t.Error(s.Index, err)
		}
	})
}

func TestDeposedLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.set(func() { w.confirm = errNo })
		if _, err := w.granter.Grant(t.Context(), holder, make([]byte, 32)); !errors.Is(err, errNo) {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		if w.stands() {
			t.Error("it stands by an unconfirmed leader")
		}
	})
}

// Many nonces that wait share one round to the majority.
func TestGrantsAreBatched(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		time.Sleep(time.Second)
		w.set(func() { w.confirms = 0 })
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if _, err := w.granter.Grant(t.Context(), holder, make([]byte, 32)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if w.confirms > 3 {
			t.Errorf("%d confirmations for 1000 nonces", w.confirms)
		}
		if _, err := w.granter.Grant(t.Context(), holder, make([]byte, 31)); !errors.Is(err, lease.ErrInvalidGrant) {
			t.Error("a short nonce:", err)
		}
	})
}

// The bound is a second, exactly: grants carry whole milliseconds, and the leader reads its
// clock at some moment of the 20 ms that a grant takes.
func TestClocksMustAgree(t *testing.T) {
	for _, ahead := range []time.Duration{-3 * time.Second, -1002 * time.Millisecond, 1021 * time.Millisecond, time.Hour} {
		inWorld(t, func(t *testing.T, w *world) {
			synctest.Wait()
			w.set(func() { w.ahead = ahead })
			time.Sleep(4 * time.Second)
			if w.stands() {
				t.Errorf("it stands with a leader whose clock is %s ahead", ahead)
			}
		})
	}
	for _, ahead := range []time.Duration{-time.Second, -900 * time.Millisecond, 900 * time.Millisecond, time.Second} {
		inWorld(t, func(t *testing.T, w *world) {
			w.set(func() { w.ahead = ahead })
			time.Sleep(4 * time.Second)
			if !w.stands() {
				t.Errorf("clocks that differ by %s, within the bound, are refused", ahead)
			}
		})
	}
}

// good is a grant with everything right, which cases then spoil.
func good(nonce []byte) *registrypb.Grant {
	return &registrypb.Grant{
		Mesh: "test.example", Nonce: nonce, Term: 1, CommitIndex: 5, LeaderTimeUnixMs: time.Now().UnixMilli(),
		Holder: &registrypb.NodeRef{Institution: "w1", Node: "a"}, Leader: &registrypb.NodeRef{Institution: "m1", Node: "a"},
	}
}

func sign(t testing.TB, typ envelope.Type, g *registrypb.Grant, signer string) []byte {
	payload, err := proto.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := envelope.Sign(typ, payload, key(signer))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestForgedGrants(t *testing.T) {
	forgeries := map[string]func(nonce []byte) []byte{
		"of another mesh": func(n []byte) []byte { g := good(n); g.Mesh = "other"; return sign(t, envelope.Grant, g, "m1") },
		"for another holder": func(n []byte) []byte {
			g := good(n)
			g.Holder.Institution = "w2"
			return sign(t, envelope.Grant, g, "m1")
		},
		"for another node": func(n []byte) []byte { g := good(n); g.Holder.Node = "b"; return sign(t, envelope.Grant, g, "m1") },
		"replayed":         func([]byte) []byte { return sign(t, envelope.Grant, good(make([]byte, 32)), "m1") },
		"by a non-member": func(n []byte) []byte {
			g := good(n)
			g.Leader.Institution = "w1"
			return sign(t, envelope.Grant, g, "w1")
		},
		"by another's key":    func(n []byte) []byte { return sign(t, envelope.Grant, good(n), "w1") },
		"of another type":     func(n []byte) []byte { return sign(t, envelope.Clearance, good(n), "m1") },
		"without a leader":    func(n []byte) []byte { g := good(n); g.Leader = nil; return sign(t, envelope.Grant, g, "m1") },
		"no grant":            func([]byte) []byte { return nil },
		"larger than is read": func([]byte) []byte { return make([]byte, lease.MaxGrantSize+1) },
	}
	for what, forge := range forgeries {
		inWorld(t, func(t *testing.T, w *world) {
			w.set(func() { w.way = func(_ context.Context, n []byte) ([]byte, error) { return forge(n), nil } })
			time.Sleep(3 * time.Second)
			if w.stands() {
				t.Errorf("a grant %s was believed", what)
			}
		})
	}
	inWorld(t, func(t *testing.T, w *world) { // that the good one is good
		w.set(func() {
			w.way = func(_ context.Context, n []byte) ([]byte, error) { return sign(t, envelope.Grant, good(n), "m1"), nil }
		})
		if _, err := w.holder.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	f.Add(sign(f, envelope.Grant, good(make([]byte, 32)), "m1"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		g, err := lease.Open("test.example", raw, trust)
		switch {
		case err != nil && !errors.Is(err, lease.ErrInvalidGrant):
			t.Errorf("an error of another kind: %v", err)
		case err == nil && g.Mesh != "test.example":
			t.Error("opened for another mesh")
		}
	})
}

// A holder that had applied more than the leader has committed was lied to, and one
// whose history differs holds something else: neither stands, however fresh the grant.
func TestDivergedHolderDoesNotStand(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		if _, err := w.holder.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(broken bool){
			"ahead of the leader": func(broken bool) {
				w.applied = 5
				if broken {
					w.applied = 1 << 62
				}
			},
			"another history": func(broken bool) {
				w.compare = nil
				if broken {
					w.compare = lease.ErrDiverged
				}
			},
		} {
			w.set(func() { change(true) })
			time.Sleep(3 * time.Second)
			if w.stands() {
				t.Errorf("%s: it stands", name)
			}
			if err := w.holder.Renew(t.Context(), w.way); !errors.Is(err, lease.ErrDiverged) {
				t.Errorf("%s: %v", name, err)
			}
			w.set(func() { change(false) })
			time.Sleep(3 * time.Second)
			if !w.stands() {
				t.Errorf("%s no more: it does not stand", name)
			}
		}
	})
}

// An honest member may be told of a commit, and pass it on, while the grant that was
// asked for before is on its way.
func TestAheadOfAnOlderGrantIsHonest(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		synctest.Wait()
		w.set(func() {
			w.way = func(ctx context.Context, nonce []byte) ([]byte, error) {
				raw, err := w.granter.Grant(ctx, holder, nonce)
				w.set(func() { w.commit++; w.applied = w.commit })
				return raw, err
			}
		})
		for range 20 {
			time.Sleep(500 * time.Millisecond)
			if !w.stands() {
				t.Fatal("the standing lapsed")
			}
		}
	})
}
