package pace

// SyncEvery is how many bytes of a file are written before they are synced. A large file
// that is synced once, at its end, has everybody who syncs anything else on that disk wait
// until all of it is there, as each exchange does: a third of a second for the 820 MB of a
// country's snapshot. In pieces nobody waits for more than one of them.
const SyncEvery = 4 << 20

// Written says when a file that is being written is to be synced. The zero value is for an
// empty file. It is not safe for concurrent use.
type Written struct{ unsynced int }

// Due notes that n more bytes were written, and reports whether it is time to sync the file,
// which is taken to happen then.
func (w *Written) Due(n int) bool {
	if w.unsynced += n; w.unsynced < SyncEvery {
		return false
	}
	w.unsynced = 0
	return true
}
