package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Rows of the index:
//
//	period (4) ‖ kind (1) ‖ keyed hash of the term (16; none for kind all) ‖ second (8) ‖ sequence of the first entry (8)
//	  → for each entry: its sequence less that of the one before ‖ ms within the second ‖
//	    its sequence less that of its file's first ‖ offset in the file
//
// big-endian, and varints in the value. What was committed within the same second
// under one term and goes into the index together shares a row. Rows of one term lie
// in order of time, but for those of the same second, which are read together. An entry
// may stand in two rows of one second, after a crash; it counts once. The hash is keyed
// per period: with the period's key gone, its rows tell nothing any more.
const (
	byTicket  byte = 't'
	bySubject byte = 's'
	byUser    byte = 'u'
	byTime    byte = 'a'

	// Kinds of which terms share rows: see many.go and crowd.go.
	amongMany       byte = 'm'
	crowdedTickets  byte = 'T'
	crowdedSubjects byte = 'S'

	macSize  = 16
	tailSize = 16 // second and sequence
)

// posted is an entry as the index knows it.
type posted struct {
	when     int64 // ms since 1970
	sequence uint64
	at       location
}

// postingKey is what entries must have in common to share a row.
type postingKey struct {
	month  period
	kind   byte
	mac    [macSize]byte
	second int64
}

func (k postingKey) row(first uint64) []byte {
	b := appendPrefix(make([]byte, 0, 5+macSize+tailSize), k.month, k.kind, k.mac)
	b = binary.BigEndian.AppendUint64(b, uint64(k.second))
	return binary.BigEndian.AppendUint64(b, first)
}

func appendPrefix(b []byte, month period, kind byte, mac [macSize]byte) []byte {
	b = append(binary.BigEndian.AppendUint32(b, uint32(month)), kind)
	switch kind {
	case byTime:
	case amongMany:
		b = append(b, mac[0])
	case crowdedTickets, crowdedSubjects:
		b = append(b, mac[0], mac[1]&crowdMask)
	default:
		b = append(b, mac[:]...)
	}
	return b
}

// posting is one row in the making.
type posting struct {
	first, last uint64
	value       []byte
	before      *posting // a full row of the same key
}

// maxPosting keeps a row well below what the database keeps apart from its keys, where
// it would not be reclaimed.
const maxPosting = 32 << 10

func (p *posting) add(r row, ms int64) {
	if p.value == nil {
		p.first, p.last = r.sequence, r.sequence
		p.value = make([]byte, 0, 12)
	}
	b := binary.AppendUvarint(p.value, r.sequence-p.last)
	b = binary.AppendUvarint(b, uint64(ms))
	b = binary.AppendUvarint(b, r.sequence-r.at.segment)
	p.value = binary.AppendUvarint(b, uint64(r.at.offset))
	p.last = r.sequence
}

// postings gathers the rows for consecutive entries.
func (x *index) postings(rows []row) (map[postingKey]*posting, map[period]bool) {
	made, months, full := make(map[postingKey]*posting), map[period]bool{}, crowds(rows)
	users := make(map[string][macSize]byte) // few, and often the same; of one month
	var usersOf period
	for _, r := range rows {
		month := periodOf(r.terms.time)
		secret := x.keys.get(month)
		if secret == nil {
			continue // erased meanwhile
		}
		months[month] = true
		ms := r.terms.time.UnixMilli()
		crowded := full[ms/1000]
		add := func(kind byte, mac [macSize]byte) {
			k := postingKey{month: month, kind: kind, mac: mac, second: ms / 1000}
			p := made[k]
			if p == nil || len(p.value) > maxPosting {
				p = &posting{before: p}
				made[k] = p
			}
			p.add(r, ms%1000)
		}
		add(byTime, [macSize]byte{})
		switch {
		case r.terms.ticket == "":
		case crowded:
			addCrowded(made, month, crowdedTickets, secret.mac(byTicket, r.terms.ticket), r)
		default:
			add(byTicket, secret.mac(byTicket, r.terms.ticket))
		}
		if r.terms.user != "" {
			if usersOf != month {
				clear(users)
				usersOf = month
			}
			mac, ok := users[r.terms.user]
			if !ok {
				mac = secret.mac(byUser, r.terms.user)
				users[r.terms.user] = mac
			}
			add(byUser, mac)
		}
		for _, s := range r.terms.subjects {
			if crowded {
				addCrowded(made, month, crowdedSubjects, secret.mac(bySubject, s), r)
			} else {
				add(bySubject, secret.mac(bySubject, s))
			}
		}
		if len(r.terms.many) > 0 {
			addMany(made, month, secret, r)
		}
	}
	return made, months
}

// put writes the rows of consecutive entries, and then that they are there.
func (x *index) put(rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	made, months := x.postings(rows)
	tx := x.db.NewTransaction(true)
	defer func() { tx.Discard() }()
	x.safe = max(x.safe, x.flusher.safe.Load())
	set := func(n int, key, value []byte) error {
		if n > 0 && n%rowsPerTxn == 0 { // writing twice after a crash does no harm
			if err := tx.Commit(); err != nil {
				return err
			}
			tx = x.db.NewTransaction(true)
		}
		return tx.Set(key, value)
	}
	n := 0
	for k, p := range made {
		for ; p != nil; p = p.before {
			if err := set(n, k.row(p.first), p.value); err != nil {
				return err
			}
			n++
		}
	}
	for m := range months {
		if err := set(n, binary.BigEndian.AppendUint32(bytes.Clone(metaMonth), uint32(m)), nil); err != nil {
			return err
		}
		n++
	}
	if err := set(n, metaSafe, binary.BigEndian.AppendUint64(nil, x.safe)); err != nil {
		return err
	}
	if err := set(n+1, metaNext, binary.BigEndian.AppendUint64(nil, rows[len(rows)-1].sequence+1)); err != nil {
		return err
	}
	return tx.Commit()
}

// prefix gives what all rows of one term in one month begin with; not when the month
// was erased.
func (x *index) prefix(month period, kind byte, term string) ([]byte, bool) {
	key := x.keys.get(month)
	if key == nil {
		return nil, false
	}
	var mac [macSize]byte
	if kind != byTime {
		mac = key.mac(kind, term)
	}
	return appendPrefix(make([]byte, 0, 5+macSize+tailSize), month, kind, mac), true
}

// each gives fn the entries of one term in order of time, and of sequence where the
// times are equal, between from and until (ms), or the other way round. fn returns
// false to end it.
func (x *index) each(prefix []byte, from, until int64, reverse bool, fn func(posted) (bool, error)) error {
	return x.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{PrefetchValues: true, PrefetchSize: 100, Prefix: prefix, Reverse: reverse})
		defer it.Close()
		begin := binary.BigEndian.AppendUint64(bytes.Clone(prefix), uint64(from/1000))
		if reverse {
			begin = binary.BigEndian.AppendUint64(bytes.Clone(prefix), uint64(until/1000))
			begin = append(begin, bytes.Repeat([]byte{0xff}, 9)...)
		}
		it.Seek(begin)
		for it.Valid() {
			second, list, err := nextSecond(it, len(prefix))
			if err != nil {
				return err
			}
			if !reverse && second*1000 >= until || reverse && second*1000+999 < from {
				return nil
			}
			if reverse {
				slices.Reverse(list)
			}
			for _, p := range list {
				if p.when < from || p.when >= until {
					continue
				}
				if more, err := fn(p); err != nil || !more {
					return err
				}
			}
		}
		return nil
	})
}

// nextSecond reads all rows of the second that the iterator stands on.
func nextSecond(it *badger.Iterator, prefix int) (second int64, list []posted, err error) {
	for ; it.Valid(); it.Next() {
		k := it.Item().Key()
		if len(k) != prefix+tailSize {
			return 0, nil, errRow
		}
		at := int64(binary.BigEndian.Uint64(k[prefix:]))
		if len(list) > 0 && at != second {
			break
		}
		second = at
		err := it.Item().Value(func(v []byte) error {
			list, err = readPosting(list, second, binary.BigEndian.Uint64(k[prefix+8:]), v)
			return err
		})
		if err != nil {
			return 0, nil, err
		}
	}
	slices.SortFunc(list, func(a, b posted) int {
		return cmp.Or(cmp.Compare(a.when, b.when), cmp.Compare(a.sequence, b.sequence))
	})
	return second, slices.CompactFunc(list, func(a, b posted) bool { return a.sequence == b.sequence }), nil
}

var errRow = fmt.Errorf("%w: a row of the index is malformed: delete the index, it is rebuilt", ErrCorrupt)

// readPosting adds the entries of one row to list.
func readPosting(list []posted, second int64, sequence uint64, v []byte) ([]posted, error) {
	if len(v) == 0 || second < 0 || second > math.MaxInt64/1000-1 {
		return nil, errRow
	}
	for len(v) > 0 {
		var f [4]uint64
		for i := range f {
			n := 0
			if f[i], n = binary.Uvarint(v); n <= 0 {
				return nil, errRow
			}
			v = v[n:]
		}
		sequence += f[0]
		if f[1] >= 1000 || f[2] > sequence || f[3] > math.MaxInt64 {
			return nil, errRow
		}
		list = append(list, posted{second*1000 + int64(f[1]), sequence, location{sequence - f[2], int64(f[3])}})
	}
	return list, nil
}

// millis gives a bound of a query in ms, rounded up: an entry's time is whole.
func millis(t time.Time, absent int64) int64 {
	switch {
	case t.IsZero():
		return absent
	case t.Before(earliest):
		return 0
	case t.After(latest):
		return latest.UnixMilli()
	}
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}
