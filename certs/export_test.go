package certs

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// SetClock lets a test say what time it is.
func (t *TLS) SetClock(now func() time.Time) { t.now = now }

// SetClock lets a test say what time it is.
func (d *DirSource) SetClock(now func() time.Time) { d.now = now }

// Reload does at once what Run does after a change.
func (d *DirSource) Reload() { d.reload() }

// WriteSteps gives the steps of WriteDir, each to be done by calling it.
func WriteSteps(dir string, svid *x509svid.SVID, bundle *x509bundle.Bundle) ([]func() error, error) {
	steps, err := planWrite(dir, svid, bundle)
	var do []func() error
	for _, s := range steps {
		do = append(do, func() error { return s.do(dir) })
	}
	return do, err
}

// ReadOnce reads a directory without the second look that hides a race.
func ReadOnce(dir string) (*x509svid.SVID, error) {
	i, err := readOnce(dir)
	return i.svid, err
}
