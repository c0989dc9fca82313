package certs

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
)

// The files of an identity directory, all PEM.
const (
	SVIDFile   = "svid.pem"   // the certificate, then what chains it to a root
	KeyFile    = "key.pem"    // its private key, PKCS#8; not readable by the world
	BundleFile = "bundle.pem" // the roots that peers are verified with
)

// Everyone else must not read key.pem; a group may, because that is how
// orchestrators mount secrets.
const notTheWorld = 0o007

// A change is read when the directory has been quiet for so long, and in any case
// every poll: not every file system reports changes.
const (
	quiet = 50 * time.Millisecond
	poll  = 30 * time.Second
)

// ErrBadIdentity means that an identity directory does not hold a certificate,
// its key and a bundle that it verifies with.
var ErrBadIdentity = errors.New("bad identity directory")

// identity is what was read of a directory at one moment: a matching whole.
type identity struct {
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
}

// DirSource is a Source that reads a directory of PEM files and, while Run runs,
// follows its changes. It never holds a certificate and key that do not match: a
// bad update is logged and the last good identity stays, until it expires. It is
// safe for concurrent use.
type DirSource struct {
	dir  string
	log  *slog.Logger
	poll time.Duration
	now  func() time.Time

	mu       sync.RWMutex
	identity identity // guarded by mu

	refused string // the last refusal that was logged; owned by Run
}

var _ Source = (*DirSource)(nil)

// OpenDir reads the identity in dir. It fails closed: the error wraps
// ErrBadIdentity, ErrExposed or ErrExpired, and names the file.
func OpenDir(dir string, log *slog.Logger) (*DirSource, error) {
	d := &DirSource{dir: dir, log: log.With("dir", dir), poll: poll, now: time.Now}
	i, err := readDir(dir)
	if err == nil {
		err = checkValid(i.svid, d.now())
	}
	if err != nil {
		return nil, fmt.Errorf("identity in %s: %w", dir, err)
	}
	d.identity = i
	return d, nil
}

// ID gives the SPIFFE ID of the identity. It never changes.
func (d *DirSource) ID() spiffeid.ID { return d.current().svid.ID }

// GetX509SVID gives the present SVID. The error wraps ErrExpired.
func (d *DirSource) GetX509SVID() (*x509svid.SVID, error) {
	i := d.current()
	if err := checkValid(i.svid, d.now()); err != nil {
		return nil, err
	}
	return i.svid, nil
}

// GetX509BundleForTrustDomain gives the present bundle, for the trust domain of
// the SVID and for no other.
func (d *DirSource) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return d.current().bundle.GetX509BundleForTrustDomain(td)
}

func (d *DirSource) current() identity {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.identity
}

// Run follows the directory until ctx ends, and then returns nil. It is called at
// most once.
func (d *DirSource) Run(ctx context.Context) error {
	var changes <-chan fsnotify.Event
	var faults <-chan error
	w, err := fsnotify.NewWatcher()
	if err == nil {
		defer func() { _ = w.Close() }()
		changes, faults = w.Events, w.Errors
		err = w.Add(d.dir)
	}
	if err != nil {
		d.log.Warn("the identity directory cannot be watched, it is read again now and then", "every", d.poll, "err", err)
	}
	tick := time.NewTicker(d.poll)
	defer tick.Stop()
	settle := time.NewTimer(0) // reads at once what changed between OpenDir and Run
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			settle.Reset(quiet)
		case err := <-faults:
			d.log.Warn("watching the identity directory", "err", err)
		case <-tick.C:
			d.reload()
		case <-settle.C:
			d.reload()
		}
	}
}

// reload takes over what the directory holds now, if it is good and new.
func (d *DirSource) reload() {
	next, err := readDir(d.dir)
	if err == nil {
		err = checkValid(next.svid, d.now())
	}
	old := d.current()
	if err == nil && next.svid.ID != old.svid.ID {
		err = fmt.Errorf("%w: it names %s, this node is %s; restart the node to change its identity", ErrBadIdentity, next.svid.ID, old.svid.ID)
	}
	if err != nil {
		if d.refused != err.Error() { // once, not at every poll
			d.refused = err.Error()
			d.log.Error("identity update refused, the last good one stays", "id", old.svid.ID,
				"expires", old.svid.Certificates[0].NotAfter, "err", err)
		}
		return
	}
	d.refused = ""
	if next.svid.Certificates[0].Equal(old.svid.Certificates[0]) && next.bundle.Equal(old.bundle) {
		return
	}
	d.mu.Lock()
	d.identity = next
	d.mu.Unlock()
	d.log.Info("identity updated", "id", next.svid.ID, "serial", next.svid.Certificates[0].SerialNumber.Text(16),
		"expires", next.svid.Certificates[0].NotAfter, "roots", len(next.bundle.X509Authorities()))
}

// ReadDir reads the identity in dir once, whether or not it has expired. The error
// wraps ErrBadIdentity.
func ReadDir(dir string) (*x509svid.SVID, *x509bundle.Bundle, error) {
	i, err := readDir(dir)
	return i.svid, i.bundle, err
}

// readDir reads an identity, as a matching whole or not at all. A writer may be
// between two files, so a mismatch is read once more.
func readDir(dir string) (identity, error) {
	i, err := readOnce(dir)
	if err != nil {
		i, err = readOnce(dir)
	}
	return i, err
}

func readOnce(dir string) (identity, error) {
	certPEM, err := keyfile.Read(filepath.Join(dir, SVIDFile))
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrBadIdentity, err)
	}
	keyPEM, err := keyfile.ReadSecret(filepath.Join(dir, KeyFile), notTheWorld)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrBadIdentity, err)
	}
	bundlePEM, err := keyfile.Read(filepath.Join(dir, BundleFile))
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrBadIdentity, err)
	}
	svid, err := parseSVID(certPEM, keyPEM)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %s and %s: %w", ErrBadIdentity, SVIDFile, KeyFile, err)
	}
	bundle, err := x509bundle.Parse(svid.ID.TrustDomain(), bundlePEM)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %s: %w", ErrBadIdentity, BundleFile, err)
	}
	// Whether it has expired is asked at every use, so it is not judged here.
	if _, _, err := x509svid.Verify(svid.Certificates, bundle, x509svid.WithTime(svid.Certificates[0].NotAfter)); err != nil {
		return identity{}, fmt.Errorf("%w: %s does not verify with %s: %w", ErrBadIdentity, SVIDFile, BundleFile, err)
	}
	return identity{svid, bundle}, nil
}

// parseSVID takes the first key of keyPEM that belongs to the certificate: while
// WriteDir replaces the files, key.pem holds the next key and the present one.
func parseSVID(certPEM, keyPEM []byte) (*x509svid.SVID, error) {
	var first error
	for rest := keyPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		svid, err := x509svid.Parse(certPEM, pem.EncodeToMemory(block))
		if err == nil {
			return svid, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("%w: no PEM block in %s", ErrBadKey, KeyFile)
	}
	return nil, first
}

// WriteDir replaces the identity in dir, which must exist. At every moment, and
// after a crash at any of them, the directory holds a matching whole, the old
// identity or the new one: roots and keys join before the certificate changes,
// and go after it has. One writer at a time.
func WriteDir(dir string, svid *x509svid.SVID, bundle *x509bundle.Bundle) error {
	certPEM, keyPEM, err := svid.Marshal()
	if err != nil {
		return err
	}
	if _, err := parseSVID(certPEM, keyPEM); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundle, x509svid.WithTime(svid.Certificates[0].NotAfter)); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	bundlePEM, err := bundle.Marshal()
	if err != nil {
		return err
	}
	bothKeys, allRoots := keyPEM, bundlePEM
	if old, err := readDir(dir); err == nil {
		if !publicEqual(old.svid.PrivateKey, svid.PrivateKey) {
			_, oldKey, err := old.svid.Marshal()
			if err != nil {
				return err
			}
			bothKeys = append(append([]byte{}, keyPEM...), oldKey...)
		}
		if allRoots, err = union(bundle, old.bundle); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name   string
		data   []byte
		secret bool
	}{{BundleFile, allRoots, false}, {KeyFile, bothKeys, true}, {SVIDFile, certPEM, false}, {KeyFile, keyPEM, true}, {BundleFile, bundlePEM, false}} {
		mode := keyfile.Public
		if f.secret {
			mode = keyfile.Secret
		}
		if err := keyfile.Replace(filepath.Join(dir, f.name), f.data, mode); err != nil {
			return fmt.Errorf("write identity: %w", err)
		}
	}
	return nil
}

func union(a, b *x509bundle.Bundle) ([]byte, error) {
	roots := append([]*x509.Certificate{}, a.X509Authorities()...)
	if a.TrustDomain() == b.TrustDomain() {
		roots = append(roots, b.X509Authorities()...)
	}
	all := x509bundle.New(a.TrustDomain())
	for _, c := range roots {
		all.AddX509Authority(c)
	}
	return all.Marshal()
}

func publicEqual(a, b crypto.Signer) bool {
	k, ok := a.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b.Public())
}
