package certs

import (
	"context"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// A change is read when the directory has been quiet for so long, and in any case
// every poll: not every file system reports changes.
const (
	quiet = 50 * time.Millisecond
	poll  = 30 * time.Second
)

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

	// Owned by Run.
	refused string   // the last refusal that was logged
	warned  *big.Int // serial number of the SVID whose end was logged
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

// warnOfEnd says, once for each SVID, that four fifths of its life have gone and
// nobody renewed it.
func (d *DirSource) warnOfEnd() {
	leaf := d.current().svid.Certificates[0]
	late := leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 5)
	if d.now().Before(late) || d.warned != nil && d.warned.Cmp(leaf.SerialNumber) == 0 {
		return
	}
	d.warned = leaf.SerialNumber
	d.log.Warn("identity expires soon and was not renewed", "expires", leaf.NotAfter)
}

// reload takes over what the directory holds now, if it is good and new.
func (d *DirSource) reload() {
	defer d.warnOfEnd()
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
