// Package badgerdb opens the Badger databases of a node, all in the same way:
// every commit synced before it returns, encrypted at rest, small in memory (a
// test network runs some twenty of them in one process), logging to slog.
package badgerdb

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// KeySize is the size of a storage key in bytes: AES-256.
const KeySize = 32

// Config says where a database lies and how it is kept.
type Config struct {
	// Dir is made if absent. Empty keeps the database in memory, for tests of
	// what does not need durability.
	Dir string
	// Key encrypts the database at rest; 32 bytes, or none for no encryption.
	Key []byte
	// CacheMB bounds the block and index caches together. 0 means 8.
	CacheMB int64
	// MemTableMB is the size of the table in memory that gathers writes; a
	// transaction may take 15 % of it. 0 means 8.
	MemTableMB int64
	// ValueLogKB is the size from which on values lie in a log of their own, which is
	// never rewritten. 0 means 64.
	ValueLogKB int64
	// NoSync leaves the moment of writing to the operating system. Only for what
	// is rebuilt from elsewhere, such as an index.
	NoSync bool
	Log    *slog.Logger
}

// Open opens the database, repairing what a crash left. The caller closes it.
func Open(cfg Config) (*badger.DB, error) {
	if n := len(cfg.Key); n != 0 && n != KeySize {
		return nil, fmt.Errorf("storage key has %d bytes, want %d", n, KeySize)
	}
	if cfg.CacheMB == 0 {
		cfg.CacheMB = 8
	}
	if cfg.MemTableMB == 0 {
		cfg.MemTableMB = 8
	}
	if cfg.ValueLogKB == 0 {
		cfg.ValueLogKB = 64
	}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, err
		}
	}
	opts := badger.DefaultOptions(cfg.Dir).
		WithInMemory(cfg.Dir == "").
		WithSyncWrites(!cfg.NoSync && cfg.Dir != "").
		WithMemTableSize(cfg.MemTableMB << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(4).
		WithNumLevelZeroTablesStall(8).
		WithNumCompactors(2).
		WithBaseTableSize(4 << 20).
		WithValueLogFileSize(32 << 20).
		WithValueThreshold(cfg.ValueLogKB << 10).
		WithBlockCacheSize(cfg.CacheMB << 19).
		WithIndexCacheSize(cfg.CacheMB << 19).
		WithCompression(options.None).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithLogger(logger{cfg.Log})
	if len(cfg.Key) > 0 {
		opts = opts.WithEncryptionKey(cfg.Key)
	}
	db, err := badger.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", cfg.Dir, err)
	}
	return db, nil
}

// logger sends Badger's warnings and errors to slog and drops its chatter.
type logger struct{ log *slog.Logger }

func (l logger) Errorf(f string, a ...any) {
	if l.log != nil {
		l.log.Error("badger: " + fmt.Sprintf(f, a...))
	}
}

func (l logger) Warningf(f string, a ...any) {
	if l.log != nil {
		l.log.Warn("badger: " + fmt.Sprintf(f, a...))
	}
}

func (logger) Infof(string, ...any)  {}
func (logger) Debugf(string, ...any) {}
