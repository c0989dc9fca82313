// Package runs keeps rows in sorted files that are never changed: runs.
//
// It is for the one table of the registry that is large, the person directory, whose
// rows are each rewritten as one institution after another declares. A database that
// logs, flushes and levels every such row spends many times what they weigh; here the
// rows that many commands changed are written once, in order, and synced once. Which
// runs count is not kept here: a Version says it in some bytes, its Manifest, and
// whoever commits those bytes together with whatever else must be true at the same
// moment, in a database transaction, has both or neither. A file that no manifest
// names is a leftover, and goes when the runs are opened.
//
// # A version
//
// A Version is a list of runs, newest first. A row is what the newest run with its key
// says; an empty value says that it was deleted. Reading takes a version (Acquire), whose
// files stay until it is let go, whatever becomes of them meanwhile. Tree.Due names
// neighbours of like size that should be merged into one; with that a row is rewritten
// a few times in its life, and there are some dozen runs at most.
//
// # A file
//
//	"CRRUN1\r\n", salt (32)
//	blocks of some 4 KB, then the index of blocks, the filter, and the foot, each sealed
//	length of the sealed foot (4), big-endian
//
//	block   rows: uvarint shared with the key before, uvarint further bytes of the key, those,
//	        uvarint bytes of the value, those
//	index   for each block: its first key as in a block, uvarint sealed length
//	filter  lines of 64 bytes; see filter.go
//	foot    rows, blocks, then length of the sealed index and filter, 8 bytes each
//
// Sealed is AES-256-GCM under a key derived from the storage key and the salt, with what
// it is and its number as the nonce; without a storage key a CRC-32C over both. So a
// block that was changed, moved or exchanged is an error (ErrDamaged), never a row.
package runs
