package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/crossroads-mesh/crossroads/registry/record"
)

// Restore replaces the tables by those of a snapshot. Every command in it is judged
// again. Views go on seeing the old tables until the new ones are complete and on
// disk; a crash leaves the one or the other. On an error the store is as it was:
// the error wraps ErrBadSnapshot when the snapshot is to blame.
func (s *Store) Restore(r io.Reader) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.mu.Lock()
	old := s.current
	s.mu.Unlock()
	if old == nil {
		return ErrClosed
	}
	dir, err := nextDir(old.dir)
	if err != nil {
		return fmt.Errorf("restore registry: %w", err)
	}
	g, index, err := s.rebuild(dir, r)
	if err != nil {
		return errors.Join(fmt.Errorf("restore registry: %w", err), removeDir(dir))
	}
	if err := setCurrent(s.cfg.Dir, dir); err != nil {
		// Either database may be the one that a reopening finds.
		s.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		return errors.Join(fmt.Errorf("restore registry: %w", err), g.close())
	}
	g.settleBehind(s.failing)
	s.mu.Lock()
	s.current = g
	s.mu.Unlock()
	s.failed = nil // the new database is whole, whatever became of the old one
	s.announce(index, nil)
	old.users.Wait()
	if err := errors.Join(old.close(), removeDir(old.dir)); err != nil {
		s.cfg.Log.Warn("registry: the tables before the restore were not removed", "error", err)
	}
	return nil
}

// rebuild makes a database of the commands in a snapshot, synced.
func (s *Store) rebuild(dir string, r io.Reader) (*generation, uint64, error) {
	g, err := s.open(dir, true) // synced once, at the end
	if err != nil {
		return nil, 0, err
	}
	index, err := s.replay(g, r)
	if err == nil && dir != "" {
		err = g.db.Sync()
	}
	if err != nil {
		return nil, 0, errors.Join(err, g.close())
	}
	if dir == "" {
		return g, index, nil
	}
	if err := g.close(); err != nil {
		return nil, 0, err
	}
	g, err = s.open(dir, false)
	return g, index, err
}

func (s *Store) replay(g *generation, r io.Reader) (uint64, error) {
	if g.layers != nil {
		return s.replayBulk(g, r)
	}
	w, index, err := s.replayInto(g, r, func(st record.State, index uint64, raw []byte) (record.Result, error) {
		return record.Apply(st, s.rules, index, raw)
	})
	defer func() { w.discard() }()
	if err == nil {
		err = s.markEnd(w, index)
	}
	if err != nil {
		return 0, err
	}
	return index, g.commit(w, index)
}

// replayInto applies the commands of a snapshot, all of which must be accepted. What the
// last ones wrote is not committed: that is for the caller, with the index.
func (s *Store) replayInto(g *generation, r io.Reader, apply func(record.State, uint64, []byte) (record.Result, error)) (w *writer, index uint64, err error) {
	w = newWriter(g)
	if err := record.Bootstrap(w, s.rules); err != nil {
		return w, 0, err
	}
	last := uint64(0)
	index, err = readSnapshot(r, s.rules.Fingerprint(), func(index uint64, envelope []byte) error {
		if w.full() {
			if err := g.commit(w, last); err != nil {
				return err
			}
			w = newWriter(g)
		}
		last = index
		res, err := apply(w, index, envelope)
		switch {
		case err != nil:
			return err
		case res.Repeated:
			return fmt.Errorf("%w: index %d repeats %d", ErrBadSnapshot, index, res.FirstIndex)
		case !res.Accepted:
			return fmt.Errorf("%w: the command at %d is refused: %s", ErrBadSnapshot, index, res.Refusal)
		}
		return nil
	})
	if err != nil {
		return w, 0, err
	}
	if have := s.applied.Load(); index < have {
		return w, 0, fmt.Errorf("%w: it ends at index %d, this replica stands at %d", ErrBadSnapshot, index, have)
	}
	return w, index, nil
}

func (s *Store) markEnd(w *writer, index uint64) error {
	if index%MarkEvery == 0 && index > 0 {
		return w.mark(index)
	}
	return nil
}

// The directory of a store holds databases "tables-N", and a file that names the
// one in use. Others are leftovers of a restore.
const (
	currentFile = "CURRENT"
	tablesDir   = "tables-"
)

// currentDir gives the directory of the database in use and removes leftovers.
func currentDir(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(dir, currentFile))
	if errors.Is(err, os.ErrNotExist) {
		first := filepath.Join(dir, tablesDir+"1")
		return first, setCurrent(dir, first)
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(b))
	if n, ok := strings.CutPrefix(name, tablesDir); !ok || strings.Trim(n, "0123456789") != "" || n == "" {
		return "", fmt.Errorf("%s names no database: restore the file from a backup, or start this replica from an empty directory", filepath.Join(dir, currentFile))
	}
	others, err := filepath.Glob(filepath.Join(dir, tablesDir+"*"))
	if err != nil {
		return "", err
	}
	for _, o := range others {
		if filepath.Base(o) != name {
			if err := removeDir(o); err != nil {
				return "", err
			}
		}
	}
	return filepath.Join(dir, name), nil
}

// nextDir gives the directory for the database after the one in dir, empty.
func nextDir(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), tablesDir))
	if err != nil {
		return "", err
	}
	next := filepath.Join(filepath.Dir(dir), tablesDir+strconv.Itoa(n+1))
	return next, removeDir(next)
}

func removeDir(dir string) error {
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}

// setCurrent names the database in use, durably and at once.
func setCurrent(dir, tables string) error {
	if dir == "" {
		return nil
	}
	path := filepath.Join(dir, currentFile)
	if err := writeSynced(path+".new", filepath.Base(tables)+"\n"); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeSynced(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}
