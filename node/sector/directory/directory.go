// Package directory is a sector's own directory: which of the cooperating institutions
// behind a managing body has a file on whom. The registry of the mesh knows of the
// sector only; this store is the managing body's alone, and never leaves its node.
//
//	member     a cooperating institution, and the days on which it is one
//	reference  a member has a file on a subject, in a quality, from .. until
//	number     replaced by another: references follow
//
// On any day a subject is, in one quality, with one member at most: so what comes for
// the subject on a day has one right place. A subject that changes is with one until a
// day and with another from the next.
//
// It lies in Badger, encrypted under the storage key. A change of many rows is one
// durable step, all or nothing. It is refused, with the row and the remedy, when a row
// makes no sense; removals count before additions. The row of a number is
//
//	'r' ‖ scheme ‖ 0 ‖ number   SectorRow
//	'm' ‖ institution           SectorMember
//
// Nothing here journals: whoever changes the directory does so first (package sector).
// A Directory is safe for concurrent use.
package directory

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Limits.
const (
	MaxChanges    = 5_000 // rows in one change
	maxReferences = 256   // under one number
	MaxFamily     = 64    // numbers joined by replacement
	maxRow        = 64 << 10
)

var (
	// ErrRefused is wrapped when a change makes no sense; nothing was changed. The
	// text says which row and what to mend, and never holds a number.
	ErrRefused = errors.New("sector directory: refused")
	// ErrCorrupt means that a row is not what was written.
	ErrCorrupt = errors.New("sector directory: damaged")
)

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// Member is a cooperating institution.
type Member struct {
	Institution names.InstitutionID
	Period      names.Period // in which it is one
}

// Reference is one row: the member has a file on a subject.
type Reference struct {
	Subject subject.ID // the number that the file stands under
	Member  names.InstitutionID
	Quality names.Quality
	Period  names.Period
}

// Change adds a reference, or takes exactly that one away.
type Change struct {
	Reference
	Remove bool
}

// Config says where a directory lies.
type Config struct {
	Dir     string // empty: in memory, for tests
	Key     []byte // the node's storage key
	Schemes subject.Schemes
	Log     *slog.Logger
}

// Directory is an open sector directory.
type Directory struct {
	db      *badger.DB
	schemes subject.Schemes
	changes sync.Mutex // one change at a time: each is judged by what the last left
}

// Open opens or makes a directory. The caller closes it.
func Open(cfg Config) (*Directory, error) {
	db, err := badgerdb.Open(badgerdb.Config{Dir: cfg.Dir, Key: cfg.Key, MemTableMB: 16, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("sector directory: %w", err)
	}
	return &Directory{db: db, schemes: cfg.Schemes}, nil
}

// Close closes the files.
func (d *Directory) Close() error { return d.db.Close() }

func memberKey(i names.InstitutionID) []byte { return append([]byte{'m'}, i...) }
func rowKey(id subject.ID) []byte            { return append([]byte{'r'}, id.Key()...) }

// SetMember admits a member, or changes its days. One that has references outside its
// new days keeps them; they give no route any more.
func (d *Directory) SetMember(m Member) error {
	if err := errors.Join(m.Institution.Validate(), m.Period.Validate()); err != nil {
		return refuse("%v", err)
	}
	d.changes.Lock()
	defer d.changes.Unlock()
	raw, err := proto.Marshal(&nodepb.SectorMember{Institution: string(m.Institution), Period: protoPeriod(m.Period)})
	if err != nil {
		return err
	}
	return d.db.Update(func(tx *badger.Txn) error { return tx.Set(memberKey(m.Institution), raw) })
}

// Members gives all members that there ever were, in order of id.
func (d *Directory) Members() (all []Member, err error) {
	err = d.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{Prefix: []byte{'m'}, PrefetchValues: true, PrefetchSize: 16})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			m, err := readMember(it.Item())
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		return nil
	})
	return all, err
}

// Member gives one member; false: there is none.
func (d *Directory) Member(i names.InstitutionID) (m Member, ok bool, err error) {
	err = d.db.View(func(tx *badger.Txn) error {
		m, ok, err = member(tx, i)
		return err
	})
	return m, ok, err
}

func member(tx *badger.Txn, i names.InstitutionID) (m Member, ok bool, err error) {
	item, err := tx.Get(memberKey(i))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	m, err = readMember(item)
	return m, err == nil, err
}

func readMember(item *badger.Item) (m Member, err error) {
	return m, item.Value(func(raw []byte) error {
		p := new(nodepb.SectorMember)
		if len(raw) > maxRow || proto.Unmarshal(raw, p) != nil {
			return ErrCorrupt
		}
		m = Member{names.InstitutionID(p.GetInstitution()), period(p.GetPeriod())}
		return nil
	})
}

func period(p *registrypb.Period) names.Period {
	return names.Period{From: names.Date(p.GetFrom()), Until: names.Date(p.GetUntil())}
}

func protoPeriod(p names.Period) *registrypb.Period {
	return &registrypb.Period{From: int32(p.From), Until: int32(p.Until)}
}

func protoSubject(id subject.ID) *registrypb.Subject {
	return &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}

func idOf(s *registrypb.Subject) subject.ID {
	return subject.Raw(subject.Scheme(s.GetScheme()), s.GetNumber())
}
