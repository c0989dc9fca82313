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
	"github.com/crossroads-mesh/crossroads/node/sector"
)

// ErrRunning means that the node runs, and that what was asked for needs it stopped.
var ErrRunning = errors.New("the node is running; stop it first")

// Verified is what is to be said of the journals of a node.
type Verified struct {
	*tlog.Report
	// Sector is of the journal of the node's sector; nil: it has none.
	Sector *tlog.Report `json:"sector,omitempty"`
}

// OK tells that nothing is wrong.
func (v *Verified) OK() bool { return v.Report.OK() && (v.Sector == nil || v.Sector.OK()) }

// VerifyJournal verifies the journal of a node that is stopped; of one that runs, all
// that its last checkpoint covers. anchors are checkpoints of it that others kept. A
// node of a sector has a second journal, which nobody witnesses by itself: it is verified too, and
// a managing body's is held against the outcomes that are sealed in the first.
func VerifyJournal(ctx context.Context, cfg *config.Config, anchors [][]byte, progress func(done, total int64)) (*Verified, error) {
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
	verify := func(dir, origin string, anchors [][]byte, each func(journal.Audited)) (*tlog.Report, error) {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("there is no journal: %w", err)
		}
		tiles, err := disk.OpenDir(filepath.Join(dir, tlog.TilesDir))
		if err != nil {
			return nil, err
		}
		return tlog.Verify(ctx, tlog.VerifyConfig{
			Journal: journal.Config{Dir: dir, Key: key}, Tiles: tiles, Origin: origin, Key: public, Anchors: anchors, Each: each, Progress: progress,
		})
	}
	v := new(Verified)
	var seals *sector.Seals
	var outside, within func(journal.Audited)
	if cfg.Sector != nil && cfg.Sector.ManagingBody == "" {
		seals = sector.NewSeals()
		outside, within = seals.Outside, seals.Inside
	}
	if v.Report, err = verify(filepath.Join(cfg.Data.Dir, journalDir), tlog.Origin(cfg.Mesh, cfg.Node.ID()), anchors, outside); err != nil || cfg.Sector == nil {
		return v, err
	}
	v.Sector, err = verify(filepath.Join(cfg.Data.Dir, sectorDir, journalDir), tlog.SectorOrigin(cfg.Mesh, cfg.Node.ID()), nil, within)
	if err != nil {
		return nil, fmt.Errorf("the sector's journal: %w", err)
	}
	if seals != nil {
		v.holdAgainst(seals)
	}
	return v, nil
}

// holdAgainst adds to the report on the sector's journal what the seals in the other say.
func (v *Verified) holdAgainst(seals *sector.Seals) {
	var epochs []sector.Epoch
	for _, d := range v.Declared {
		epochs = append(epochs, sector.Epoch{At: d.At})
	}
	wrong, lost := seals.Conclude(epochs, v.Running || v.Sector.Running)
	if lost > 0 {
		v.Sector.Notes = append(v.Sector.Notes, fmt.Sprintf("%d outcomes that are sealed in %s were lost with a disk whose restore was declared", lost, v.Origin))
	}
	for _, u := range wrong {
		f := tlog.Finding{Kind: tlog.Altered, Origin: v.Sector.Origin, From: u.Inside, Until: u.Inside + 1,
			Expected: "an outcome that names what it was made of", Found: "entries that it was not made of, or not all"}
		if u.Inside < 0 {
			f.Kind, f.From, f.Until = tlog.Missing, 0, 0
			f.Expected, f.Found = fmt.Sprintf("an outcome whose seal is %x", u.Seal), "none: it was taken out or changed"
		}
		if u.Outside >= 0 {
			f.Where = fmt.Sprintf("what entry %d of %s seals", u.Outside, v.Origin)
			f.Checkpoint, f.Anchored = v.SignedOver(u.Outside)
		} else {
			f.Checkpoint, f.Anchored = v.Sector.SignedOver(u.Inside)
		}
		v.Sector.Add(f)
	}
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
