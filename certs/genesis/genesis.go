// Package genesis reads and writes the one file that a mesh begins with: its
// name, who may decide what, its first registry members and the roots of its
// certificates. Every node's configuration pins the file's SHA-256, so two nodes
// that talk to each other began with the same bytes.
//
// # The file
//
// It is JSON in exactly one form: the fields of the example in this order, two
// spaces of indentation, durations as Go writes them, keys in base64, a newline at
// the end. Parse refuses any other form, so that no two readers can take one file
// to say different things.
//
//	{
//	  "format": "crossroads-genesis/1",
//	  "mesh": "demo.example",
//	  "bounds": {
//	    "lease": "2s",
//	    "present_life": "2s",
//	    "release_life": "5s",
//	    "skew": "1s"
//	  },
//	  "operators": {
//	    "threshold": 2,
//	    "keys": [
//	      "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=",
//	  ...
//
// testdata/genesis.json is a whole one. The keys are made by Create, each in a
// file of its own, to be handed to different people: the M of M-of-N is then
// really several signers.
//
// This package holds data and knows nothing of the registry's tables; the registry
// makes its first rows of it.
package genesis

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Format is the first field of the file.
const Format = "crossroads-genesis/1"

// MaxSize is the largest file that is read, in bytes.
const MaxSize = keyfile.MaxSize

var (
	// ErrMalformed means that the file is not a genesis file; the text names the
	// field or line and the remedy.
	ErrMalformed = errors.New("bad genesis file")
	// ErrOtherGenesis means that the file is not the one that was pinned.
	ErrOtherGenesis = errors.New("not the genesis file that the configuration pins")
)

// File is a genesis file. One that Parse, Load or Create gave is valid and must
// not be changed.
type File struct {
	Mesh   names.MeshID
	Bounds Bounds
	// Operators admit institutions and change the membership, Committee grants
	// authorizations, Recovery replaces either when its threshold is lost.
	Operators, Committee, Recovery Group
	// RecoveryDelay is how long a replacement by the recovery keys is public
	// before it takes effect.
	RecoveryDelay time.Duration
	// FeatureLevel is the level of the registry's rules that the mesh begins at; 0, which
	// the file leaves out: the first.
	FeatureLevel uint32
	// Members are the first registry members, at most one of each institution.
	Members []Member
	// Bundle holds the roots of the mesh's certificates, PEM.
	Bundle string

	raw []byte // as read; the hash is over these
}

// Bounds are the times that the promise "an acknowledged revocation holds
// everywhere" rests on; all nodes must agree on them.
type Bounds struct {
	Lease       time.Duration // for which a grant lets its holder rely on its view
	PresentLife time.Duration // from issuing a clearance to presenting it
	ReleaseLife time.Duration // from issuing a clearance to releasing data; not less than PresentLife
	Skew        time.Duration // by which two clocks may differ
}

// DefaultBounds gives the bounds that suit a mesh within one country.
func DefaultBounds() Bounds {
	return Bounds{Lease: 2 * time.Second, PresentLife: 2 * time.Second, ReleaseLife: 5 * time.Second, Skew: time.Second}
}

// Group is a set of keys of which Threshold must sign together.
type Group struct {
	Threshold int
	Keys      []ed25519.PublicKey
}

// Member is a first registry member: an institution and its node.
type Member struct {
	Institution   names.InstitutionID
	Node          names.NodeName
	Name          string // in full, for people
	Type          names.InstitutionType
	Sector        names.SectorID     // empty: none
	ManagingBody  bool               // speaks for its sector
	NumberSchemes []string           // identifier schemes whose history of numbers it keeps
	Address       string             // host:port (UDP) of the mesh port
	PublicKey     ed25519.PublicKey  // the institution's signing key
	GossipKey     certs.BoxPublicKey // the node's
}

// ID names the member's node.
func (m Member) ID() names.NodeID {
	return names.NodeID{Institution: m.Institution, Node: m.Node}
}

// Load reads the genesis file at path and checks that its SHA-256 is the pinned
// one, in hexadecimal. The error wraps ErrOtherGenesis or ErrMalformed.
func Load(path, wantSHA256 string) (*File, error) {
	b, err := keyfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("genesis file: %w", err)
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); !strings.EqualFold(got, wantSHA256) {
		return nil, fmt.Errorf("%w: %s has SHA-256 %s, pinned is %q; compare with what the operators published, then get their file or correct the pin",
			ErrOtherGenesis, path, got, wantSHA256)
	}
	f, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Parse reads the bytes of a genesis file, whose hash nothing vouches for: see
// Load. The error wraps ErrMalformed.
func Parse(b []byte) (*File, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", ErrMalformed, len(b), MaxSize)
	}
	w := new(wire)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(w); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, explain(b, err))
	}
	if w.Format != Format {
		return nil, fmt.Errorf("%w: format: %.40q; this version reads %q", ErrMalformed, w.Format, Format)
	}
	f, err := w.file()
	if err != nil {
		return nil, err
	}
	if err := f.Validate(); err != nil {
		return nil, err
	}
	canonical, err := f.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(b, canonical) {
		return nil, fmt.Errorf("%w: %s", ErrMalformed, firstDifference(b, canonical))
	}
	f.raw = canonical
	return f, nil
}

// Bytes gives the file as it is written. It fails on a File that is not valid.
func (f *File) Bytes() ([]byte, error) {
	if f.raw != nil {
		return bytes.Clone(f.raw), nil
	}
	if err := f.Validate(); err != nil {
		return nil, err
	}
	return f.encode()
}

// Hash gives the SHA-256 of the file in hexadecimal, as configurations pin it. It
// is empty for a File that did not come from Parse, Load or Create.
func (f *File) Hash() string {
	if f.raw == nil {
		return ""
	}
	sum := sha256.Sum256(f.raw)
	return hex.EncodeToString(sum[:])
}

// X509Bundle gives the roots of the mesh's certificates.
func (f *File) X509Bundle() (*x509bundle.Bundle, error) {
	td, err := certs.TrustDomain(f.Mesh)
	if err != nil {
		return nil, err
	}
	return x509bundle.Parse(td, []byte(f.Bundle))
}
