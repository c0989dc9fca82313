package exchange

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// refusals bounds what an institution can make a supplier write: each refusal is a
// synced entry. It is safe for concurrent use; it holds one row for each institution
// that was refused, and only those that the registry admits get so far.
type refusals struct {
	rate  rate.Limit
	burst int

	mu   sync.Mutex
	rows map[names.InstitutionID]*refusalRow
}

type refusalRow struct {
	limit  *rate.Limiter
	missed uint64 // turned away since a refusal was last journaled
}

func newRefusals(perSecond float64, burst int) *refusals {
	return &refusals{rate: rate.Limit(perSecond), burst: burst, rows: make(map[names.InstitutionID]*refusalRow)}
}

// turnAway reports whether an institution has used up its refusals, and whether this
// is the first time since one was journaled.
func (r *refusals) turnAway(i names.InstitutionID, now time.Time) (turned, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.rows[i]
	if row == nil || row.limit.TokensAt(now) >= 1 {
		return false, false
	}
	row.missed++
	return true, row.missed == 1
}

// count takes note of a refusal, and gives how many were turned away before it.
func (r *refusals) count(i names.InstitutionID, now time.Time) (missed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.rows[i]
	if row == nil {
		row = &refusalRow{limit: rate.NewLimiter(r.rate, r.burst)}
		r.rows[i] = row
	}
	row.limit.AllowN(now, 1)
	missed, row.missed = row.missed, 0
	return missed
}

// restore puts back a count that could not be journaled.
func (r *refusals) restore(i names.InstitutionID, missed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows[i].missed += missed
}
