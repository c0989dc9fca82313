package record

import (
	"bytes"
	"slices"
	"strings"
)

// MapState is a State in memory: for tests, and for trying out commands. The zero
// value is empty. It is not safe for concurrent use.
type MapState struct{ rows map[string][]byte }

// Get gives the value of key, or nil.
func (m *MapState) Get(key []byte) ([]byte, error) { return m.rows[string(key)], nil }

// Set writes a row.
func (m *MapState) Set(key, value []byte) error {
	if m.rows == nil {
		m.rows = make(map[string][]byte)
	}
	m.rows[string(key)] = bytes.Clone(value)
	return nil
}

// Delete takes a row away.
func (m *MapState) Delete(key []byte) error {
	delete(m.rows, string(key))
	return nil
}

// Scan gives rows in order of key.
func (m *MapState) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	var keys []string
	for k := range m.rows {
		if strings.HasPrefix(k, string(prefix)) && k >= string(start) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := fn([]byte(k), m.rows[k]); err != nil {
			return err
		}
	}
	return nil
}
