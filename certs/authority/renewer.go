package authority

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/certs"
)

// Renewer keeps the identity in a directory fresh: a new SVID at half of the old
// one's life, a new bundle as soon as it is seen. It is for whoever can reach the
// authority's directory, as a test network does.
type Renewer struct {
	a   *Authority
	id  spiffeid.ID
	dir string
	ttl time.Duration
	log *slog.Logger
}

// NewRenewer keeps an SVID for id in dir, which must exist, each valid for ttl (0:
// DefaultLife).
func NewRenewer(a *Authority, id spiffeid.ID, dir string, ttl time.Duration, log *slog.Logger) *Renewer {
	if ttl == 0 {
		ttl = DefaultLife
	}
	return &Renewer{a: a, id: id, dir: dir, ttl: ttl, log: log.With("id", id)}
}

// Renew writes a new identity to the directory now.
func (r *Renewer) Renew() error {
	svid, err := r.a.Issue(r.id, r.ttl)
	if err != nil {
		return err
	}
	bundle, err := r.a.Bundle()
	if err != nil {
		return err
	}
	return certs.WriteDir(r.dir, svid, bundle)
}

// Run renews what is due until ctx ends, and then returns nil. A failure is logged
// and tried again; there is half a life to mend it. It looks twenty times in a
// life, so a changed bundle reaches the directory within ttl/20, and at most a
// minute.
func (r *Renewer) Run(ctx context.Context) error {
	every := min(r.ttl/20, time.Minute)
	tick := time.NewTicker(max(every, time.Millisecond))
	defer tick.Stop()
	for {
		if err := r.step(); err != nil {
			r.log.Error("identity not renewed, it is tried again", "every", every, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// step renews the SVID if it is due, else the bundle if it changed.
func (r *Renewer) step() error {
	svid, held, err := certs.ReadDir(r.dir)
	if err != nil {
		r.log.Info("no usable identity yet, a first one is made", "reason", err)
		return r.Renew()
	}
	if half := svid.Certificates[0].NotAfter.Add(-r.ttl / 2); svid.ID != r.id || !r.a.now().Before(half) {
		return r.Renew()
	}
	bundle, err := r.a.Bundle()
	if err != nil {
		return err
	}
	if bundle.Equal(held) {
		return nil
	}
	return r.passOn(svid, bundle)
}

// passOn writes the changed bundle. An SVID that it no longer vouches for, as
// after the forced retirement of a root, is replaced at once.
func (r *Renewer) passOn(svid *x509svid.SVID, bundle *x509bundle.Bundle) error {
	if _, _, err := x509svid.Verify(svid.Certificates, bundle, x509svid.WithTime(r.a.now())); err != nil {
		return r.Renew()
	}
	if err := certs.WriteDir(r.dir, svid, bundle); err != nil {
		return fmt.Errorf("bundle not passed on: %w", err)
	}
	return nil
}
