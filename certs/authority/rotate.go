package authority

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/internal/keyfile"
)

// AddRoot makes a new root, which joins the bundle and signs nothing until
// UseRoot. The error wraps ErrRefused while an earlier one still waits.
func (a *Authority) AddRoot() (*x509.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, err := a.load()
	if err != nil {
		return nil, err
	}
	if newest := s.Roots[len(s.Roots)-1]; newest.Name != s.Signs {
		return nil, fmt.Errorf("%w: %s was added before and does not sign yet; use it first", ErrRefused, newest.Name)
	}
	if err := a.newRoot(s); err != nil {
		return nil, err
	}
	if err := a.save(s); err != nil {
		return nil, err
	}
	return a.rootCert(s.Roots[len(s.Roots)-1].Name)
}

// UseRoot lets the root that was added last sign from now on. Call it when every
// node has the bundle that holds it: a node that has not refuses what it signs.
// The error wraps ErrRefused if no root waits.
func (a *Authority) UseRoot() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, err := a.load()
	if err != nil {
		return err
	}
	newest := s.Roots[len(s.Roots)-1]
	if newest.Name == s.Signs {
		return fmt.Errorf("%w: no root waits to be used; add one first", ErrRefused)
	}
	s.Roots[s.index(s.Signs)].StoppedAt = a.now()
	s.Signs = newest.Name
	return a.save(s)
}

// RetireRoots takes the roots that no longer sign out of the bundle, destroys
// their keys and says how many they were. While something that a root signed may
// still be valid (MaxLife after it stopped) the error wraps ErrRefused and says
// until when; force retires it all the same, as after the theft of its key.
func (a *Authority) RetireRoots(force bool) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, err := a.load()
	if err != nil {
		return 0, err
	}
	var keep, gone []root
	for _, r := range s.Roots {
		switch until := r.StoppedAt.Add(MaxLife); {
		case r.StoppedAt.IsZero():
			keep = append(keep, r)
		case !force && a.now().Before(until):
			return 0, fmt.Errorf("%w: %s vouches for identities until %s; wait, or force it", ErrRefused, r.Name, until.UTC().Format(time.RFC3339))
		default:
			gone = append(gone, r)
		}
	}
	if len(gone) == 0 {
		return 0, nil
	}
	s.Roots = keep
	if err := a.save(s); err != nil {
		return 0, err
	}
	for _, r := range gone {
		for _, file := range []string{r.Name + ".key", r.Name + ".pem"} {
			if err := os.Remove(a.path(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return len(gone), err
			}
		}
	}
	return len(gone), keyfile.SyncDir(a.dir)
}
