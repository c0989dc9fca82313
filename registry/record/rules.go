package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The authors that are no institutions: the threshold groups of the genesis file.
const (
	Operators = "@operators"
	Committee = "@committee"
	Recovery  = "@recovery"
)

// Limits of what a command may hold. They are part of the rules that all replicas
// share: changing one changes verdicts.
const (
	MaxRows    = 10_000  // references or number events in one command
	MaxCommand = 3 << 19 // bytes of a command's envelope
	// MaxWrite bounds what a command writes besides itself: keys and values in
	// bytes, and 16 a row. A command over it must be sent in smaller parts; rows
	// of subjects with very many references get there before MaxRows does.
	MaxWrite     = 2_000_000
	rowOverhead  = 16
	maxSchema    = 64 << 10 // bytes of a dataset's JSON schema
	maxFields    = 256      // of a dataset
	maxList      = 64       // qualities, schemes, modes in one record
	maxVoters    = 15
	maxNodes     = 64  // of one institution, removed ones included
	maxKeys      = 256 // of one institution, retired ones included
	maxProvided  = 16  // keys of one identity provider
	maxLevel     = 4   // of authentication
	maxOwnRows   = 64  // references of one institution on one subject
	maxFamily    = 64  // numbers joined by replacement
	maxNumberLen = 63  // bytes of a canonical subject number
	maxGroupKeys = 32  // signatures that one envelope may carry
	maxQualities = 256 // that one institution ever uses: they are kept for ever
	minNonce     = 16  // bytes of a directory command's nonce
	maxNonce     = 32
)

// Threshold is a group of keys of which M must sign.
type Threshold struct {
	M    int
	Keys []ed25519.PublicKey
}

// FirstMember is a voting member that the genesis file names.
type FirstMember struct {
	Institution *registrypb.Institution // FirstKey is not looked at
	Key         ed25519.PublicKey
	Node        *registrypb.Node
}

// Rules are what all replicas of one mesh agree on before the first command. They
// are not changed after they are made, and so are safe for concurrent use.
type Rules struct {
	Mesh      names.MeshID
	Operators Threshold // admissions, members, datasets, suspension
	Committee Threshold // authorizations
	Recovery  Threshold // replaces operators or committee when their threshold is lost
	// RecoveryDelay is how long a replacement is public before it takes effect.
	RecoveryDelay time.Duration
	// Level is the feature level that the mesh begins at; 0: 1.
	Level uint32
	// Knows is the highest level that this program knows; 0: Level of this package. It
	// is no part of what the mesh agrees on; tests lower it to stand for an older one.
	Knows uint32
	// Verified remembers signatures that verified. Like Knows it is this program's own.
	Verified *envelope.Memory
	Members  []FirstMember // at most 15 voters, as in every later record of members
	Schemes  subject.Schemes
}

// Validate reports whether the rules can found a mesh.
func (r *Rules) Validate() error {
	if err := r.Mesh.Validate(); err != nil {
		return err
	}
	for name, t := range map[string]Threshold{Operators: r.Operators, Committee: r.Committee, Recovery: r.Recovery} {
		if t.M < 1 || t.M > len(t.Keys) {
			return fmt.Errorf("%s: %d of %d keys: want at least one, and no more than there are", name, t.M, len(t.Keys))
		}
		for i, k := range t.Keys {
			if err := envelope.CheckKey(k); err != nil {
				return fmt.Errorf("%s: key %d: %w", name, i+1, err)
			}
			if slices.ContainsFunc(t.Keys[:i], func(o ed25519.PublicKey) bool { return bytes.Equal(o, k) }) {
				return fmt.Errorf("%s: key %d stands there twice", name, i+1)
			}
		}
	}
	if len(r.Members) == 0 || len(r.Members) > maxVoters {
		return fmt.Errorf("%d first members: want 1 to %d", len(r.Members), maxVoters)
	}
	if len(r.Schemes) == 0 {
		return fmt.Errorf("no identifier scheme")
	}
	return nil
}

// Fingerprint is a hash of everything in the rules: a store made under one set of
// rules must not be opened under another.
func (r *Rules) Fingerprint() []byte {
	h := sha256.New()
	put := func(parts ...[]byte) {
		for _, p := range parts {
			h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
			h.Write(p)
		}
	}
	put([]byte("crossroads registry rules v2"), []byte(r.Mesh))
	for _, t := range []Threshold{r.Operators, r.Committee, r.Recovery} {
		put([]byte{byte(t.M)}, []byte{byte(len(t.Keys))})
		for _, k := range t.Keys {
			put(k)
		}
	}
	for _, m := range r.Members {
		put(encodeInstitution(m.Institution), m.Key, encodeNode(m.Node))
	}
	for _, s := range slices.Sorted(maps.Keys(r.Schemes)) {
		put([]byte(s))
	}
	if r.Level > 1 { // level 1 had neither
		put(binary.BigEndian.AppendUint64(packLevel(r.Level), uint64(r.RecoveryDelay)))
	}
	return h.Sum(nil)
}

// group gives the threshold group of an author that is one, as the mesh began with it.
func (r *Rules) group(author string) (Threshold, bool) {
	switch author {
	case Operators:
		return r.Operators, true
	case Committee:
		return r.Committee, true
	case Recovery:
		return r.Recovery, true
	}
	return Threshold{}, false
}
