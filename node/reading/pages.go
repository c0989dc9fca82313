package reading

import (
	"context"

	"github.com/crossroads-mesh/crossroads/node/journal"
)

const (
	// maxScanned is the most entries that one reading looks at.
	maxScanned = 1_000_000
	scanPage   = 2_000
)

// pages gives fn the entries that match q, the newest first and a page at a time,
// until fn returns false. more: it did not come to the end. An entry that is
// written meanwhile may be left out.
func (s *Service) pages(ctx context.Context, q journal.Query, fn func(journal.Stored) bool) (more bool, err error) {
	q.Limit, q.NewestFirst = scanPage, true
	// Pages overlap by a millisecond, so that none of several entries of one is lost.
	edge := map[uint64]bool{}
	for scanned := 0; scanned < maxScanned; {
		found, err := s.find(ctx, q)
		if err != nil {
			return false, err
		}
		fresh := 0
		for _, e := range found {
			if edge[e.Sequence] {
				continue
			}
			fresh++
			if !fn(e) {
				return true, nil
			}
		}
		if len(found) < q.Limit {
			return false, nil
		}
		scanned += fresh
		last := found[len(found)-1].Entry.GetTimeUnixMs()
		if found[0].Entry.GetTimeUnixMs() == last { // there may be more in one millisecond than on a page
			q.Limit *= 2
		}
		for _, e := range found {
			if e.Entry.GetTimeUnixMs() == last {
				edge[e.Sequence] = true
			}
		}
		q.Until = at(last + 1)
	}
	return true, nil
}
