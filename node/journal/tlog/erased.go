package tlog

import (
	"fmt"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// erased is what a verification sees of erased months. An erased entry cannot be read,
// so whoever has the keys could hide another entry among them; but the tombstone, which
// was signed and stands in the log, says how many there were.
type erased struct {
	total      int64
	entries    map[*journal.Erasure]uint64
	tombstones map[string]bool // those that the log holds
}

func (e *erased) note(r journal.Audited) {
	if r.Erased != nil {
		if e.entries == nil {
			e.entries = map[*journal.Erasure]uint64{}
		}
		e.total++
		e.entries[r.Erased]++
	}
	if r.Kind == nodepb.Event_ERASED {
		if e.tombstones == nil {
			e.tombstones = map[string]bool{}
		}
		e.tombstones[string(r.Statement)] = true
	}
}

// concludeErased compares what was erased with the tombstones, if the log was read whole.
func (v *verification) concludeErased(all []*journal.Erasure) {
	for _, f := range v.report.Findings {
		if f.Kind == Missing || f.Kind == RolledBack {
			return
		}
	}
	if v.report.Running {
		return
	}
	gone := map[string]bool{}
	for _, e := range all {
		gone[e.Period] = true
	}
	for _, e := range all {
		f := Finding{Kind: Altered, From: int64(e.First), Until: int64(e.Last) + 1}
		if opened, err := envelope.Open(envelope.Tombstone, e.Tombstone); err == nil && opened.VerifiedBy(v.cfg.Key) {
			f.Statement = e.Tombstone
		}
		if n := v.erased.entries[e]; n != e.Entries {
			f.Expected = fmt.Sprintf("%d entries of %s, as its tombstone counts", e.Entries, e.Period)
			f.Found = fmt.Sprintf("%d that cannot be read for it", n)
			v.find(f)
		}
		if !v.erased.tombstones[string(e.Tombstone)] && !gone[e.Time.UTC().Format("2006-01")] {
			f.Expected, f.Found = "the tombstone of "+e.Period+" in the log", "another, or none"
			v.find(f)
		}
	}
}
