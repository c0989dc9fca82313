package gossip

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/crypto/nacl/box"
)

const (
	// packetByte begins every packet. It is below 0x40, so the mesh tells it from QUIC.
	packetByte = 0x21
	// maxName is the longest node name in bytes; its length is one byte.
	maxName   = 255
	nonceSize = 24
	tagSize   = 8
	// maxPacket is the largest packet sent, in bytes; it fits every path that carries QUIC.
	maxPacket = 1150
)

var (
	errMalformed = errors.New("malformed packet")
	errUnknown   = errors.New("no gossip key is known")
	errForged    = errors.New("packet does not authenticate")
)

// overhead is what sealing adds to a payload.
func overhead(from string) int { return 2 + len(from) + nonceSize + box.Overhead + tagSize }

// parsePacket splits a packet; nothing of it is believed yet.
func parsePacket(b []byte) (from string, nonce *[nonceSize]byte, sealed []byte, err error) {
	if len(b) < 2 || b[0] != packetByte {
		return "", nil, nil, errMalformed
	}
	n := int(b[1])
	if n == 0 || len(b) < 2+n+nonceSize+box.Overhead+tagSize {
		return "", nil, nil, errMalformed
	}
	b = b[2:]
	return string(b[:n]), (*[nonceSize]byte)(b[n : n+nonceSize]), b[n+nonceSize:], nil
}

// seal holds what packets to and from one peer are sealed with.
type seal struct {
	public  [32]byte
	shared  [32]byte
	in, out [tagSize]byte
}

// sealer seals and opens packets. Safe for concurrent use.
type sealer struct {
	self  string
	agree agreement
	keys  func(name string) (*[32]byte, bool)

	mu    sync.Mutex
	seals map[string]*seal // of names that keys knew
}

// agreement gives the key that is shared with the holder of a public key.
type agreement func(public *[32]byte) (shared [32]byte)

// agreeWith is the agreement of who holds the private key.
func agreeWith(private *[32]byte) agreement {
	return func(public *[32]byte) (shared [32]byte) {
		box.Precompute(&shared, public, private)
		return shared
	}
}

func newSealer(self string, agree agreement, keys func(string) (*[32]byte, bool)) *sealer {
	return &sealer{self: self, agree: agree, keys: keys, seals: make(map[string]*seal)}
}

// with gives the seal for a peer, from the key that is known of it now.
func (s *sealer) with(peer string) (*seal, error) {
	public, ok := s.keys(peer)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok {
		delete(s.seals, peer)
		return nil, fmt.Errorf("%w for %q", errUnknown, peer)
	}
	if known := s.seals[peer]; known != nil && known.public == *public {
		return known, nil
	}
	// The shared key is the same both ways and says nothing of names: the tags keep a
	// packet from being turned around, or passed as that of another name with the same key.
	k := &seal{public: *public, shared: s.agree(public), in: tag(peer, s.self), out: tag(s.self, peer)}
	s.seals[peer] = k
	return k, nil
}

func tag(from, to string) (t [tagSize]byte) {
	sum := sha256.Sum256([]byte(from + "\x00" + to))
	copy(t[:], sum[:])
	return t
}

// seal makes the packet that carries payload to a peer.
func (s *sealer) seal(to string, payload []byte) ([]byte, error) {
	k, err := s.with(to)
	if err != nil {
		return nil, err
	}
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	b := make([]byte, 0, overhead(s.self)+len(payload))
	b = append(b, packetByte, byte(len(s.self)))
	b = append(b, s.self...)
	b = append(b, nonce[:]...)
	var room [tagSize + maxPacket]byte // what is sealed may not lie where the packet does
	plain := append(append(room[:0], k.out[:]...), payload...)
	return box.SealAfterPrecomputation(b, plain, &nonce, &k.shared), nil
}

// open authenticates a packet and gives its payload.
func (s *sealer) open(b []byte) ([]byte, error) {
	from, nonce, sealed, err := parsePacket(b)
	if err != nil {
		return nil, err
	}
	if from == s.self {
		return nil, errForged
	}
	k, err := s.with(from)
	if err != nil {
		return nil, err
	}
	plain, ok := box.OpenAfterPrecomputation(nil, sealed, nonce, &k.shared)
	if !ok || [tagSize]byte(plain[:tagSize]) != k.in {
		return nil, errForged
	}
	return plain[tagSize:], nil
}
