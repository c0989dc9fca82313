package journal

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Entries on a chunk of a lot are about thousands of subjects. A row for each of them
// would cost more than all else that is done for it, so they share rows by the first
// byte of the keyed hash:
//
//	period (4) ‖ 'm' ‖ first byte of the hash ‖ second (8) ‖ sequence of the first entry (8)
//	  → for each entry: its sequence less that of the one before ‖ ms within the second ‖
//	    its sequence less that of its file's first ‖ offset in the file ‖ how many hashes ‖
//	    bytes 1 to 7 of each
//
// Whoever looks for a subject reads one row in 256 of its months and compares 64 bits;
// that an entry is about the subject is then seen in the entry itself.
const (
	buckets    = 256
	manySuffix = 7
)

// weight is what a row costs the index, in rows of an ordinary entry.
func (r row) weight() int {
	n := 0
	for _, s := range r.terms.many {
		n += packed.Len(s)
	}
	return 1 + n/16
}

// addMany adds the postings of an entry's many subjects.
func addMany(made map[postingKey]*posting, month period, secret *periodKey, r row) {
	var sorted [buckets][]byte
	for _, s := range r.terms.many {
		for _, n := range packed.All(s) {
			m := secret.mac(bySubject, string(subject.Raw(subject.Scheme(s.Scheme), n).Key()))
			sorted[m[0]] = append(sorted[m[0]], m[1:1+manySuffix]...)
		}
	}
	ms := r.terms.time.UnixMilli()
	for b, hashes := range sorted {
		if len(hashes) == 0 {
			continue
		}
		k := postingKey{month: month, kind: amongMany, second: ms / 1000}
		k.mac[0] = byte(b)
		p := made[k]
		if p == nil || len(p.value)+len(hashes) > maxPosting {
			p = &posting{before: p}
			made[k] = p
		}
		p.add(r, ms%1000)
		p.value = binary.AppendUvarint(p.value, uint64(len(hashes)/manySuffix))
		p.value = append(p.value, hashes...)
	}
}

// among gives the entries that may have a term and stand in rows which several terms
// share, in order of time.
func (x *index) among(month period, kind byte, term string, from, until int64) (list []posted, err error) {
	key := x.keys.get(month)
	if key == nil {
		return nil, nil
	}
	mac := key.mac(kind, term)
	for _, shared := range sharing(kind) {
		if list, err = x.shared(list, appendPrefix(nil, month, shared, mac), mac[1:1+manySuffix], from, until); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, compare)
	return slices.CompactFunc(list, func(a, b posted) bool { return a.sequence == b.sequence }), nil
}

// shared adds to list what rows that begin with prefix hold for one hash.
func (x *index) shared(list []posted, prefix, want []byte, from, until int64) ([]posted, error) {
	err := x.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{PrefetchValues: true, PrefetchSize: 100, Prefix: prefix})
		defer it.Close()
		for it.Seek(binary.BigEndian.AppendUint64(slices.Clone(prefix), uint64(from/1000))); it.Valid(); it.Next() {
			k := it.Item().Key()
			if len(k) != len(prefix)+tailSize {
				return errRow
			}
			second := int64(binary.BigEndian.Uint64(k[len(prefix):]))
			if second > math.MaxInt64/1000-1 {
				return errRow
			}
			if second*1000 >= until {
				return nil
			}
			if err := it.Item().Value(func(v []byte) (err error) {
				list, err = readMany(list, second, binary.BigEndian.Uint64(k[len(prefix)+8:]), v, want)
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return slices.DeleteFunc(list, func(p posted) bool { return p.when < from || p.when >= until }), err
}

func compare(a, b posted) int {
	return cmp.Or(cmp.Compare(a.when, b.when), cmp.Compare(a.sequence, b.sequence))
}

// readMany adds the entries of one row among whose hashes is the one wanted.
func readMany(list []posted, second int64, sequence uint64, v, want []byte) ([]posted, error) {
	for len(v) > 0 {
		var f [5]uint64
		for i := range f {
			n := 0
			if f[i], n = binary.Uvarint(v); n <= 0 {
				return nil, errRow
			}
			v = v[n:]
		}
		sequence += f[0]
		if f[1] >= 1000 || f[2] > sequence || f[3] > math.MaxInt64 || f[4] > uint64(len(v)/manySuffix) {
			return nil, errRow
		}
		for i := range int(f[4]) {
			if string(v[i*manySuffix:(i+1)*manySuffix]) == string(want) {
				list = append(list, posted{second*1000 + int64(f[1]), sequence, location{sequence - f[2], int64(f[3])}})
				break
			}
		}
		v = v[int(f[4])*manySuffix:]
	}
	return list, nil
}

// merge puts a list between the entries that next is given, in order of time.
type merge struct {
	rest    []posted // by time
	reverse bool
	add     func(posted) (more bool, err error)
	ended   bool
}

func (m *merge) next(p posted) (bool, error) {
	for len(m.rest) > 0 {
		q := m.rest[0]
		if m.reverse {
			q = m.rest[len(m.rest)-1]
		}
		if c := compare(q, p); m.reverse && c < 0 || !m.reverse && c > 0 {
			break
		} else if c != 0 { // an entry that is found both ways counts once
			if more, err := m.add(q); err != nil || !more {
				m.ended = true
				return false, err
			}
		}
		m.drop()
	}
	more, err := m.add(p)
	m.ended = !more
	return more, err
}

func (m *merge) drop() {
	if m.reverse {
		m.rest = m.rest[:len(m.rest)-1]
	} else {
		m.rest = m.rest[1:]
	}
}

// end adds what comes after all others.
func (m *merge) end() error {
	if m.reverse {
		slices.Reverse(m.rest)
	}
	for _, q := range m.rest {
		if m.ended {
			return nil
		}
		more, err := m.add(q)
		if err != nil {
			return err
		}
		m.ended = !more
	}
	return nil
}
