package runs

import "bytes"

// Iterator walks through several runs, newest first, as if they were one. It is not
// safe for concurrent use.
type Iterator struct {
	cursors []*cursor
	at      int // of the cursor whose row it is at, or -1 at the end
}

// Iterate gives an iterator over the version, at its first row that is not below start.
// It is good as long as the version is acquired.
func (v *Version) Iterate(start []byte) (*Iterator, error) {
	m := merged(v.runs)
	return m, m.seek(start)
}

func merged(runs []*run) *Iterator {
	m := &Iterator{at: -1}
	for _, r := range runs {
		m.cursors = append(m.cursors, newCursor(r))
	}
	return m
}

func (m *Iterator) seek(key []byte) error {
	for _, c := range m.cursors {
		if err := c.seek(key); err != nil {
			return err
		}
	}
	m.settle()
	return nil
}

// settle finds the smallest key; of equal ones the newest counts.
func (m *Iterator) settle() {
	m.at = -1
	for i, c := range m.cursors {
		if c.valid && (m.at < 0 || bytes.Compare(c.key, m.cursors[m.at].key) < 0) {
			m.at = i
		}
	}
}

// Valid reports whether the iterator is at a row, and not past the last.
func (m *Iterator) Valid() bool { return m.at >= 0 }

// Row gives the row that it is at, good until Next. An empty value says that it was
// deleted.
func (m *Iterator) Row() (key, value []byte) { c := m.cursors[m.at]; return c.key, c.value }

// Next goes to the next key.
func (m *Iterator) Next() error {
	key := m.cursors[m.at].key
	for i, c := range m.cursors {
		if i != m.at && c.valid && bytes.Equal(c.key, key) {
			if err := c.next(); err != nil {
				return err
			}
		}
	}
	if err := m.cursors[m.at].next(); err != nil {
		return err
	}
	m.settle()
	return nil
}

// All calls fn with what each run says of the key that it is at, oldest first.
func (m *Iterator) All(fn func(value []byte)) {
	key := m.cursors[m.at].key
	for i := len(m.cursors) - 1; i >= 0; i-- {
		if c := m.cursors[i]; c.valid && (i == m.at || bytes.Equal(c.key, key)) {
			fn(c.value)
		}
	}
}
