package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
)

// ErrRunning means that the node runs, and that what was asked for needs it stopped.
var ErrRunning = errors.New("the node is running; stop it first")

// VerifyJournal verifies the journal of a node that is stopped; of one that runs, all
// that its last checkpoint covers. anchors are checkpoints of it that others kept.
func VerifyJournal(ctx context.Context, cfg *config.Config, anchors [][]byte, progress func(done, total int64)) (*tlog.Report, error) {
	dir := filepath.Join(cfg.Data.Dir, journalDir)
	key, err := certs.LoadStorageKey(cfg.Data.KeyFile)
	if err != nil {
		return nil, err
	}
	signer, err := certs.LoadSigner(cfg.Signing.KeyFile)
	if err != nil {
		return nil, err
	}
	public, ok := signer.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s: want an Ed25519 key", cfg.Signing.KeyFile)
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("there is no journal: %w", err)
	}
	tiles, err := disk.OpenDir(filepath.Join(dir, tlog.TilesDir))
	if err != nil {
		return nil, err
	}
	return tlog.Verify(ctx, tlog.VerifyConfig{
		Journal: journal.Config{Dir: dir, Key: key}, Tiles: tiles,
		Origin: tlog.Origin(cfg.Mesh, cfg.Node.ID()), Key: public, Anchors: anchors, Progress: progress,
	})
}

// RebuildJournal drops what is derived from the log of a stopped node, index and tiles,
// and makes it again. It gives how many entries there are. The log must agree with its
// last checkpoint: else the error wraps tlog.ErrContradicted, and is to be looked into
// with VerifyJournal.
func RebuildJournal(ctx context.Context, cfg *config.Config, log *slog.Logger) (entries uint64, err error) {
	dir := filepath.Join(cfg.Data.Dir, journalDir)
	key, err := certs.LoadStorageKey(cfg.Data.KeyFile)
	if err != nil {
		return 0, err
	}
	signer, err := certs.LoadSigner(cfg.Signing.KeyFile)
	if err != nil {
		return 0, err
	}
	if err := dropDerived(dir, key); err != nil {
		return 0, err
	}
	j, err := journal.Open(journal.Config{Dir: dir, Key: key, Log: log})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	tree, err := tlog.Open(ctx, tlog.Config{Journal: j, Dir: dir, Origin: tlog.Origin(cfg.Mesh, cfg.Node.ID()), Signer: signer, Log: log})
	if err != nil {
		return 0, err
	}
	return j.Next(), tree.Close()
}

// dropDerived removes index and tiles while nobody else has the journal open.
func dropDerived(dir string, key []byte) (err error) {
	audit, err := journal.OpenAudit(journal.Config{Dir: dir, Key: key})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, audit.Close()) }()
	if audit.Running() {
		return ErrRunning
	}
	return errors.Join(os.RemoveAll(filepath.Join(dir, journal.IndexDir)), os.RemoveAll(filepath.Join(dir, tlog.TilesDir)))
}
