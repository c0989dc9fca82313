// Package agree finds out what a majority of the registry's members says of its state.
//
// Consensus orders commands and tolerates crashes, not lies. So members sign the hash of
// their state (package statehash) at indexes that are the same everywhere, and whoever
// needs to be sure asks each member for itself and counts: what more than half of the
// members signed for one index is so, as long as fewer than half of them lie. A leader
// alone can then neither acknowledge a revocation that the others never saw, nor show two
// histories without leaving two signatures that contradict each other.
//
// The package knows no network and no store: it is handed a function that asks.
package agree

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

// MaxState is the largest signed state that is read, in bytes, and MaxStates how many are
// in one answer.
const (
	MaxState  = 2 << 10
	MaxStates = 4
)

// ErrInvalid means a state that is malformed, of another mesh or member, or not signed by
// the member it names.
var ErrInvalid = errors.New("invalid signed state")

// CommandHash is the SHA-256 of a command's payload; zero: of none.
type CommandHash [sha256.Size]byte

// State is what one member says of its replica.
type State struct {
	Member names.NodeID
	Index  uint64
	Root   statehash.Root // over all tables
	Public statehash.Root // over the tables that every node holds
	// Command was accepted at CommandIndex, which is not above Index, and took a right away
	// or not; zero: not asked.
	Command      CommandHash
	CommandIndex uint64
	RemovesRight bool
	// Raw is the signed envelope.
	Raw []byte
}

// says is what members must say alike.
type says struct {
	index, commandIndex uint64
	root, public        statehash.Root
	removes             bool
}

func (s State) says() says { return says{s.Index, s.CommandIndex, s.Root, s.Public, s.RemovesRight} }

// Sign makes the envelope of s.
func Sign(mesh names.MeshID, s State, signer crypto.Signer) ([]byte, error) {
	m := &registrypb.StateHash{
		Mesh: string(mesh), Member: &registrypb.NodeRef{Institution: string(s.Member.Institution), Node: string(s.Member.Node)},
		Index: s.Index, Root: s.Root[:], PublicRoot: s.Public[:], CommandIndex: s.CommandIndex, RemovesRight: s.RemovesRight,
	}
	if s.Command != (CommandHash{}) {
		m.Command = s.Command[:]
	}
	payload, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return envelope.Sign(envelope.StateHash, payload, signer)
}

// Open reads the envelope of a state of member, and checks form and signature; keys are
// those that count for the member. The error wraps ErrInvalid.
func Open(mesh names.MeshID, member names.NodeID, keys []ed25519.PublicKey, raw []byte) (State, error) {
	s, opened, err := Read(mesh, raw)
	if err != nil {
		return State{}, err
	}
	if s.Member != member {
		return State{}, fmt.Errorf("%w: it names another member", ErrInvalid)
	}
	for _, k := range keys {
		if opened.VerifiedBy(k) {
			return s, nil
		}
	}
	return State{}, fmt.Errorf("%w: not signed by %s", ErrInvalid, member.Institution)
}

// Read reads the envelope of a state and checks its form; the signature is the caller's
// to verify. The error wraps ErrInvalid.
func Read(mesh names.MeshID, raw []byte) (State, *envelope.Opened, error) {
	if len(raw) > MaxState {
		return State{}, nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrInvalid, len(raw), MaxState)
	}
	opened, err := envelope.Open(envelope.StateHash, raw)
	if err != nil {
		return State{}, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	m := new(registrypb.StateHash)
	if err := proto.Unmarshal(opened.Payload, m); err != nil {
		return State{}, nil, fmt.Errorf("%w: not protobuf", ErrInvalid)
	}
	s := State{
		Member: names.NodeID{Institution: names.InstitutionID(m.GetMember().GetInstitution()), Node: names.NodeName(m.GetMember().GetNode())},
		Index:  m.Index, CommandIndex: m.CommandIndex, RemovesRight: m.RemovesRight, Raw: bytes.Clone(raw),
	}
	if err := s.Member.Validate(); err != nil {
		return State{}, nil, fmt.Errorf("%w: member: %w", ErrInvalid, err)
	}
	hashes := len(m.Root) == len(s.Root) && len(m.PublicRoot) == len(s.Public)
	command := len(m.Command) == 0 && m.CommandIndex == 0 && !m.RemovesRight ||
		len(m.Command) == len(s.Command) && m.CommandIndex > 0 && m.CommandIndex <= m.Index
	if m.Mesh != string(mesh) || !hashes || !command {
		return State{}, nil, fmt.Errorf("%w: of another mesh, or a field is missing or out of bounds", ErrInvalid)
	}
	copy(s.Root[:], m.Root)
	copy(s.Public[:], m.PublicRoot)
	copy(s.Command[:], m.Command)
	return s, opened, nil
}

// Tally counts what members said. It is not safe for concurrent use.
type Tally struct {
	voters int
	by     map[says]map[names.NodeID]State
	at     map[uint64]map[names.NodeID]State // the first that each member said of an index
	lied   map[names.NodeID][2]State
}

// NewTally makes a tally of so many voters.
func NewTally(voters int) *Tally {
	return &Tally{voters: voters, by: map[says]map[names.NodeID]State{}, at: map[uint64]map[names.NodeID]State{}, lied: map[names.NodeID][2]State{}}
}

// Add counts what one member said. A member counts once for what it says; one that
// signed two states for one index counts no more at all, see Liars.
func (t *Tally) Add(s State) {
	at := t.at[s.Index]
	if at == nil {
		at = make(map[names.NodeID]State)
		t.at[s.Index] = at
	}
	if before, ok := at[s.Member]; !ok {
		at[s.Member] = s
	} else if before.Root != s.Root || before.Public != s.Public {
		t.lied[s.Member] = [2]State{before, s}
	}
	if t.by[s.says()] == nil {
		t.by[s.says()] = make(map[names.NodeID]State)
	}
	t.by[s.says()][s.Member] = s
}

// Majority gives the states in which more than half of the voters agree, of the highest
// index if there are several; nil: there is none yet.
func (t *Tally) Majority() (states []State) {
	var best *says
	for say, who := range t.by {
		n := 0
		for m := range who {
			if _, lied := t.lied[m]; !lied {
				n++
			}
		}
		if n > t.voters/2 && (best == nil || say.index > best.index) {
			best = &say
		}
	}
	if best == nil {
		return nil
	}
	for m, s := range t.by[*best] {
		if _, lied := t.lied[m]; !lied {
			states = append(states, s)
		}
	}
	return states
}

// At gives what members said of an index.
func (t *Tally) At(index uint64) map[names.NodeID]State { return t.at[index] }

// Liars gives, for each member that signed two different states for one index, both.
func (t *Tally) Liars() map[names.NodeID][2]State { return t.lied }

// Contradictions gives the indexes of which members said different things.
func (t *Tally) Contradictions() (indexes []uint64) {
	for index, who := range t.at {
		var first *State
		for _, s := range who {
			if first == nil {
				first = &s
			} else if s.Root != first.Root || s.Public != first.Public {
				indexes = append(indexes, index)
				break
			}
		}
	}
	return indexes
}
