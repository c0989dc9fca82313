package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/crossroads-mesh/crossroads/node/profile"
)

// profile has every process note what it does until the function that it gives is
// called, which returns once all have written.
func (l *load) profile(dir string, wanted bool) (stop func() error, err error) {
	if dir == "" || !wanted {
		return func() error { return nil }, nil
	}
	own, err := profile.Start(filepath.Join(dir, "client"))
	if err != nil {
		return nil, err
	}
	signal := func() (err error) {
		for name, pid := range l.pids {
			if name != generator {
				err = errors.Join(err, syscall.Kill(pid, profile.Signal))
			}
		}
		return err
	}
	if err := signal(); err != nil {
		return nil, err
	}
	return func() error {
		err := errors.Join(own.Stop(), signal())
		for name := range l.pids {
			if name != generator && err == nil {
				err = awaitFile(filepath.Join(dir, name+profile.Last))
			}
		}
		return err
	}, nil
}

func awaitFile(path string) error {
	for range 500 {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("no profile came: %s", path)
}
