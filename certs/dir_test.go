package certs_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// chanLog hands every record on, so that a test can wait for what is said.
type chanLog struct {
	slog.Handler
	said chan slog.Record
}

func newChanLog() chanLog { return chanLog{slog.DiscardHandler, make(chan slog.Record, 100)} }

func (l chanLog) Enabled(context.Context, slog.Level) bool { return true }
func (l chanLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l chanLog) Handle(_ context.Context, r slog.Record) error {
	l.said <- r
	return nil
}

func (l chanLog) wait(t *testing.T, text string) {
	t.Helper()
	select {
	case r := <-l.said:
		if !strings.Contains(r.Message, text) {
			t.Fatalf("the log says %q, want %q", r.Message, text)
		}
	case <-time.After(2 * time.Minute):
		t.Fatalf("the log does not say %q", text)
	}
}

// identityDir makes a directory with an identity of institution "own".
func identityDir(t testing.TB, a *authority.Authority) string {
	dir := t.TempDir()
	writeIdentity(t, a, dir)
	return dir
}

func writeIdentity(t testing.TB, a *authority.Authority, dir string) *x509svid.SVID {
	t.Helper()
	s := source(t, a, "own")
	if err := certs.WriteDir(dir, s.svid, must[*x509bundle.Bundle](t)(a.Bundle())); err != nil {
		t.Fatal(err)
	}
	return s.svid
}

func TestOpenDirFailsClosed(t *testing.T) {
	a, long, _ := oldAuthority(t)
	b, _ := newAuthority(t, mesh)
	other := identityDir(t, a)
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  error
		text  string
	}{
		"no certificate":    {func(dir string) error { return os.Remove(filepath.Join(dir, certs.SVIDFile)) }, fs.ErrNotExist, "svid.pem"},
		"no key":            {func(dir string) error { return os.Remove(filepath.Join(dir, certs.KeyFile)) }, fs.ErrNotExist, "key.pem"},
		"no bundle":         {func(dir string) error { return os.Remove(filepath.Join(dir, certs.BundleFile)) }, fs.ErrNotExist, "bundle.pem"},
		"empty key":         {func(dir string) error { return os.Truncate(filepath.Join(dir, certs.KeyFile), 0) }, certs.ErrBadKey, "key.pem"},
		"half a key":        {func(dir string) error { return os.Truncate(filepath.Join(dir, certs.KeyFile), 100) }, certs.ErrBadKey, "key.pem"},
		"half a certicate":  {func(dir string) error { return os.Truncate(filepath.Join(dir, certs.SVIDFile), 100) }, nil, "svid.pem"},
		"empty bundle":      {func(dir string) error { return os.Truncate(filepath.Join(dir, certs.BundleFile), 0) }, nil, "bundle.pem"},
		"another's key":     {func(dir string) error { return copyFile(other, dir, certs.KeyFile) }, nil, "does not match"},
		"key for all":       {func(dir string) error { return os.Chmod(filepath.Join(dir, certs.KeyFile), 0o644) }, certs.ErrExposed, "chmod 600"},
		"endless":           {func(dir string) error { return os.Truncate(filepath.Join(dir, certs.SVIDFile), 1<<30) }, nil, "larger"},
		"another's bundle":  {func(dir string) error { return copyFile(identityDir(t, b), dir, certs.BundleFile) }, nil, "does not verify"},
		"a directory":       {func(dir string) error { return replaceByDir(filepath.Join(dir, certs.SVIDFile)) }, nil, "no regular file"},
		"expired, as whole": {func(dir string) error { writeIdentity(t, long, dir); return nil }, certs.ErrExpired, "renew it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := identityDir(t, a)
			if _, err := certs.OpenDir(dir, quietLog); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := certs.OpenDir(dir, quietLog)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want %v, %q", err, c.want, c.text)
			}
			if !errors.Is(err, certs.ErrBadIdentity) && !errors.Is(err, certs.ErrExpired) {
				t.Errorf("%v wraps no sentinel", err)
			}
		})
	}
}

func copyFile(from, to, name string) error {
	b, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		return err
	}
	return replace(filepath.Join(to, name), b)
}

// replace swaps a file whole, so that a watcher sees one change and not two.
func replace(path string, b []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func replaceByDir(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Mkdir(path, 0o700)
}

// TestRunFollowsTheDirectory writes good and bad identities under a running source.
func TestRunFollowsTheDirectory(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	dir := identityDir(t, a)
	log := newChanLog()
	d := must[*certs.DirSource](t)(certs.OpenDir(dir, slog.New(log)))
	first := must[*x509svid.SVID](t)(d.GetX509SVID())
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()

	// A key that is not the certificate's: the last good identity stays.
	good := must[[]byte](t)(os.ReadFile(filepath.Join(dir, certs.KeyFile)))
	if err := copyFile(identityDir(t, a), dir, certs.KeyFile); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "refused, the last good one stays")
	if now := must[*x509svid.SVID](t)(d.GetX509SVID()); now != first {
		t.Fatal("a mismatched pair was taken over")
	}
	if err := replace(filepath.Join(dir, certs.KeyFile), good); err != nil {
		t.Fatal(err)
	}

	second := writeIdentity(t, a, dir)
	log.wait(t, "identity updated")
	d.Reload() // the last of the five steps may still be on its way
	if now := must[*x509svid.SVID](t)(d.GetX509SVID()); !now.Certificates[0].Equal(second.Certificates[0]) {
		t.Fatal("the new identity is not used")
	}
}

func TestReloadRefuses(t *testing.T) {
	a, old, _ := oldAuthority(t)
	for name, write := range map[string]func(dir string) error{
		"another node": func(dir string) error {
			return certs.WriteDir(dir, source(t, a, "another").svid, must[*x509bundle.Bundle](t)(a.Bundle()))
		},
		"an expired one": func(dir string) error { writeIdentity(t, old, dir); return nil },
		"nothing":        os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			dir := identityDir(t, a)
			log := newChanLog()
			d := must[*certs.DirSource](t)(certs.OpenDir(dir, slog.New(log)))
			first := must[*x509svid.SVID](t)(d.GetX509SVID())
			if err := write(dir); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				d.Reload()
			}
			log.wait(t, "refused, the last good one stays")
			if len(log.said) != 0 {
				t.Error("the same refusal is said again and again")
			}
			if now := must[*x509svid.SVID](t)(d.GetX509SVID()); now != first {
				t.Error("it was taken over")
			}
		})
	}
}

// TestStoppedRenewalIsSaid looks at an identity that nobody renews.
func TestStoppedRenewalIsSaid(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	log := newChanLog()
	d := must[*certs.DirSource](t)(certs.OpenDir(identityDir(t, a), slog.New(log)))
	for _, minutes := range []time.Duration{1, 30, 45} {
		d.SetClock(func() time.Time { return time.Now().Add(minutes * time.Minute) })
		d.Reload()
	}
	if len(log.said) != 0 {
		t.Error("said too early")
	}
	d.SetClock(func() time.Time { return time.Now().Add(55 * time.Minute) })
	for range 3 {
		d.Reload()
	}
	log.wait(t, "expires soon")
	if len(log.said) != 0 {
		t.Error("said more than once")
	}
}

func TestKeptIdentityExpires(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	d := must[*certs.DirSource](t)(certs.OpenDir(identityDir(t, a), quietLog))
	d.SetClock(func() time.Time { return time.Now().Add(time.Hour + time.Second) })
	if svid, err := d.GetX509SVID(); svid != nil || !errors.Is(err, certs.ErrExpired) || !strings.Contains(err.Error(), "expired at") {
		t.Fatalf("%v, %v", svid, err)
	}
}

// TestWriteDirAtEveryStep cuts WriteDir off after each of its steps, with and
// without a change of root, and reads what is left.
func TestWriteDirAtEveryStep(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	b, _ := newAuthority(t, mesh)
	for name, next := range map[string]*authority.Authority{"same root": a, "no root in common": b} {
		t.Run(name, func(t *testing.T) {
			for cut := range 6 {
				dir := t.TempDir()
				before := writeIdentity(t, a, dir)
				after := source(t, next, "own").svid
				steps, err := certs.WriteSteps(dir, after, must[*x509bundle.Bundle](t)(next.Bundle()))
				if err != nil || len(steps) != 5 {
					t.Fatal(len(steps), err)
				}
				for _, step := range steps[:cut] {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				want := before
				if cut >= 3 {
					want = after
				}
				got, err := certs.ReadOnce(dir)
				if err != nil || !got.Certificates[0].Equal(want.Certificates[0]) {
					t.Fatalf("after %d steps: %v", cut, err)
				}
				// Whatever was left, the next write mends it.
				last := writeIdentity(t, a, dir)
				if got, err := certs.ReadOnce(dir); err != nil || !got.Certificates[0].Equal(last.Certificates[0]) {
					t.Fatalf("written again after %d steps: %v", cut, err)
				}
			}
		})
	}
}

// TestReadersNeverSeeAMismatch reads as fast as it can while identities change.
func TestReadersNeverSeeAMismatch(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	dir := identityDir(t, a)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, _, err := certs.ReadDir(dir); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 50 {
		writeIdentity(t, a, dir)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWriteDirRefusesWhatNobodyCouldRead(t *testing.T) {
	a, _ := newAuthority(t, mesh)
	b, _ := newAuthority(t, mesh)
	dir := t.TempDir()
	s := source(t, a, "own")
	mismatch := *s.svid
	mismatch.PrivateKey = source(t, a, "own").svid.PrivateKey
	if err := certs.WriteDir(dir, &mismatch, must[*x509bundle.Bundle](t)(a.Bundle())); !errors.Is(err, certs.ErrBadIdentity) {
		t.Errorf("a mismatched pair: %v", err)
	}
	if err := certs.WriteDir(dir, s.svid, must[*x509bundle.Bundle](t)(b.Bundle())); !errors.Is(err, certs.ErrBadIdentity) {
		t.Errorf("another's bundle: %v", err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}
