package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/sealed"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
	"github.com/crossroads-mesh/crossroads/registry/store"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// ErrBadSnapshot means that a snapshot is damaged, forged or of another mesh.
var ErrBadSnapshot = store.ErrBadSnapshot

// ErrNotEmpty means that a snapshot would be restored over something.
var ErrNotEmpty = errors.New("the registry folder is not empty")

// SaveSnapshot writes this member's whole registry, as it stands at the end of some entry of
// the log. It is as secret as the person directory, and proves itself: see InspectSnapshot.
func (r *Registry) SaveSnapshot(ctx context.Context, w io.Writer) (index uint64, err error) {
	ctx, leave, err := r.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	if r.member == nil {
		return 0, ErrNotMember
	}
	for {
		f, err := r.store.Freeze()
		if err != nil {
			return 0, err
		}
		if f.Index()%placesPerEntry == 0 {
			defer f.Release()
			_, err = f.WriteTo(stoppable{ctx, w})
			return f.Index(), err
		}
		f.Release() // in the middle of an entry
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// stoppable is a writer that gives up with its context.
type stoppable struct {
	ctx context.Context
	io.Writer
}

func (s stoppable) Write(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Writer.Write(b)
}

// SnapshotInfo is what a verified snapshot holds.
type SnapshotInfo struct {
	Index        uint64
	FeatureLevel uint32
	Members      []names.NodeID
	Institutions int
	Commands     uint64 // public and directory
	Counts       record.Counts
	Root, Public statehash.Root
	LastPublic   uint64 // index of the last public command
}

// InspectSnapshot verifies a snapshot against the genesis file, with no node at hand: every
// command's signatures, chain and right are judged again, from the first on. It needs the
// directory's size of disk under dir meanwhile, encrypted under a key that is forgotten.
// The error wraps ErrBadSnapshot when the snapshot is to blame.
func InspectSnapshot(ctx context.Context, file *genesis.File, schemes subject.Schemes, dir string, r io.Reader) (info *SnapshotInfo, err error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	tmp, err := os.MkdirTemp(dir, "crossroads-snapshot-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	s, err := store.Open(badgerdb.Config{Dir: tmp, Key: key}, rulesWith(file, schemes))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Restore(readable{ctx, r}); err != nil {
		return nil, err
	}
	return describeStore(s)
}

func rulesWith(file *genesis.File, schemes subject.Schemes) *record.Rules {
	if schemes == nil {
		schemes = subject.Belgian()
	}
	return RulesOf(file, schemes)
}

// readable is a reader that gives up with its context.
type readable struct {
	ctx context.Context
	io.Reader
}

func (r readable) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

func describeStore(s *store.Store) (*SnapshotInfo, error) {
	info := new(SnapshotInfo)
	mark, err := s.Now()
	if err != nil {
		return nil, err
	}
	info.Index, info.Root, info.Public = mark.Index, mark.Root, mark.Public
	return info, s.View(func(v record.View) (err error) {
		if info.FeatureLevel, err = v.FeatureLevel(); err != nil {
			return err
		}
		if info.Members, err = v.Members(); err != nil {
			return err
		}
		if info.Counts, err = v.Counts(); err != nil {
			return err
		}
		past, err := v.PublicPast()
		if err != nil {
			return err
		}
		info.LastPublic = past.Index
		count := func(*registrypb.Institution) error { info.Institutions++; return nil }
		if err := v.Institutions(count); err != nil {
			return err
		}
		return v.History(0, func(uint64, []byte) error { info.Commands++; return nil })
	})
}

// RestoreSnapshot founds a member's registry in an empty folder from a snapshot, for a mesh
// that has lost all its members' disks: each member of the members record restores the very
// same file, and then they start. What was decided after the snapshot is lost, and whoever
// followed further begins anew. While a majority lives, replace the disk instead.
func RestoreSnapshot(ctx context.Context, cfg Config, r io.ReadSeeker) (info *SnapshotInfo, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	dir := filepath.Join(cfg.Dir, "member")
	switch found, err := os.ReadDir(dir); {
	case err == nil && len(found) > 0:
		return nil, fmt.Errorf("%w: %s: move it away first", ErrNotEmpty, dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if info, err = restoreState(ctx, cfg, dir, r); err != nil {
		return nil, err
	}
	if info.Index%placesPerEntry != 0 || info.Index == 0 {
		return nil, fmt.Errorf("%w: it ends at index %d, in the middle of an entry", ErrBadSnapshot, info.Index)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return info, restoreLog(cfg, dir, info, r)
}

func restoreState(ctx context.Context, cfg Config, dir string, r io.Reader) (info *SnapshotInfo, err error) {
	tables := files{}.State(dir)
	tables.Key, tables.Log = cfg.StorageKey, cfg.Log
	s, err := store.Open(tables, rulesWith(cfg.Genesis, cfg.Schemes))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Restore(readable{ctx, r}); err != nil {
		return nil, err
	}
	return describeStore(s)
}

// restoreLog makes the snapshot the beginning of the log, with the members that it names.
func restoreLog(cfg Config, dir string, info *SnapshotInfo, r io.Reader) (err error) {
	logger := raftLogger(cfg.Log)
	log, err := files{}.OpenLog(filepath.Join(dir, "log"), logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	snaps, err := files{}.OpenSnapshots(dir, logger)
	if err != nil {
		return err
	}
	if len(cfg.StorageKey) > 0 {
		if snaps, err = sealed.Snapshots(snaps, cfg.StorageKey); err != nil {
			return err
		}
	}
	var servers raft.Configuration
	for _, n := range info.Members {
		servers.Servers = append(servers.Servers, server(n))
	}
	const term = 1
	_, trans := raft.NewInmemTransport("")
	entry := entryAt(info.Index)
	sink, err := snaps.Create(raft.SnapshotVersionMax, entry, term, servers, entry, trans)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sink, r); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	return sealed.CheckedStable{StableStore: log}.SetUint64([]byte("CurrentTerm"), term)
}
