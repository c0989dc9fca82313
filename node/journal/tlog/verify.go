package tlog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// VerifyConfig says which journal is verified, and against what.
type VerifyConfig struct {
	// Journal says where the log lies, and under which storage key.
	Journal journal.Config
	// Tiles is the directory of the tiles. Nil: none; they only help to say which
	// entry was changed.
	Tiles disk.FS
	// Origin and Key are the journal's, as the registry has them.
	Origin string
	Key    ed25519.PublicKey
	// Anchors are checkpoints of this journal that others kept: what somebody who has
	// this disk and all its keys cannot change.
	Anchors [][]byte
	// Each is given every record that is there, in order. Nil: nobody is.
	Each func(r journal.Audited)
	// Progress is told how many bytes of how many were read. Nil: nobody is.
	Progress func(done, total int64)
}

// ErrNoCheckpoint means that what was given as a checkpoint of this journal is none. It
// says nothing of the journal.
var ErrNoCheckpoint = errors.New("no checkpoint of this journal")

// Verify reads a whole log, computes its tree again from what the entries are, and
// compares it with every checkpoint that was kept, and with the anchors. It changes
// nothing. An error means that it could not be done; what is wrong with the journal
// is in the report.
func Verify(ctx context.Context, cfg VerifyConfig) (*Report, error) {
	v := &verification{cfg: cfg, report: &Report{Origin: cfg.Origin}}
	for i, msg := range cfg.Anchors {
		c, err := OpenCheckpoint(cfg.Origin, cfg.Key, msg)
		if err != nil {
			return nil, fmt.Errorf("anchor %d: %w: %w", i+1, ErrNoCheckpoint, err)
		}
		v.wanted = append(v.wanted, wanted{size: c.Size, root: c.Root, epoch: c.Epoch, note: msg, anchor: true})
		v.report.Anchors++
	}
	audit, err := journal.OpenAudit(cfg.Journal)
	if err != nil {
		return nil, err
	}
	defer audit.Close()
	v.report.Running = audit.Running()
	v.dir, v.presentRaw = audit.FS(), audit.Epoch()
	v.present, _ = journal.OpenEpoch(v.presentRaw, cfg.Key)
	if err := v.readKept(); err != nil {
		return nil, err
	}
	until := uint64(math.MaxUint64)
	if audit.Running() {
		until = uint64(v.lastKept)
	}
	slices.SortStableFunc(v.wanted, func(a, b wanted) int { return int(a.size - b.size) })
	if err := v.read(ctx, audit, until); err != nil {
		return nil, err
	}
	v.conclude()
	v.report.signed = v.agreeing()
	v.concludeErased(audit.Erasures())
	return v.report, nil
}

// wanted is a root that was signed for a size.
type wanted struct {
	size   int64
	root   Hash
	epoch  int64
	note   []byte // nil for one that was kept: it lies at offset
	anchor bool
	offset int64
}

// mismatch is what was signed, and what is there instead.
type mismatch struct {
	wanted
	is Hash
}

// verification is one Verify under way.
type verification struct {
	cfg      VerifyConfig
	report   *Report
	dir      disk.FS
	wanted   []wanted // all that was signed, by size
	pending  []wanted // those of it that the tree has not reached
	lastKept int64    // size of the last that was kept
	// The statement of the present epoch, as it lies beside the log; nil: not the holder's.
	present    *nodepb.Epoch
	presentRaw []byte
	erased     erased

	tree     compact
	good     int64      // greatest size that was signed and is right
	anchored int64      // greatest size of an anchor that is right
	wrong    []mismatch // at most one kept and one anchor: the first of each
	recent   []Hash     // leaves since good or anchored, to say which were changed; bounded
	first    int64      // sequence of recent[0]
	progress int64
}

// maxRecent bounds how many leaves are remembered to say which were changed: those
// of one checkpoint, even under full load.
const maxRecent = 1 << 20

// readKept reads the checkpoints kept beside the log.
func (v *verification) readKept() error {
	f, err := v.dir.Open(checkpointsName, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var at int64
	var last []byte
	var lastRoot Hash
	_, _, err = scanKept(f, func(msg []byte) error {
		text, _, _ := strings.Cut(string(msg), "\n\n")
		c, err := ParseCheckpoint(text + "\n")
		where := fmt.Sprintf("%s, offset %d", checkpointsName, at)
		switch {
		case err != nil || c.Origin != v.cfg.Origin:
			v.find(Finding{Kind: Damaged, Where: where, Found: "no checkpoint of this journal"})
		case c.Size < v.lastKept, c.Size == v.lastKept && last != nil && c.Root != lastRoot:
			v.find(Finding{Kind: TwoHistories, Until: v.lastKept, Where: where, Expected: "a checkpoint that continues the one before",
				Found: "one that does not", Checkpoint: last, Other: msg})
		default:
			v.lastKept, lastRoot, last = c.Size, c.Root, msg
			v.wanted = append(v.wanted, wanted{size: c.Size, root: c.Root, epoch: c.Epoch, offset: at})
			v.report.Checkpoints++
		}
		at += int64(keptHead + len(msg))
		return nil
	})
	if errors.Is(err, journal.ErrCorrupt) {
		v.find(Finding{Kind: Damaged, Where: checkpointsName, Found: err.Error()})
		err = nil
	}
	return err
}

// read goes through the log.
func (v *verification) read(ctx context.Context, audit *journal.Audit, until uint64) error {
	v.pending = v.wanted
	compare := func() {
		for len(v.pending) > 0 && v.pending[0].size == v.tree.n {
			v.compare(v.pending[0])
			v.pending = v.pending[1:]
		}
	}
	compare()
	err := audit.Read(ctx, until, func(r journal.Audited, bytes int64) error {
		v.erased.note(r)
		if r.Damage != nil {
			v.damage(r)
		}
		if r.Lost {
			return nil
		}
		if v.cfg.Each != nil {
			v.cfg.Each(r)
		}
		v.declared(r)
		v.tree.add(r.Leaf, func(int, Hash) {})
		if len(v.recent) < maxRecent {
			v.recent = append(v.recent, r.Leaf)
		}
		compare()
		if v.cfg.Progress != nil && bytes-v.progress > 8<<20 {
			v.progress = bytes
			v.cfg.Progress(bytes, audit.Bytes())
		}
		return nil
	})
	v.report.Entries, v.report.Erased = v.tree.n, v.erased.total
	if v.cfg.Progress != nil && err == nil {
		v.cfg.Progress(audit.Bytes(), audit.Bytes())
	}
	return err
}

// compare compares the tree, as far as it has come, with what was signed.
func (v *verification) compare(w wanted) {
	if v.excused(w) {
		return
	}
	is := v.tree.root()
	if is == w.root {
		if len(v.wrong) > 0 {
			return
		}
		v.good = w.size
		if w.anchor {
			v.anchored = w.size
		}
		// Who forged the log may have forged what was kept beside it.
		if w.anchor || v.report.Anchors == 0 || len(v.recent) > maxRecent/2 {
			v.first, v.recent = w.size, v.recent[:0]
		}
		return
	}
	if !slices.ContainsFunc(v.wrong, func(m mismatch) bool { return m.anchor == w.anchor }) {
		v.wrong = append(v.wrong, mismatch{w, is})
	}
}

// agreeing gives the widest checkpoints that the log agrees with: of those that others
// kept, then of those kept here.
func (v *verification) agreeing() (all []signedOver) {
	for _, anchor := range []bool{true, false} {
		for i := len(v.wanted) - 1; i >= 0; i-- {
			w := v.wanted[i]
			if w.anchor != anchor || w.size == 0 || w.size != v.good && (!anchor || w.size != v.anchored) {
				continue
			}
			note := v.noteOf(w)
			if _, err := OpenCheckpoint(v.cfg.Origin, v.cfg.Key, note); err == nil {
				all = append(all, signedOver{w.size, note, anchor})
				break
			}
		}
	}
	return all
}

// damage reports a record that is not whole.
func (v *verification) damage(r journal.Audited) {
	f := Finding{Kind: Damaged, From: int64(r.Sequence), Until: int64(r.Sequence) + 1, Where: r.Where, Found: r.Damage.Error()}
	if r.Lost {
		f.Kind = Missing
	}
	if w, ok := v.covering(int64(r.Sequence)); ok {
		v.signed(&f, w)
		f.Expected = fmt.Sprintf("entry %d of the %d that were signed", r.Sequence, w.size)
	}
	n := len(v.report.Findings)
	switch {
	case n > 0 && continues(v.report.Findings[n-1], f):
		v.report.Findings[n-1].Until = f.Until
	case n < maxFindings/2 || r.Lost: // the rest is for what the comparison with signed checkpoints says
		v.find(f)
	default:
		v.report.More = true
	}
}

// continues tells whether the damage f is that of the entry before it, going on.
func continues(before, f Finding) bool {
	return before.Kind == Damaged && f.Kind == Damaged && before.Until == f.From && before.Found == f.Found &&
		string(before.Checkpoint) == string(f.Checkpoint)
}

// covering gives a signed checkpoint over an entry: an anchor if there is one.
func (v *verification) covering(seq int64) (best wanted, ok bool) {
	for _, w := range v.wanted {
		if w.size > seq && (!ok || w.anchor && !best.anchor) {
			best, ok = w, true
		}
	}
	return best, ok
}

// conclude says what the comparison means.
func (v *verification) conclude() {
	lost := slices.ContainsFunc(v.report.Findings, func(f Finding) bool { return f.Kind == Missing })
	v.pending = slices.DeleteFunc(slices.Clone(v.pending), v.excused)
	if len(v.pending) > 0 && !lost {
		v.notReached()
	}
	for _, m := range v.wrong {
		f := Finding{
			Kind: Altered, From: v.from(m.anchor), Until: m.size,
			Expected: fmt.Sprintf("root %v of the first %d entries", m.root, m.size), Found: fmt.Sprintf("root %v", m.is),
		}
		v.signed(&f, m.wanted)
		v.narrow(&f, m.wanted)
		if other, ok := v.contrary(m); ok {
			f.Kind, f.Other = TwoHistories, v.noteOf(other)
		}
		v.find(f)
	}
}

// from gives up to where the log is proven. When only an anchor contradicts it, what
// was kept here proves nothing.
func (v *verification) from(anchor bool) int64 {
	if anchor && !slices.ContainsFunc(v.wrong, func(m mismatch) bool { return !m.anchor }) {
		return v.anchored
	}
	return v.good
}

// notReached reports what was signed of a log that ends before.
func (v *verification) notReached() {
	last := v.pending[len(v.pending)-1]
	rolledBack := true
	for _, w := range v.pending {
		if w.anchor {
			last = w
		} else {
			rolledBack = false
		}
	}
	f := Finding{
		Kind: Missing, From: v.good, Until: last.size,
		Expected: fmt.Sprintf("%d entries", last.size), Found: fmt.Sprintf("%d entries", v.tree.n),
	}
	if rolledBack && len(v.wrong) == 0 {
		f.Kind, f.From = RolledBack, v.anchored // the checkpoints kept here end too
	}
	v.signed(&f, last)
	v.narrow(&f, last)
	v.find(f)
}

// contrary gives a checkpoint kept here that agrees with the log where an anchor
// does not: the journal was shown with two histories.
func (v *verification) contrary(m mismatch) (wanted, bool) {
	if !m.anchor || slices.ContainsFunc(v.wrong, func(m mismatch) bool { return !m.anchor }) {
		return wanted{}, false
	}
	for _, w := range v.wanted {
		if !w.anchor && w.size >= m.size && w.size <= v.tree.n {
			return w, true
		}
	}
	return wanted{}, false
}

// signed adds the evidence to a finding, if it is any: a checkpoint kept here may
// have been forged with the rest.
func (v *verification) signed(f *Finding, w wanted) {
	f.Checkpoint, f.Anchored = v.noteOf(w), w.anchor
	if _, err := OpenCheckpoint(v.cfg.Origin, v.cfg.Key, f.Checkpoint); err != nil {
		f.Unsigned = true
	}
}

// noteOf gives the note of what was signed.
func (v *verification) noteOf(w wanted) []byte {
	if w.note != nil {
		return w.note
	}
	f, err := v.dir.Open(checkpointsName, false)
	if err != nil {
		return nil
	}
	defer f.Close()
	msg, _ := nextKept(io.NewSectionReader(f, w.offset, math.MaxInt64-w.offset), make([]byte, keptHead))
	return msg
}

// narrow says which entries they are, when the tiles still prove it: of the widest
// tree that was signed, or else of the one that is wrong.
func (v *verification) narrow(f *Finding, m wanted) {
	if v.cfg.Tiles == nil || v.first > f.From {
		return
	}
	widest := m
	for _, w := range v.wanted {
		if w.size > widest.size && w.anchor == (v.report.Anchors > 0) {
			widest = w
		}
	}
	was, err := v.leaves(widest)
	if err != nil {
		was, err = v.leaves(m)
	}
	if err == nil {
		f.narrow(v.first, was, v.recent)
	}
}

// leaves gives the leaves of a signed tree from v.first on, as far as the log goes, each
// proven by the tiles.
func (v *verification) leaves(w wanted) ([]Hash, error) {
	t := &tiles{fs: v.cfg.Tiles}
	defer t.close()
	r := merkle.TileHashReader(merkle.Tree{N: w.size, Hash: w.root}, tileReader{t})
	until := min(w.size, v.first+int64(len(v.recent)))
	var all []Hash
	const step = 4 * tileWidth
	for at := v.first; at < until; at += step {
		indexes := make([]int64, 0, step)
		for seq := at; seq < min(at+step, until); seq++ {
			indexes = append(indexes, merkle.StoredHashIndex(0, seq))
		}
		hs, err := r.ReadHashes(indexes)
		if err != nil {
			return nil, fmt.Errorf("the tiles are not those that were signed: %w", err)
		}
		all = append(all, hs...)
	}
	return all, nil
}

func (v *verification) find(f Finding) {
	f.Origin = v.cfg.Origin
	if len(v.report.Findings) == maxFindings {
		v.report.More = true
		return
	}
	v.report.Findings = append(v.report.Findings, f)
}
