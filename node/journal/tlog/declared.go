package tlog

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Declared is an epoch that the journal's holder declared because a disk was restored,
// and what hangs on that word alone. It accuses nobody: the loss was told. Nor does it
// clear anybody: who declares an epoch can be asked what became of the entries.
type Declared struct {
	Epoch   uint64    `json:"epoch"`
	At      int64     `json:"at"` // entries that the restored log held
	Started time.Time `json:"started"`
	Reason  string    `json:"reason"`
	Who     string    `json:"who"`
	// Proven is how many entries a checkpoint that others kept, made before, proves.
	// Those from there to At are as the restored disk had them, on the holder's word.
	Proven int64 `json:"proven"`
	// Lost is the size of the largest log that others saw before the epoch: the entries
	// from At to there are gone. Not above At: nobody is known to have seen more.
	Lost int64 `json:"lost"`
	// Shown tells that a checkpoint of this epoch that others kept was given: members
	// accepted it then, of which they do few.
	Shown bool `json:"shown"`
	// Statement is what the holder signed: an envelope of a nodepb.Epoch.
	Statement []byte `json:"statement"`
}

// declared takes note of an epoch that begins with a record, if the statement is the
// holder's and fits the log. What does not fit excuses nothing.
func (v *verification) declared(r journal.Audited) {
	var p *nodepb.Epoch
	raw := r.Statement
	switch {
	case r.Kind == nodepb.Event_EPOCH_BEGUN:
		p, _ = journal.OpenEpoch(raw, v.cfg.Key)
	case r.Erased != nil && v.present.GetResumesAt() == uint64(v.tree.n): // its month is gone; the statement beside the log stays
		p, raw = v.present, v.presentRaw
	}
	if p.GetNumber() < 2 {
		return
	}
	of := names.NodeID{Institution: names.InstitutionID(p.GetNode().GetInstitution()), Node: names.NodeName(p.GetNode().GetNode())}
	if Origin(names.MeshID(p.GetMesh()), of) != v.cfg.Origin {
		return
	}
	root := v.tree.root()
	if p.GetResumesAt() != uint64(v.tree.n) || !bytes.Equal(p.GetResumesRoot(), root[:]) {
		return
	}
	v.report.Declared = append(v.report.Declared, Declared{
		Epoch: p.GetNumber(), At: v.tree.n, Started: time.UnixMilli(p.GetStartedUnixMs()).UTC(),
		Reason: p.GetReason(), Who: p.GetWho(), Proven: v.anchored, Lost: v.tree.n, Statement: raw,
		Shown: slices.ContainsFunc(v.wanted, func(w wanted) bool { return w.anchor && uint64(w.epoch) == p.GetNumber() }),
	})
}

// excused tells whether a checkpoint that others kept was made before an epoch that
// lost part of what it covers: then the log cannot agree with it, and need not.
func (v *verification) excused(w wanted) bool {
	if !w.anchor {
		return false
	}
	for i := range v.report.Declared {
		if d := &v.report.Declared[i]; int64(d.Epoch) > max(w.epoch, 1) && w.size > d.At {
			d.Lost = max(d.Lost, w.size)
			return true
		}
	}
	return false
}

// WriteTo tells of the epoch in plain words.
func (d Declared) WriteTo(w io.Writer) (int64, error) {
	n, err := fmt.Fprintf(w, "epoch %d was declared at entry %d, on %s by %s: %s\n", d.Epoch, d.At, d.Started.Format(time.RFC3339), d.Who, d.Reason)
	if d.Lost > d.At {
		m, e := fmt.Fprintf(w, "  entries %d to %d, which others saw signed, were lost with the disk\n", d.At, d.Lost-1)
		if n += m; err == nil {
			err = e
		}
	}
	if d.Proven < d.At {
		m, e := fmt.Fprintf(w, "  entries %d to %d are the restored disk's: no checkpoint that was given proves them\n", d.Proven, d.At-1)
		if n += m; err == nil {
			err = e
		}
	}
	says := "  nothing that was given shows that members accepted it\n"
	if d.Shown {
		says = "  a checkpoint of it that others kept was given\n"
	}
	m, e := fmt.Fprint(w, says)
	if n += m; err == nil {
		err = e
	}
	return int64(n), err
}
