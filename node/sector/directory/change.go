package directory

import (
	"bytes"
	"cmp"
	"errors"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// row is what stands under one number.
type row struct {
	references []Reference // sorted
	successor  subject.ID  // zero: none
	former     []subject.ID
}

func (r *row) empty() bool {
	return len(r.references) == 0 && r.successor.IsZero() && len(r.former) == 0
}

func compare(a, b Reference) int {
	return cmp.Or(cmp.Compare(a.Period.From, b.Period.From), cmp.Compare(a.Period.Until, b.Period.Until),
		cmp.Compare(a.Member, b.Member), cmp.Compare(a.Quality, b.Quality), bytes.Compare(a.Subject.Key(), b.Subject.Key()))
}

func read(tx *badger.Txn, id subject.ID) (*row, error) {
	item, err := tx.Get(rowKey(id))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return new(row), nil
	}
	if err != nil {
		return nil, err
	}
	var r *row
	err = item.Value(func(raw []byte) (err error) {
		r, err = decodeRow(id, raw)
		return err
	})
	return r, err
}

// decodeRow reads what encode writes, and nothing else.
func decodeRow(id subject.ID, raw []byte) (*row, error) {
	p := new(nodepb.SectorRow)
	if len(raw) > maxRow || proto.Unmarshal(raw, p) != nil || len(p.GetReferences()) > maxReferences || len(p.GetFormer()) > MaxFamily {
		return nil, ErrCorrupt
	}
	r := new(row)
	for i, f := range p.GetReferences() {
		ref := Reference{id, names.InstitutionID(f.GetMember()), names.Quality(f.GetQuality()), period(f.GetPeriod())}
		if ref.check() != nil || i > 0 && compare(r.references[i-1], ref) >= 0 {
			return nil, ErrCorrupt
		}
		r.references = append(r.references, ref)
	}
	if s := p.GetSuccessor(); s != nil {
		r.successor = idOf(s)
	}
	for _, s := range p.GetFormer() {
		r.former = append(r.former, idOf(s))
	}
	for _, other := range append(r.former, r.successor) {
		if other == id || len(other.Number()) > 63 || len(other.Scheme()) > 63 {
			return nil, ErrCorrupt
		}
	}
	return r, nil
}

func (r *row) encode() ([]byte, error) {
	p := new(nodepb.SectorRow)
	for _, f := range r.references {
		p.References = append(p.References, &nodepb.SectorReference{
			Member: string(f.Member), Quality: string(f.Quality), Period: protoPeriod(f.Period)})
	}
	if !r.successor.IsZero() {
		p.Successor = protoSubject(r.successor)
	}
	for _, id := range r.former {
		p.Former = append(p.Former, protoSubject(id))
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(p)
}

func (r Reference) check() error {
	return errors.Join(r.Member.Validate(), r.Quality.Validate(), r.Period.Validate())
}

// draft is a change being judged: rows as it would leave them.
type draft struct {
	tx   *badger.Txn
	rows map[subject.ID]*row
}

func (d *draft) row(id subject.ID) (*row, error) {
	if r, ok := d.rows[id]; ok {
		return r, nil
	}
	r, err := read(d.tx, id)
	if err == nil {
		d.rows[id] = r
	}
	return r, err
}

// family gives every number of a subject: those that replaced it, and those it replaced.
func (d *draft) family(id subject.ID) (all []subject.ID, err error) {
	all = []subject.ID{id}
	for i := 0; i < len(all); i++ {
		r, err := d.row(all[i])
		if err != nil {
			return nil, err
		}
		for _, other := range append(slices.Clone(r.former), r.successor) {
			if !other.IsZero() && !slices.Contains(all, other) {
				all = append(all, other)
			}
		}
		if len(all) > MaxFamily {
			return nil, refuse("more than %d numbers of one subject", MaxFamily)
		}
	}
	return all, nil
}

// Check says whether a change would be accepted as the directory stands now.
func (d *Directory) Check(changes []Change) error {
	return d.db.View(func(tx *badger.Txn) error {
		_, err := d.judge(tx, changes)
		return err
	})
}

// Change makes all changes in one durable step, or none: then the error wraps
// ErrRefused, or comes from the disk. A reference that stands already is no error.
func (d *Directory) Change(changes []Change) error {
	d.changes.Lock()
	defer d.changes.Unlock()
	return d.db.Update(func(tx *badger.Txn) error {
		done, err := d.judge(tx, changes)
		if err != nil {
			return err
		}
		return done.write()
	})
}

func (d *draft) write() error {
	for id, r := range d.rows {
		if r.empty() {
			if err := d.tx.Delete(rowKey(id)); err != nil {
				return err
			}
			continue
		}
		raw, err := r.encode()
		if err != nil {
			return err
		}
		if err := d.tx.Set(rowKey(id), raw); err != nil {
			return err
		}
	}
	return nil
}

func (d *Directory) judge(tx *badger.Txn, changes []Change) (*draft, error) {
	if len(changes) == 0 || len(changes) > MaxChanges {
		return nil, refuse("%d rows in one change, want 1 to %d", len(changes), MaxChanges)
	}
	s := &draft{tx: tx, rows: make(map[subject.ID]*row)}
	for _, removing := range []bool{true, false} {
		for i, c := range changes {
			if c.Remove != removing {
				continue
			}
			if err := d.form(tx, i+1, c); err != nil {
				return nil, err
			}
			take := s.add
			if removing {
				take = s.remove
			}
			if err := take(i+1, c.Reference); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// form judges a row by itself.
func (d *Directory) form(tx *badger.Txn, n int, c Change) error {
	if id, err := d.schemes.Parse(c.Subject.Scheme(), c.Subject.Number()); err != nil || id != c.Subject {
		return refuse("row %d: the number is not well formed, or not in its canonical form", n)
	}
	if err := c.check(); err != nil {
		return refuse("row %d: %v", n, err)
	}
	if _, ok, err := member(tx, c.Member); err != nil {
		return err
	} else if !ok {
		return refuse("row %d: %s is no member of the sector; admit it first: crossroads sector members set", n, c.Member)
	}
	return nil
}

func (d *draft) remove(n int, ref Reference) error {
	r, err := d.row(ref.Subject)
	if err != nil {
		return err
	}
	at, found := slices.BinarySearchFunc(r.references, ref, compare)
	if !found {
		return refuse("row %d: there is no such reference to take away; quality, period and institution must be exactly those that stand there", n)
	}
	r.references = slices.Delete(r.references, at, at+1)
	return nil
}

func (d *draft) add(n int, ref Reference) error {
	family, err := d.family(ref.Subject)
	if err != nil {
		return err
	}
	for _, id := range family {
		r, err := d.row(id)
		if err != nil {
			return err
		}
		for _, other := range r.references {
			if other.Member != ref.Member && other.Quality == ref.Quality && other.Period.Overlaps(ref.Period) {
				return refuse("row %d: on some of these days the subject is with another institution in this quality; end that reference first, in the same change if you like", n)
			}
		}
	}
	r, err := d.row(ref.Subject)
	if err != nil {
		return err
	}
	at, found := slices.BinarySearchFunc(r.references, ref, compare)
	if found {
		return nil
	}
	if len(r.references) >= maxReferences {
		return refuse("row %d: more than %d references under one number", n, maxReferences)
	}
	r.references = slices.Insert(r.references, at, ref)
	return nil
}

// Replace says that a number was replaced by another. What stands under either is
// found by both from then on. Saying it again is no error.
func (d *Directory) Replace(old, successor subject.ID) error {
	for _, id := range []subject.ID{old, successor} {
		if parsed, err := d.schemes.Parse(id.Scheme(), id.Number()); err != nil || parsed != id {
			return refuse("a number is not well formed, or not in its canonical form")
		}
	}
	if old == successor || old.Scheme() != successor.Scheme() {
		return refuse("a number is replaced by another one of the same scheme")
	}
	d.changes.Lock()
	defer d.changes.Unlock()
	return d.db.Update(func(tx *badger.Txn) error {
		s := &draft{tx: tx, rows: make(map[subject.ID]*row)}
		if err := s.replace(old, successor); err != nil {
			return err
		}
		return s.write()
	})
}

func (d *draft) replace(old, successor subject.ID) error {
	from, err := d.row(old)
	if err != nil {
		return err
	}
	if from.successor == successor {
		return nil
	}
	if !from.successor.IsZero() {
		return refuse("this number was replaced by another one already")
	}
	to, err := d.row(successor)
	if err != nil {
		return err
	}
	olds, err := d.family(old)
	if err != nil {
		return err
	}
	if slices.Contains(olds, successor) {
		return refuse("the second number is a former one of the same subject")
	}
	news, err := d.family(successor)
	if err != nil {
		return err
	}
	if len(olds)+len(news) > MaxFamily {
		return refuse("more than %d numbers of one subject", MaxFamily)
	}
	if err := d.agree(olds, news); err != nil {
		return err
	}
	from.successor = successor
	to.former = append(to.former, old)
	return nil
}

// agree insists that two numbers that become one subject's are not with two members on
// one day.
func (d *draft) agree(olds, news []subject.ID) error {
	for _, a := range olds {
		ra, err := d.row(a)
		if err != nil {
			return err
		}
		for _, b := range news {
			rb, err := d.row(b)
			if err != nil {
				return err
			}
			for _, x := range ra.references {
				if slices.ContainsFunc(rb.references, func(y Reference) bool {
					return x.Member != y.Member && x.Quality == y.Quality && x.Period.Overlaps(y.Period)
				}) {
					return refuse("under the two numbers the subject is with two institutions on the same day; end one of the references first")
				}
			}
		}
	}
	return nil
}
