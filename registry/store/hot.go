package store

import "github.com/crossroads-mesh/crossroads/registry/record"

// Bounds of what hot keeps: rows, and bytes of one.
const (
	maxHot     = 1 << 16
	maxHotSize = 1 << 10
)

// hot keeps rows that command after command reads (record.OfAuthors), absent ones too, as
// they are decided: without it each is searched for in the database again. It is owned by
// whoever applies, who alone changes rows.
type hot struct{ rows map[string][]byte }

func (h *hot) get(k []byte) (v []byte, ok bool) {
	v, ok = h.rows[string(k)]
	return v, ok
}

// note remembers a row as it was read; nil: there is none.
func (h *hot) note(k, v []byte) {
	if len(v) > maxHotSize || !record.OfAuthors(k) {
		return
	}
	if h.rows == nil || len(h.rows) >= maxHot {
		h.rows = make(map[string][]byte)
	}
	h.rows[string(k)] = v
}

// wrote brings it up to date with rows that are decided now; an empty one is gone.
func (h *hot) wrote(rows map[string][]byte) {
	for k, v := range rows {
		if _, ok := h.rows[k]; !ok {
			continue
		}
		if len(v) > maxHotSize {
			delete(h.rows, k)
		} else {
			h.rows[k] = orNone(v)
		}
	}
}
