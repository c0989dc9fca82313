// Package authority is a small certificate authority in a directory: it gives
// nodes their X.509-SVIDs while a mesh is being set up, and in test networks. A
// mesh that outgrows it uses SPIRE; nothing else in this project notices.
//
// The directory holds
//
//	state.json      which roots there are, which one signs
//	root-N.pem      a root certificate (ECDSA P-256, self-signed)
//	root-N.key      its private key, mode 0600
//	tokens/         one file per unused join token, named by the token's hash
//
// Every operation reads the directory anew, so that a rotation by one process is
// seen by all. Writes are whole or not at all. One process rotates at a time; issuing
// and joining may go on in several.
//
// # Rotating the root
//
//	AddRoot      the new root joins the bundle and signs nothing yet
//	             ... wait until every node has the new bundle ...
//	UseRoot      the new root signs; the old one still vouches for what it signed
//	             ... wait until everything it signed has expired ...
//	RetireRoots  the old one leaves the bundle
//
// Done in this order no connection fails; a Renewer passes each new bundle on.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Lifetimes.
const (
	// RootLife is how long a root is valid.
	RootLife = 5 * 365 * 24 * time.Hour
	// MaxLife is the longest life of an SVID, and so the time for which a root
	// that no longer signs must stay in the bundle.
	MaxLife = 7 * 24 * time.Hour
	// DefaultLife is the life of an SVID where none is asked for.
	DefaultLife = 24 * time.Hour
	// backdate lets a node whose clock runs behind use its SVID at once.
	backdate = time.Minute
)

// ErrRefused means that the authority will not do what was asked; the text says why.
var ErrRefused = errors.New("certificate authority refuses")

// Authority issues identities of one mesh. It is safe for concurrent use.
type Authority struct {
	dir string
	now func() time.Time
	mu  sync.Mutex // held while roots change
}

// Option changes how an Authority works.
type Option func(*Authority)

// Clock makes the authority ask now for the time, instead of time.Now.
func Clock(now func() time.Time) Option { return func(a *Authority) { a.now = now } }

// New makes an authority for mesh, with its first root, in dir, which is made if
// absent. The error wraps fs.ErrExist if there is an authority already.
func New(dir string, mesh names.MeshID, opts ...Option) (*Authority, error) {
	a := open(dir, opts)
	if _, err := certs.TrustDomain(mesh); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, tokenDir), 0o700); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(a.path(stateFile)); err == nil {
		return nil, fmt.Errorf("new authority in %s: %w", dir, fs.ErrExist)
	}
	s := &state{Mesh: mesh}
	if err := a.newRoot(s); err != nil {
		return nil, fmt.Errorf("new authority in %s: %w", dir, err)
	}
	s.Signs = s.Roots[0].Name
	if err := a.save(s); err != nil {
		return nil, fmt.Errorf("new authority in %s: %w", dir, err)
	}
	return a, nil
}

// Open opens the authority in dir and checks that its signing root can be read.
func Open(dir string, opts ...Option) (*Authority, error) {
	a := open(dir, opts)
	s, err := a.load()
	if err != nil {
		return nil, err
	}
	if _, _, err := a.signingRoot(s); err != nil {
		return nil, err
	}
	return a, nil
}

func open(dir string, opts []Option) *Authority {
	a := &Authority{dir: dir, now: time.Now}
	for _, o := range opts {
		o(a)
	}
	return a
}

func (a *Authority) path(name string) string { return filepath.Join(a.dir, name) }

// Mesh gives the mesh whose identities are issued.
func (a *Authority) Mesh() (names.MeshID, error) {
	s, err := a.load()
	if err != nil {
		return "", err
	}
	return s.Mesh, nil
}

// Bundle gives the roots that vouch for identities of the mesh: those that sign,
// will sign or did sign what may still be valid.
func (a *Authority) Bundle() (*x509bundle.Bundle, error) {
	s, err := a.load()
	if err != nil {
		return nil, err
	}
	return a.bundle(s)
}

func (a *Authority) bundle(s *state) (*x509bundle.Bundle, error) {
	td, err := certs.TrustDomain(s.Mesh)
	if err != nil {
		return nil, err
	}
	b := x509bundle.New(td)
	for _, r := range s.Roots {
		c, err := a.rootCert(r.Name)
		if err != nil {
			return nil, err
		}
		b.AddX509Authority(c)
	}
	return b, nil
}

// Issue makes a key and an SVID for id that is valid for ttl (0: DefaultLife). The
// error wraps ErrRefused if id is not a node of the mesh, ttl is over MaxLife, or
// the root would expire first.
func (a *Authority) Issue(id spiffeid.ID, ttl time.Duration) (*x509svid.SVID, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, err := a.certify(id, key.Public(), ttl)
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}, nil
}

// certify signs an SVID for a public key whose holder was checked by the caller.
func (a *Authority) certify(id spiffeid.ID, pub crypto.PublicKey, ttl time.Duration) ([]*x509.Certificate, error) {
	if ttl == 0 {
		ttl = DefaultLife
	}
	s, err := a.load()
	if err != nil {
		return nil, err
	}
	if err := checkRequest(s.Mesh, id, ttl); err != nil {
		return nil, err
	}
	root, key, err := a.signingRoot(s)
	if err != nil {
		return nil, err
	}
	now := a.now()
	if now.Before(root.NotBefore) {
		return nil, fmt.Errorf("%w: root %s is valid from %s, it is %s here; check the clock", ErrRefused,
			s.Signs, root.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if now.Add(ttl).After(root.NotAfter) {
		return nil, fmt.Errorf("%w: root %s expires at %s; rotate it (add a root, then use it)", ErrRefused,
			s.Signs, root.NotAfter.UTC().Format(time.RFC3339))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(ttl),
		URIs:                  []*url.URL{id.URL()},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, root, pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign for %s: %w", id, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{leaf}, nil
}

// checkRequest reports whether the authority of mesh may vouch for id for ttl.
func checkRequest(mesh names.MeshID, id spiffeid.ID, ttl time.Duration) error {
	if _, err := certs.NodeOf(mesh, id); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if ttl < 0 || ttl > MaxLife {
		return fmt.Errorf("%w: a life of %s; want more than none and at most %s", ErrRefused, ttl, MaxLife)
	}
	return nil
}

// newRoot makes the next root and adds it to s, which the caller saves.
func (a *Authority) newRoot(s *state) error {
	td, err := certs.TrustDomain(s.Mesh)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	now := a.now()
	name := fmt.Sprintf("root-%d", s.Made+1)
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{string(s.Mesh)}, CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(RootLife),
		URIs:                  []*url.URL{td.ID().URL()},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// A root whose making was cut off before state.json named it was never used:
	// its files are replaced.
	if err := keyfile.Replace(a.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), keyfile.Secret); err != nil {
		return err
	}
	if err := keyfile.Replace(a.path(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyfile.Public); err != nil {
		return err
	}
	s.Made++
	s.Roots = append(s.Roots, root{Name: name})
	return nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}
