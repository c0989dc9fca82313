package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/hashicorp/raft"

	"github.com/crossroads-mesh/crossroads/registry/pace"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/sealed"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

// What a member does with files that are not what it wrote depends on what they hold.
//
// The tables are made of snapshot and log: they are set aside and made anew, and nobody
// else needs to know. The log holds what the member told others that it holds, and how it
// voted. Without it the member is like one whose disk was replaced: it founds nothing,
// votes for nobody, and is brought up by the leader (newcomer.go). That is safe only while
// no more than a minority does it, which no member can know of others; so nothing is
// removed, and those whose files were set aside cannot elect each other.
//
// What was set aside stays in the directory, until the next time, for whoever looks into it.
const (
	damagedFile = "DAMAGED" // the log or a snapshot is; acted on at the next start
	rejoinFile  = "REJOIN"  // the log is a new one, of a member that took part before
	asideDir    = "set-aside"
	// openingFile counts openings of the tables that did not come to an end: Badger panics
	// in a goroutine of its own when a table was cut.
	openingFile = "OPENING"
	openings    = 2
)

// noteDamage has the next start set this member's log aside.
func (r *Registry) noteDamage(err error) {
	if r.member == nil || !errors.Is(err, ErrLogDamaged) {
		return
	}
	r.cfg.Log.Error("registry: this member's log is damaged. It takes part no more. When it is started again it sets log and tables aside and has the leader send everything", "error", err)
	if err := os.WriteFile(filepath.Join(r.dir, damagedFile), []byte(err.Error()+"\n"), 0o600); err != nil {
		r.cfg.Log.Error("registry: that could not be written down", "error", err)
	}
}

// setAside moves parts of a directory out of the way.
func setAside(dir string, log *slog.Logger, why string, parts ...string) error {
	aside := filepath.Join(dir, asideDir)
	if err := errors.Join(os.RemoveAll(aside), os.MkdirAll(aside, 0o700)); err != nil {
		return err
	}
	for _, p := range parts {
		if err := os.Rename(filepath.Join(dir, p), filepath.Join(aside, p)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	log.Error("registry: files were set aside, and what they held is had from elsewhere", "parts", parts, "in", aside, "because", why)
	return nil
}

// afterDamage acts on what an earlier run found, and reports whether this member must
// begin as one whose disk was replaced.
func afterDamage(dir string, log *slog.Logger) (rejoin bool, err error) {
	if why, err := os.ReadFile(filepath.Join(dir, damagedFile)); err == nil {
		// First what keeps it from founding a log anew, last the mark.
		if err := os.WriteFile(filepath.Join(dir, rejoinFile), nil, 0o600); err != nil {
			return false, err
		}
		if err := setAside(dir, log, string(why), "log", "snapshots", "state"); err != nil {
			return false, err
		}
		if err := os.Remove(filepath.Join(dir, damagedFile)); err != nil {
			return false, err
		}
	}
	_, err = os.Stat(filepath.Join(dir, rejoinFile))
	return err == nil, nil
}

// openTables opens the store, and if its files are damaged begins with empty ones.
func (r *Registry) openTables() error {
	tables := r.cfg.Disk.State(r.dir)
	tables.Key, tables.Log = r.cfg.StorageKey, r.cfg.Log
	var err error
	if tables.Dir != "" {
		done, err := r.countOpening(tables.Dir)
		if err != nil {
			return err
		}
		defer done()
	}
	r.store, err = store.Open(tables, r.rules)
	switch {
	case err == nil || tables.Dir == "":
		return err
	case errors.Is(err, record.ErrOtherRules), errors.Is(err, record.ErrOldProgram), errors.Is(err, os.ErrPermission):
		return err // the files may well be in order
	case errors.Is(err, badger.ErrEncryptionKeyMismatch) && !r.keyOpensLog():
		return err
	}
	if aside := setAside(r.dir, r.cfg.Log, err.Error(), filepath.Base(tables.Dir)); aside != nil {
		return errors.Join(err, aside)
	}
	if r.store, err = store.Open(tables, r.rules); err != nil {
		return fmt.Errorf("after its files were set aside: %w", err)
	}
	return nil
}

// keyOpensLog tells a database whose note of its key is damaged from one that was opened
// with another key: the log is sealed with the same one.
func (r *Registry) keyOpensLog() bool {
	if r.cfg.Raft == nil {
		return false
	}
	raw, err := r.cfg.Disk.OpenLog(filepath.Join(r.dir, "log"), raftLogger(r.cfg.Log))
	if err != nil {
		return false
	}
	defer raw.Close()
	logs, err := sealed.Logs(raw, r.cfg.StorageKey)
	if err != nil {
		return false
	}
	last, err := logs.LastIndex()
	return err == nil && last > 0 && logs.GetLog(last, new(raft.Log)) == nil
}

// verifySnapshot reads the last snapshot whole. One that is damaged would be missed only
// when somebody needs it; so another is made now.
func (m *member) verifySnapshot(ctx context.Context, p *pace.Pace) {
	metas, err := m.snaps.List()
	if err != nil || len(metas) == 0 {
		return
	}
	_, r, err := m.snaps.Open(metas[0].ID)
	if err == nil {
		for err == nil && p.Step(ctx, 0) == nil {
			_, err = io.CopyN(io.Discard, r, 256<<10)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		err = errors.Join(err, r.Close())
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	m.log.Error("registry: the last snapshot is damaged; another is made in its place", "index", metas[0].Index, "error", err)
	if err := m.raft().Snapshot().Error(); err != nil {
		m.log.Warn("registry: no other snapshot yet: it is made with the next commands", "error", err)
	}
}

// verifyLog reads every entry of the log. Those before the last snapshot are read otherwise
// only when this member leads and another one needs them: a damage that shows then takes
// two members away at once. An entry that cannot be read ends this member, see failStop.
func (m *member) verifyLog(ctx context.Context, p *pace.Pace) error {
	first, err := m.logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := m.logs.LastIndex()
	if err != nil {
		return err
	}
	for i := max(first, 1); i <= last && p.Step(ctx, 1) == nil && m.logs.err() == nil; i++ {
		// What is not found was let go of meanwhile; what cannot be read is told by err.
		_ = m.logs.reread(i)
	}
	return m.logs.err()
}

// countOpening notes that the tables are being opened, until done is called, and sets them
// aside when that did not come to an end several times.
func (r *Registry) countOpening(tables string) (done func(), err error) {
	mark := filepath.Join(r.dir, openingFile)
	before, err := os.ReadFile(mark)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if len(before) >= openings {
		if err := setAside(r.dir, r.cfg.Log, "the program ended each time while it opened them", filepath.Base(tables)); err != nil {
			return nil, err
		}
		before = nil
	}
	if err := os.WriteFile(mark, append(before, '.'), 0o600); err != nil {
		return nil, err
	}
	return func() {
		if err := os.Remove(mark); err != nil {
			r.cfg.Log.Warn("registry: it could not be noted that the tables were opened", "error", err)
		}
	}, nil
}
