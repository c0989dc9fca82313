package envelope

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"runtime"
	"sync"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
)

// groupRoot is the type under which roots are signed. It is none that Open can be
// asked for, so no root passes for a message, and no message for a root.
const groupRoot = "application/vnd.crossroads.signature-group.v1"

const (
	saltSize     = 32
	maxLeaves    = 4096 // in a tree that is read
	maxSigned    = 256  // in one that Group makes
	maxPathDepth = 12   // of maxLeaves
)

// mayGroup says whether messages of a kind may be signed as a group: those of
// single exchanges. Whatever replicas must judge alike for ever, or shows who a
// node is, carries a signature of its own.
func mayGroup(t Type) bool {
	switch t {
	case Request, Clearance, Answer,
		SectorPermission, SectorAnswer, SectorQuestion, SectorOutcome, SectorDelivery, SectorReceipt,
		Publication, NotificationClearance, NotificationDecision, Notice, NoticeReceipt, SubmissionReceipt, SubmissionStatus:
		return true
	}
	return false
}

// rootPAE gives the bytes that are signed for a group.
func rootPAE(t Type, keyID string, size uint64, root [sha256.Size]byte) []byte {
	b := make([]byte, 0, 256)
	for _, s := range [...]string{string(t), keyID} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	b = binary.BigEndian.AppendUint64(b, size)
	return PAE(groupRoot, append(b, root[:]...))
}

// leafOf gives the leaf of one message. The salt keeps whoever sees the leaf in a
// neighbour's path from trying out what the message might be.
func leafOf(salt []byte, t Type, payload []byte) [sha256.Size]byte {
	b := make([]byte, 0, 2048) // of most messages; it stays on the stack
	b = append(append(b, 0), salt...)
	return sha256.Sum256(appendPAE(b, t, payload))
}

func nodeOf(left, right [sha256.Size]byte) [sha256.Size]byte {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// tree gives the root over leaves and the path of each, as in RFC 6962: the left
// part is the largest power of two that is smaller than the whole.
func tree(leaves [][sha256.Size]byte) (root [sha256.Size]byte, paths [][][]byte) {
	n := len(leaves)
	if n == 1 {
		return leaves[0], make([][][]byte, 1)
	}
	paths = make([][][]byte, n)
	depth := bits.Len(uint(n - 1))
	room := make([][]byte, n*depth)
	for i := range paths {
		paths[i], room = room[:0:depth], room[depth:]
	}
	return grow(leaves, paths), paths
}

// grow gives the root over leaves, and adds to the path of each.
func grow(leaves [][sha256.Size]byte, paths [][][]byte) [sha256.Size]byte {
	n := len(leaves)
	if n == 1 {
		return leaves[0]
	}
	split := 1 << (bits.Len(uint(n-1)) - 1)
	left, right := grow(leaves[:split], paths[:split]), grow(leaves[split:], paths[split:])
	for i := range paths {
		if i < split {
			paths[i] = append(paths[i], right[:])
		} else {
			paths[i] = append(paths[i], left[:])
		}
	}
	return nodeOf(left, right)
}

// rootOf follows a path from a leaf to the root: RFC 9162, section 2.1.3.2. Only
// a path of exactly the right length gives one. A tree of one leaf is none: a lone
// message is signed alone, so that there is one form for it.
func rootOf(leaf [sha256.Size]byte, g *certspb.GroupPath) (root [sha256.Size]byte, ok bool) {
	index, last := g.GetIndex(), g.GetSize()-1
	if g.GetSize() < 2 || g.GetSize() > maxLeaves || index > last || len(g.GetPath()) > maxPathDepth {
		return root, false
	}
	root = leaf
	for _, p := range g.GetPath() {
		if len(p) != sha256.Size || last == 0 {
			return root, false
		}
		if index&1 == 1 || index == last {
			root = nodeOf([sha256.Size]byte(p), root)
			for index&1 == 0 && index != 0 {
				index, last = index>>1, last>>1
			}
		} else {
			root = nodeOf(root, [sha256.Size]byte(p))
		}
		index, last = index>>1, last>>1
	}
	return root, last == 0
}

// Group signs messages of single exchanges: those of one kind that wait at the same
// time with one signature, over the root of a Merkle tree in which each is a leaf;
// a lone one alone. It is safe for concurrent use, and starts nothing: whoever
// comes first signs for all.
type Group struct {
	signer crypto.Signer

	key  ed25519.PublicKey // as signed with last, and
	name string            // what it is called; both of who signs for all

	mu      sync.Mutex
	busy    bool // somebody signs, or is about to
	waiting []*toSign
}

// toSign is a message that waits.
type toSign struct {
	t       Type
	payload []byte
	raw     []byte
	err     error
	wake    chan bool // takes one: true says that it is this one's turn to sign for all
}

// NewGroup makes a Group that signs with one Ed25519 key.
func NewGroup(s crypto.Signer) *Group { return &Group{signer: s} }

// Sign makes an envelope over payload. It fails only if the signer does.
func (g *Group) Sign(t Type, payload []byte) ([]byte, error) {
	if !mayGroup(t) {
		return Sign(t, payload, g.signer)
	}
	m := &toSign{t: t, payload: payload, wake: make(chan bool, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, m)
	lead := !g.busy
	g.busy = true
	g.mu.Unlock()
	if lead || <-m.wake {
		g.lead(m)
	}
	return m.raw, m.err
}

// lead signs for m and all of its kind that wait, and hands on to the next.
func (g *Group) lead(m *toSign) {
	runtime.Gosched() // those who are about to come are runnable already
	g.mu.Lock()
	group, rest := []*toSign{m}, g.waiting[:0:0]
	for _, w := range g.waiting {
		switch {
		case w == m:
		case w.t == m.t && len(group) < maxSigned:
			group = append(group, w)
		default:
			rest = append(rest, w)
		}
	}
	g.waiting = rest
	g.mu.Unlock()

	g.sign(group)

	g.mu.Lock()
	if len(g.waiting) == 0 {
		g.busy = false
	} else {
		g.waiting[0].wake <- true
	}
	g.mu.Unlock()
	for _, w := range group[1:] {
		w.wake <- false
	}
}

// SignAll makes an envelope over each payload: those of one call share signatures, as
// in a Group. It fails only if the signer does.
func SignAll(t Type, payloads [][]byte, s crypto.Signer) ([][]byte, error) {
	g := NewGroup(s)
	raw := make([][]byte, 0, len(payloads))
	for len(payloads) > 0 {
		n := min(len(payloads), maxSigned)
		if !mayGroup(t) {
			n = 1
		}
		group := make([]*toSign, n)
		for i := range group {
			group[i] = &toSign{t: t, payload: payloads[i]}
		}
		g.sign(group)
		for _, m := range group {
			if m.err != nil {
				return nil, m.err
			}
			raw = append(raw, m.raw)
		}
		payloads = payloads[n:]
	}
	return raw, nil
}

func (g *Group) sign(group []*toSign) {
	keyID, err := g.keyID()
	if len(group) == 1 {
		m := group[0]
		var sig []byte
		if err == nil {
			sig, err = SignDetached(m.t, m.payload, g.signer)
		}
		if m.err = err; err == nil {
			m.raw = write(m.t, m.payload, keyID, sig, nil)
		}
		return
	}
	leaves, salts := make([][sha256.Size]byte, len(group)), make([]byte, saltSize*len(group))
	rand.Read(salts)
	saltOf := func(i int) []byte { return salts[i*saltSize : (i+1)*saltSize : (i+1)*saltSize] }
	for i, m := range group {
		leaves[i] = leafOf(saltOf(i), m.t, m.payload)
	}
	root, paths := tree(leaves)
	var sig []byte
	if err == nil {
		sig, err = g.signer.Sign(rand.Reader, rootPAE(group[0].t, keyID, uint64(len(group)), root), crypto.Hash(0))
	}
	for i, m := range group {
		if err != nil {
			m.err = fmt.Errorf("sign a group of %d: %w", len(group), err)
			continue
		}
		m.raw = write(m.t, m.payload, keyID, sig, &inGroup{saltOf(i), uint64(i), uint64(len(group)), paths[i]})
	}
}

// keyID gives the name of the key, which is derived once. Only who signs for all calls it.
func (g *Group) keyID() (string, error) {
	pub, err := publicKey(g.signer)
	if err == nil && !pub.Equal(g.key) {
		g.key, g.name = pub, string(KeyID(pub))
	}
	return g.name, err
}
