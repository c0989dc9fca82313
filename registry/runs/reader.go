package runs

import "bytes"

// Reader reads a version; see Version.Reader. It is cheap to make, and cheaper to keep
// for keys that come in order. It is not safe for concurrent use, and good as long as
// its version.
type Reader struct {
	version *Version
	cursors []*cursor // as the runs of the version; nil until used
}

// Of makes a reader that is closed, or new, one of another version, which must stay
// acquired.
func (r *Reader) Of(v *Version) { r.version = v }

// Close lets go of what the reader holds in memory, for others to use. One that reads
// again must be closed again.
func (r *Reader) Close() {
	for _, c := range r.cursors {
		if c != nil {
			c.release()
		}
	}
	r.cursors = nil
}

// Get gives a copy of the value of key. found without a value: the row was deleted.
func (r *Reader) Get(key []byte) (value []byte, found bool, err error) {
	h := hashOf(key)
	for i, run := range r.version.runs {
		if !run.bits.may(h) {
			continue
		}
		if r.cursors == nil {
			r.cursors = make([]*cursor, len(r.version.runs))
		}
		if r.cursors[i] == nil {
			r.cursors[i] = newCursor(run)
		}
		value, found, err := r.cursors[i].get(key)
		if err != nil {
			return nil, false, err
		}
		if found {
			return bytes.Clone(value), true, nil
		}
	}
	return nil, false, nil
}
