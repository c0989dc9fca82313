package outbox

import (
	"slices"
	"strings"
)

// IDs gives the ids of the rows of a table that have not ended and begin with prefix, in
// order. It reads no value, so that a table of millions can be gone through.
func (o *Outbox) IDs(t Table, prefix string) (ids []string, err error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if err := o.state(); err != nil {
		return nil, err
	}
	for id, e := range o.tables[t] {
		if gone := e.row != nil && e.row.raw == nil; gone || !strings.HasPrefix(id, prefix) || o.ended(e.until) {
			continue
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}
