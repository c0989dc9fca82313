package runs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"github.com/crossroads-mesh/crossroads/registry/seen"
)

// Tree is the runs in one folder. It is safe for concurrent use, except that versions
// are made one after another: Version.With and Version.Replace of the current version,
// then Install.
type Tree struct {
	dir string
	key []byte

	mu       sync.Mutex
	versions map[uint64]*Version // that may be acquired
	current  *Version
	file     uint64 // number of the last file begun
	closed   bool
}

// Version is one list of runs. See the package documentation.
type Version struct {
	tree  *Tree
	id    uint64
	runs  []*run // newest first
	users int    // guarded by Tree.mu; one for being current, or for being made

	// Above is for whoever keeps newer rows elsewhere, to note which there may be.
	Above *seen.Keys
}

// rowsAbove is how many rows Version.Above is made for.
const rowsAbove = 2_048

// Run is a run that was written, and is of no version yet.
type Run struct{ r *run }

// Open opens the version that a manifest names; an empty manifest names no runs. Files
// of no run in it are removed. key seals the files: 32 bytes, or none. The folder is
// made if absent. The error wraps ErrDamaged when a file is not what was written.
func Open(dir string, key, manifest []byte) (_ *Tree, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	t := &Tree{dir: dir, key: key, versions: make(map[uint64]*Version)}
	v := &Version{tree: t, users: 1, Above: seen.For(rowsAbove)}
	var numbers []uint64
	if v.id, numbers, err = readManifest(manifest); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, r := range v.runs {
				_ = r.f.Close()
			}
		}
	}()
	named := make(map[string]bool)
	for _, n := range numbers {
		r, err := openRun(t.path(n), n, key)
		if err != nil {
			return nil, err
		}
		r.refs.Store(1)
		v.runs = append(v.runs, r)
		named[r.path] = true
		t.file = max(t.file, n)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.run"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if !named[f] {
			if err := os.Remove(f); err != nil {
				return nil, err
			}
		}
	}
	t.current = v
	t.versions[v.id] = v
	return t, nil
}

func (t *Tree) path(number uint64) string {
	return filepath.Join(t.dir, fmt.Sprintf("%016x.run", number))
}

// Manifest names the runs of v in some bytes.
func (v *Version) Manifest() []byte {
	b := binary.BigEndian.AppendUint64(nil, v.id)
	for _, r := range v.runs {
		b = binary.BigEndian.AppendUint64(b, r.number)
	}
	return b
}

func readManifest(b []byte) (id uint64, numbers []uint64, err error) {
	if len(b) == 0 {
		return 0, nil, nil
	}
	if len(b)%8 != 0 {
		return 0, nil, fmt.Errorf("%w: manifest of %d bytes", ErrDamaged, len(b))
	}
	id = binary.BigEndian.Uint64(b)
	for b = b[8:]; len(b) > 0; b = b[8:] {
		numbers = append(numbers, binary.BigEndian.Uint64(b))
	}
	return id, numbers, nil
}

// VersionOf gives the id of the version that a manifest names.
func VersionOf(manifest []byte) (uint64, error) {
	id, _, err := readManifest(manifest)
	return id, err
}

// ID tells this version from others of its tree.
func (v *Version) ID() uint64 { return v.id }

// Current gives the version in use, acquired.
func (t *Tree) Current() *Version {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current.users++
	return t.current
}

// Acquire gives a version, unless it is gone. Release lets go of it.
func (t *Tree) Acquire(id uint64) (*Version, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.versions[id]
	if ok {
		v.users++
	}
	return v, ok
}

// Release lets go of a version; its files go with the last user of the last version
// that names them.
func (v *Version) Release() {
	t := v.tree
	t.mu.Lock()
	v.users--
	gone := v.users == 0
	if gone {
		delete(t.versions, v.id)
	}
	t.mu.Unlock()
	if gone {
		for _, r := range v.runs {
			r.release()
		}
	}
}

// Reader reads the version, which must stay acquired.
func (v *Version) Reader() *Reader { return &Reader{version: v} }

// Runs gives how many runs v has, their rows, and their size in bytes.
func (v *Version) Runs() (n int, rows uint64, bytes int64) {
	for _, r := range v.runs {
		rows += r.rows
		bytes += r.size
	}
	return len(v.runs), rows, bytes
}

// Write writes a run, durably. Rows come in order of key. Its filter is made for so many of
// them; when there are more, more is read to find that a row is not there.
func (t *Tree) Write(filterFor uint64, rows iter.Seq2[[]byte, []byte]) (*Run, error) {
	return t.write(filterFor, func(w *Writer) error {
		for k, v := range rows {
			if err := w.Add(k, v); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *Tree) write(filterFor uint64, fill func(*Writer) error) (*Run, error) {
	t.mu.Lock()
	t.file++
	number := t.file
	t.mu.Unlock()
	w, err := create(t.path(number), t.key, filterFor)
	if err != nil {
		return nil, err
	}
	if err := fill(w); err != nil {
		return nil, errors.Join(err, w.abort())
	}
	if err := w.finish(); err != nil {
		return nil, errors.Join(err, os.Remove(w.path))
	}
	if err := syncDir(t.dir); err != nil {
		return nil, err
	}
	r, err := openRun(w.path, number, t.key)
	if err != nil {
		return nil, err
	}
	return &Run{r}, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Drop removes a run that came into no version.
func (r *Run) Drop() error { return errors.Join(r.r.f.Close(), os.Remove(r.r.path)) }

// With makes the version that has one more run, the newest; v must be acquired. It may be acquired by its
// id from now on, so that who sees its manifest finds it. Install or Release comes next.
func (v *Version) With(r *Run) *Version {
	return v.make(append([]*run{r.r}, v.runs...), seen.For(rowsAbove))
}

// Replace makes the version in which a merged run stands in place of those it was made of.
func (v *Version) Replace(m *Merge, by *Run) (*Version, error) {
	for i := range v.runs {
		if v.runs[i] == m.of[0] && i+len(m.of) <= len(v.runs) {
			all := append([]*run(nil), v.runs[:i]...)
			if by.r.rows > 0 {
				all = append(all, by.r)
			} else if err := by.Drop(); err != nil {
				return nil, err
			}
			return v.make(append(all, v.runs[i+len(m.of):]...), v.Above), nil
		}
	}
	return nil, errors.New("the merged runs are not of this version")
}

func (v *Version) make(runs []*run, above *seen.Keys) *Version {
	for _, r := range runs {
		r.refs.Add(1)
	}
	t := v.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &Version{tree: t, id: v.id + 1, runs: runs, users: 1, Above: above}
	t.versions[n.id] = n
	return n
}

// Install makes v the current version, after its manifest was committed.
func (t *Tree) Install(v *Version) {
	t.mu.Lock()
	was := t.current
	t.current = v
	t.mu.Unlock()
	was.Release()
}

// Close closes the files of the current version. Nobody may read any more.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	var errs []error
	for _, r := range t.current.runs {
		errs = append(errs, r.f.Close())
	}
	return errors.Join(errs...)
}
