package journal

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

const erasedPrefix = "erased-"

// ErrNothing means that the journal holds no entry of that month.
var ErrNothing = errors.New("no entries of that month")

// Erasure is a month that was erased.
type Erasure struct {
	Period      string // "2016-03"
	First, Last uint64 // sequences of its first and its last entry
	Entries     uint64
	Time        time.Time
	Reason, Who string
	Tombstone   []byte // the signed statement, an envelope of a nodepb.Tombstone
}

// String says it in plain words.
func (e *Erasure) String() string {
	return fmt.Sprintf("%s was erased on %s under %s by %s", e.Period, e.Time.UTC().Format(time.DateOnly), e.Reason, e.Who)
}

func (e *Erasure) err() error { return fmt.Errorf("%w: %s", ErrErased, e) }

// Erase is an order to erase one month.
type Erase struct {
	Period string // "2016-03", UTC
	Reason string // under which rule, in few words: it stands in the tombstone
	Who    string // gave the order
	Time   time.Time
}

// Erase makes all entries of a month unreadable for good: it destroys the key they
// are encrypted under, here and in the index. Their commitments stay, and with them
// every proof. What was erased, when and why is said by a signed tombstone that is
// durable, and in the log, before the key is destroyed; a crash at any point leaves
// the month either whole or erased once the journal is opened again.
//
// Erasing an erased month gives its erasure. The present month and later ones are
// refused (ErrRefused); ErrNothing when there are no entries. Entries of an erased
// month are refused by Append ever after.
func (j *Journal) Erase(ctx context.Context, order Erase) (*Erasure, error) {
	p, err := parsePeriod(order.Period)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if p >= periodOf(order.Time) {
		return nil, fmt.Errorf("%w: %s has not ended", ErrRefused, p)
	}
	j.open.RLock()
	defer j.open.RUnlock()
	if j.closed {
		return nil, errClosed
	}
	j.stating.Lock()
	defer j.stating.Unlock()
	if e := j.keys.erasure(p); e != nil {
		return e, nil
	}
	if j.keys.get(p) == nil {
		return nil, fmt.Errorf("%w: %s", ErrNothing, p)
	}
	if err := j.Healthy(); err != nil {
		return nil, err
	}
	j.months.Lock() // no group is being written
	j.keys.close(p)
	j.months.Unlock()
	e, err := j.bury(ctx, p, order)
	if err != nil {
		return nil, fmt.Errorf("erase %s: %w", p, err)
	}
	j.log.Info("journal: erased a month", "period", e.Period, "entries", e.Entries, "reason", e.Reason, "who", e.Who)
	return e, nil
}

// bury erases a month that takes no more entries. The caller holds stating.
func (j *Journal) bury(ctx context.Context, p period, order Erase) (*Erasure, error) {
	if err := j.index.wait(ctx, j.durable.Load()); err != nil {
		return nil, err
	}
	t, err := j.index.extent(p)
	if err != nil {
		return nil, err
	}
	if t.Entries == 0 {
		j.keys.reopen(p)
		return nil, ErrNothing
	}
	if j.cfg.Signing == nil {
		return nil, errNoSigner
	}
	t.Mesh, t.Node = string(j.cfg.Signing.Mesh), j.cfg.Signing.ref()
	t.Period, t.TimeUnixMs, t.Reason, t.Who = p.String(), order.Time.UnixMilli(), order.Reason, order.Who
	raw, err := j.cfg.Signing.envelope(envelope.Tombstone, t)
	if err != nil {
		return nil, err
	}
	entry := &nodepb.Entry{
		TimeUnixMs: t.TimeUnixMs, Role: nodepb.Role_KEEPER, Event: nodepb.Event_ERASED, Application: order.Who,
		Detail: clipped(p.String() + ": " + order.Reason), Evidence: [][]byte{raw},
	}
	if _, err := prepare(entry); err != nil {
		return nil, err
	}
	name := erasedPrefix + p.String()
	if err := j.state.write(name, entry); err != nil {
		return nil, err
	}
	// From here on it is erased, whatever happens: opening finishes the rest.
	e := erasureOf(t, raw)
	if err := j.settle(context.WithoutCancel(ctx), name, entry); err != nil {
		return nil, err
	}
	j.keys.bury(p, e)
	if err := j.keys.destroy(p); err != nil {
		return nil, err
	}
	return e, j.index.drop(p)
}

// Erasures gives the erased months with a day in from <= day < until, in order;
// a zero time bounds nothing.
func (j *Journal) Erasures(from, until time.Time) []*Erasure {
	var found []*Erasure
	for _, p := range j.keys.erasedMonths() {
		if (from.IsZero() || p >= periodOf(from)) && (until.IsZero() || p <= periodOf(until.Add(-1))) {
			found = append(found, j.keys.erasure(p))
		}
	}
	return found
}

// Expired gives the months with entries that a retention of so many whole months
// does not cover any more at now, in order.
func (j *Journal) Expired(months int, now time.Time) []string {
	var found []string
	for _, p := range j.keys.periods() {
		if int64(p)+1+int64(months) <= int64(periodOf(now)) {
			found = append(found, p.String())
		}
	}
	return found
}

func parsePeriod(s string) (period, error) {
	t, err := time.Parse("2006-01", s)
	if err != nil || periodOf(t).String() != s {
		return 0, errors.New("a month is written as 2016-03")
	}
	return periodOf(t), nil
}

func clipped(s string) string {
	if len(s) > MaxDetail {
		s = strings.ToValidUTF8(s[:MaxDetail], "")
	}
	return s
}

func erasureOf(t *nodepb.Tombstone, raw []byte) *Erasure {
	return &Erasure{
		Period: t.Period, First: t.First, Last: t.Last, Entries: t.Entries,
		Time: time.UnixMilli(t.TimeUnixMs), Reason: t.Reason, Who: t.Who, Tombstone: raw,
	}
}

// tombstones reads the months that were erased.
func (s statements) tombstones() (map[period]*Erasure, []note, error) {
	notes, err := s.all(erasedPrefix)
	if err != nil {
		return nil, nil, err
	}
	erased := map[period]*Erasure{}
	for _, n := range notes {
		t := new(nodepb.Tombstone)
		opened, err := envelope.Open(envelope.Tombstone, n.entry.Evidence[0])
		if err == nil {
			err = proto.Unmarshal(opened.Payload, t)
		}
		p, perr := parsePeriod(strings.TrimPrefix(n.name, erasedPrefix))
		if err != nil || perr != nil || t.Period != p.String() {
			return nil, nil, fmt.Errorf("%w: %s is no tombstone of that month: restore it", ErrCorrupt, n.name)
		}
		erased[p] = erasureOf(t, n.entry.Evidence[0])
	}
	return erased, notes, nil
}

// admit keeps out entries of months that take none any more, and tells them.
func (r *keyRing) admit(group []*pending) []*pending {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.closed)+len(r.erased) == 0 {
		return group
	}
	return slices.DeleteFunc(group, func(p *pending) bool {
		m := periodOf(p.terms.time)
		no := r.closed[m] || r.erased[m] != nil
		if no {
			p.done <- fmt.Errorf("%w: the entries of its month, %s, were erased or are being so", ErrRefused, m)
		}
		return no
	})
}

func (r *keyRing) erasure(p period) *Erasure {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.erased[p]
}

func (r *keyRing) isErased(p period) bool { return r.erasure(p) != nil }

func (r *keyRing) isClosed(p period) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.closed[p] || r.erased[p] != nil
}

func (r *keyRing) erasedMonths() []period {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var ps []period
	for p := range r.erased {
		ps = append(ps, p)
	}
	slices.Sort(ps)
	return ps
}

func (r *keyRing) close(p period) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed[p] = true
}

func (r *keyRing) reopen(p period) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.closed, p)
}

// bury puts a tombstone in the place of a key.
func (r *keyRing) bury(p period, e *Erasure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, p)
	delete(r.closed, p)
	r.erased[p] = e
}

// destroy overwrites and removes a month's key file; it may be gone already. A rename
// could leave the old blocks readable, so the file itself is written over.
func (r *keyRing) destroy(p period) error {
	name := keyPrefix + p.String()
	f, err := r.fs.Open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	noise := make([]byte, keyFileSize)
	rand.Read(noise)
	if _, err := f.WriteAt(noise, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := r.fs.Remove(name); err != nil {
		return err
	}
	return r.fs.SyncDir()
}

// extent gives how many entries a month has, the first and the last.
func (x *index) extent(p period) (*nodepb.Tombstone, error) {
	t := new(nodepb.Tombstone)
	prefix, ok := x.prefix(p, byTime, "")
	if !ok {
		return t, nil
	}
	err := x.each(prefix, 0, math.MaxInt64, false, func(e posted) (bool, error) {
		if t.Entries == 0 || e.sequence < t.First {
			t.First = e.sequence
		}
		t.Last = max(t.Last, e.sequence)
		t.Entries++
		return true, nil
	})
	return t, err
}

// drop removes all rows of a month. It stops nothing else: Badger's own dropping
// would refuse the indexer's writes meanwhile.
func (x *index) drop(p period) error {
	prefix := binary.BigEndian.AppendUint32(nil, uint32(p))
	for more := true; more; {
		err := x.db.Update(func(tx *badger.Txn) error {
			it := tx.NewIterator(badger.IteratorOptions{Prefix: prefix})
			defer it.Close()
			n := 0
			for it.Rewind(); it.Valid() && n < rowsPerTxn; it.Next() {
				if err := tx.Delete(it.Item().KeyCopy(nil)); err != nil {
					return err
				}
				n++
			}
			if more = it.Valid(); more {
				return nil
			}
			return tx.Delete(append(slices.Clone(metaMonth), prefix...))
		})
		if err != nil {
			return fmt.Errorf("remove the rows of %s from the index: %w", p, err)
		}
	}
	return nil
}

// dropErased removes the rows of erased months that a crash left.
func (x *index) dropErased() error {
	for _, p := range x.keys.erasedMonths() {
		if err := x.drop(p); err != nil {
			return err
		}
	}
	return nil
}
