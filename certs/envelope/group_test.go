package envelope

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
)

// signed gives n messages of one kind signed together.
func signed(t testing.TB, k crypto.Signer, kind Type, n int) []*certspb.Envelope {
	t.Helper()
	group := make([]*toSign, n)
	for i := range group {
		group[i] = &toSign{t: kind, payload: fmt.Appendf(nil, "message %d", i)}
	}
	NewGroup(k).sign(group)
	out := make([]*certspb.Envelope, n)
	for i, m := range group {
		if m.err != nil {
			t.Fatal(m.err)
		}
		out[i] = new(certspb.Envelope)
		if err := proto.Unmarshal(m.raw, out[i]); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// verdict opens an envelope as a kind and asks the stateless way, and through a
// verifier that has seen much: both must agree.
func verdict(t testing.TB, v *Verifier, kind Type, env *certspb.Envelope, k ed25519.PublicKey) bool {
	t.Helper()
	raw, err := proto.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(kind, raw)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Open(kind, raw)
	alone, cached := a.VerifiedBy(k), v.VerifiedBy(b, k)
	if alone != cached || alone != a.VerifiedBy(k) || cached != v.VerifiedBy(b, k) {
		t.Fatalf("verdicts differ: %v alone, %v cached", alone, cached)
	}
	return alone
}

func TestGroupOfEverySize(t *testing.T) {
	k, v := newKey(t, 1), new(Verifier)
	for n := 1; n <= 70; n++ {
		for i, env := range signed(t, k, Answer, n) {
			if !verdict(t, v, Answer, env, pub(k)) || verdict(t, v, Answer, env, pub(newKey(t, 2))) {
				t.Fatalf("message %d of %d", i, n)
			}
			if alone := env.Signatures[0].Group == nil; alone != (n == 1) {
				t.Fatalf("%d of %d signed alone: %v", i, n, alone)
			}
		}
	}
}

// TestTreeIsThatOfRFC6962 compares with another implementation, which differs in
// what a leaf is only.
func TestTreeIsThatOfRFC6962(t *testing.T) {
	for n := 2; n < 40; n++ {
		var leaves [][sha256.Size]byte
		var hashes []tlog.Hash
		read := tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, err error) {
			for _, i := range at {
				out = append(out, hashes[i])
			}
			return out, nil
		})
		for i := range n {
			leaf := sha256.Sum256([]byte{byte(i)})
			leaves = append(leaves, leaf)
			more, err := tlog.StoredHashesForRecordHash(int64(i), tlog.Hash(leaf), read)
			if err != nil {
				t.Fatal(err)
			}
			hashes = append(hashes, more...)
		}
		root, paths := tree(leaves)
		want, err := tlog.TreeHash(int64(n), read)
		if err != nil || tlog.Hash(root) != want {
			t.Fatalf("%d leaves: root %x, want %v, %v", n, root, want, err)
		}
		for i := range n {
			proof, err := tlog.ProveRecord(int64(n), int64(i), read)
			if err != nil || len(proof) != len(paths[i]) {
				t.Fatal(err)
			}
			for d := range proof {
				if !bytes.Equal(proof[d][:], paths[i][d]) {
					t.Fatalf("path of %d in %d", i, n)
				}
			}
		}
	}
}

// TestForgedPaths changes one thing at a time, before a verifier that knows the root
// and one that does not.
func TestForgedPaths(t *testing.T) {
	k := newKey(t, 1)
	for name, forge := range map[string]func(e *certspb.Envelope, g *certspb.GroupPath, other *certspb.Envelope){
		"payload":        func(e *certspb.Envelope, _ *certspb.GroupPath, _ *certspb.Envelope) { e.Payload[0] ^= 1 },
		"neighbour's":    func(e *certspb.Envelope, _ *certspb.GroupPath, o *certspb.Envelope) { e.Payload = o.Payload },
		"salt":           func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Salt[31] ^= 1 },
		"no salt":        func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Salt = nil },
		"salt runs over": func(e *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Salt = append(g.Salt, 'D') },
		"index":          func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Index ^= 1 },
		"index beyond":   func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Index += g.Size },
		"size more":      func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Size++ },
		"size less":      func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Size-- },
		"size none":      func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Size, g.Index = 0, 0 },
		"size huge":      func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Size = 1 << 63 },
		"path":           func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Path[1][0] ^= 1 },
		"path longer": func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) {
			g.Path = append(g.Path, g.Path[0])
		},
		"path shorter":      func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Path = g.Path[:2] },
		"path none":         func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Path = nil },
		"path of half hash": func(_ *certspb.Envelope, g *certspb.GroupPath, _ *certspb.Envelope) { g.Path[0] = g.Path[0][:16] },
		"no group":          func(e *certspb.Envelope, _ *certspb.GroupPath, _ *certspb.Envelope) { e.Signatures[0].Group = nil },
		"signature": func(e *certspb.Envelope, _ *certspb.GroupPath, _ *certspb.Envelope) {
			e.Signatures[0].Signature[9] ^= 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := new(Verifier)
			envs := signed(t, k, Request, 7)
			for _, known := range []bool{false, true} {
				e := proto.CloneOf(envs[2])
				forge(e, e.Signatures[0].Group, envs[3])
				if verdict(t, v, Request, e, pub(k)) {
					t.Fatalf("passes; root known: %v", known)
				}
				if !verdict(t, v, Request, envs[2], pub(k)) {
					t.Fatal("the true one does not pass")
				}
			}
		})
	}
}

// TestGroupsStayApart relabels messages, keys and kinds.
func TestGroupsStayApart(t *testing.T) {
	k, other, v := newKey(t, 1), newKey(t, 2), new(Verifier)
	e := signed(t, k, Request, 4)[1]
	verdict(t, v, Request, e, pub(k))
	for _, kind := range []Type{Clearance, Answer, Command, Grant, NodeMeta} {
		x := proto.CloneOf(e)
		x.Type = string(kind)
		if verdict(t, v, kind, x, pub(k)) {
			t.Errorf("a request passes for %s", kind)
		}
	}
	x := proto.CloneOf(e)
	x.Signatures[0].KeyId = string(KeyID(pub(other)))
	if verdict(t, v, Request, x, pub(other)) || verdict(t, v, Request, x, pub(k)) {
		t.Error("one key's group passes for another's")
	}
	// The root itself, as a message.
	root, _ := rootOf(leafOf(e.Signatures[0].Group.Salt, Request, e.Payload), e.Signatures[0].Group)
	raw, _ := proto.Marshal(&certspb.Envelope{Type: groupRoot, Payload: root[:], Signatures: []*certspb.Signature{{KeyId: e.Signatures[0].KeyId, Signature: e.Signatures[0].Signature}}})
	if o, err := Open(Request, raw); !errors.Is(err, ErrWrongType) {
		t.Error(o, err)
	}
	// Kinds that must be signed alone, by someone who groups them all the same.
	for _, kind := range []Type{Command, Grant, NodeMeta, "application/vnd.crossroads.other"} {
		for _, e := range signed(t, k, kind, 3) {
			if verdict(t, v, kind, e, pub(k)) {
				t.Errorf("a group of %s passes", kind)
			}
		}
	}
}

// TestTreeOfOneIsNone: there is one form for a lone message.
func TestTreeOfOneIsNone(t *testing.T) {
	k, v := newKey(t, 1), new(Verifier)
	payload, salt := []byte("payload"), make([]byte, saltSize)
	leaf := leafOf(salt, Answer, payload)
	e := &certspb.Envelope{Type: string(Answer), Payload: payload, Signatures: []*certspb.Signature{{
		KeyId: string(KeyID(pub(k))), Signature: ed25519.Sign(k, rootPAE(Answer, string(KeyID(pub(k))), 1, leaf)),
		Group: &certspb.GroupPath{Salt: salt, Size: 1},
	}}}
	if verdict(t, v, Answer, e, pub(k)) {
		t.Fatal("a tree of one leaf passes")
	}
}

// TestPathTellsNothing: signing the same messages again shares no byte of a path,
// and no leaf is what anyone can compute from the message alone.
func TestPathTellsNothing(t *testing.T) {
	k := newKey(t, 1)
	a, b := signed(t, k, Answer, 2), signed(t, k, Answer, 2)
	pa, pb := a[0].Signatures[0].Group.Path, b[0].Signatures[0].Group.Path
	if len(pa) != 1 || len(pb) != 1 || bytes.Equal(pa[0], pb[0]) {
		t.Fatal("the neighbour's leaf is the same again")
	}
	for _, guess := range [][]byte{a[1].Payload, PAE(Answer, a[1].Payload), append([]byte{0}, PAE(Answer, a[1].Payload)...)} {
		if h := sha256.Sum256(guess); bytes.Equal(h[:], pa[0]) {
			t.Fatal("the neighbour can be guessed")
		}
	}
	if bytes.Contains(pa[0], a[1].Signatures[0].Group.Salt[:8]) || bytes.Equal(a[0].Signatures[0].Group.Salt, a[1].Signatures[0].Group.Salt) {
		t.Fatal("salts show or repeat")
	}
}

// slowSigner lets others queue while it signs, and counts.
type slowSigner struct {
	ed25519.PrivateKey
	mu    sync.Mutex
	calls int
	gate  chan struct{} // nil: open
	fail  error
}

func (s *slowSigner) Sign(r io.Reader, b []byte, o crypto.SignerOpts) ([]byte, error) {
	s.mu.Lock()
	s.calls++
	gate, fail := s.gate, s.fail
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if fail != nil {
		return nil, fail
	}
	return s.PrivateKey.Sign(r, b, o)
}

// TestSignersTogether has many sign at once, behind one that is slow: each gets its
// own message, and together they need few signatures.
func TestSignersTogether(t *testing.T) {
	k := &slowSigner{PrivateKey: newKey(t, 1), gate: make(chan struct{})}
	g, v := NewGroup(k), new(Verifier)
	const each = 20
	var all sync.WaitGroup
	for _, kind := range []Type{Request, Clearance, Answer, Grant} {
		for i := range each {
			all.Go(func() {
				payload := fmt.Appendf(nil, "%s %d", kind, i)
				raw, err := g.Sign(kind, payload)
				if err != nil {
					t.Error(err)
					return
				}
				o, err := Open(kind, raw)
				if err != nil || !bytes.Equal(o.Payload, payload) || !v.VerifiedBy(o, pub(k.PrivateKey)) {
					t.Errorf("%s: %v", payload, err)
				}
			})
		}
	}
	waiting := func() int { g.mu.Lock(); defer g.mu.Unlock(); return len(g.waiting) }
	for waiting() < 3*each-each { // at most the leader's kind is taken
		runtime.Gosched()
	}
	close(k.gate)
	all.Wait()
	if k.calls > each+2*each {
		t.Errorf("%d signatures", k.calls)
	}
	if g.busy || len(g.waiting) != 0 {
		t.Error("somebody still waits")
	}
	k.fail = errors.New("token removed")
	if _, err := g.Sign(Request, nil); !errors.Is(err, k.fail) {
		t.Error(err)
	}
	k.fail = nil
	if _, err := g.Sign(Request, nil); err != nil {
		t.Error("the failure stayed:", err)
	}
}

func TestVerifierIsBounded(t *testing.T) {
	v := new(Verifier)
	for range 3*maxRoots + 5 {
		var key [sha256.Size]byte
		rand.Read(key[:])
		v.learn(key)
		if !v.knows(key) {
			t.Fatal("forgotten at once")
		}
	}
	if n := len(v.young) + len(v.old); n > 2*maxRoots {
		t.Fatalf("%d roots kept", n)
	}
}

func FuzzGroupPath(f *testing.F) {
	k := newKey(f, 1)
	v := new(Verifier)
	for _, e := range signed(f, k, Answer, 5) {
		raw, _ := proto.Marshal(e)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := Open(Answer, raw)
		if err != nil {
			return
		}
		ok := v.VerifiedBy(o, pub(k))
		if again, _ := Open(Answer, raw); again.VerifiedBy(pub(k)) != ok {
			t.Fatal("the cache changes the verdict")
		}
		if ok && !bytes.HasPrefix(o.Payload, []byte("message ")) {
			t.Fatalf("forged %q", o.Payload)
		}
	})
}
