package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// DefaultLimit is how many entries Find gives when the query sets no limit.
const DefaultLimit = 1000

// Query says which entries are wanted. An entry must match every field that is
// set; the zero Query matches all.
type Query struct {
	Ticket    names.Ticket
	Subject   subject.ID
	User      names.UserID
	Requester names.InstitutionID // whose user it was: users are unique within it
	// From and Until bound the entry's time: From <= time < Until.
	From, Until time.Time
	// Limit is the greatest number of entries given. 0: DefaultLimit.
	Limit int
	// NewestFirst turns the order round. It is else that of the entries' times,
	// and for equal times that of writing.
	NewestFirst bool
}

// Stored is an entry as it lies in the journal, with what proves it.
type Stored struct {
	Sequence   uint64
	Entry      *nodepb.Entry
	Raw        []byte // Entry, exactly the bytes that were committed to
	Salt       [SaltSize]byte
	Commitment [CommitmentSize]byte
}

// Proto gives the form in which entries travel.
func (s Stored) Proto() *nodepb.StoredEntry {
	return &nodepb.StoredEntry{Sequence: s.Sequence, Entry: s.Raw, Salt: s.Salt[:], Commitment: s.Commitment[:]}
}

// Find gives the entries that match q, among them every entry whose Append had
// returned before. The
// error wraps ErrCorrupt when a matching entry cannot be read, and then no
// entries are given: half an account is none. Entries of erased months are not found;
// Erasures tells which months those are.
func (j *Journal) Find(ctx context.Context, q Query) ([]Stored, error) {
	j.open.RLock()
	defer j.open.RUnlock()
	if j.closed {
		return nil, errClosed
	}
	if err := j.index.wait(ctx, j.durable.Load()); err != nil {
		return nil, err
	}
	if q.Limit <= 0 {
		q.Limit = DefaultLimit
	}
	s := &search{Query: q, journal: j, files: map[uint64]disk.File{}}
	defer s.close()
	months := j.keys.periods()
	for i := range months {
		month := months[i]
		if q.NewestFirst {
			month = months[len(months)-1-i]
		}
		if err := s.month(ctx, month); err != nil {
			return nil, err
		}
	}
	return s.found, nil
}

// search is one Find under way.
type search struct {
	Query
	journal *Journal
	files   map[uint64]disk.File // open segments
	found   []Stored
}

func (s *search) close() {
	for _, f := range s.files {
		f.Close()
	}
}

// term gives the narrowest index that serves the query.
func (s *search) term() (kind byte, term string) {
	switch {
	case s.Ticket != "":
		return byTicket, string(s.Ticket)
	case !s.Subject.IsZero():
		return bySubject, string(s.Subject.Key())
	case s.User != "":
		return byUser, string(s.User)
	}
	return byTime, ""
}

// month adds the matches of one month.
func (s *search) month(ctx context.Context, month period) error {
	if !s.From.IsZero() && month < periodOf(s.From) || !s.Until.IsZero() && month > periodOf(s.Until) {
		return nil
	}
	kind, term := s.term()
	prefix, ok := s.journal.index.prefix(month, kind, term)
	if !ok {
		return nil // erased since we asked which months there are
	}
	return s.journal.index.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.IteratorOptions{PrefetchValues: true, PrefetchSize: 100, Prefix: prefix, Reverse: s.NewestFirst})
		defer it.Close()
		for it.Seek(s.start(prefix)); it.Valid() && len(s.found) < s.Limit; it.Next() {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			at, sequence, when, err := readRow(it.Item(), len(prefix))
			if err != nil {
				return err
			}
			if s.NewestFirst && !s.From.IsZero() && when.Before(s.From) || !s.NewestFirst && !s.Until.IsZero() && !when.Before(s.Until) {
				return nil
			}
			e, err := s.read(at, sequence)
			if errors.Is(err, ErrErased) {
				return nil
			}
			if err != nil {
				return err
			}
			if s.matches(e.Entry) {
				s.found = append(s.found, e)
			}
		}
		return nil
	})
}

// start gives the key at which to begin.
func (s *search) start(prefix []byte) []byte {
	switch {
	case !s.NewestFirst && !s.From.IsZero() && s.From.After(earliest):
		return rowKey(prefix, s.From, 0)
	case !s.NewestFirst:
		return prefix
	case !s.Until.IsZero() && s.Until.Before(latest):
		return rowKey(prefix, s.Until.Add(time.Millisecond), 0) // Until may lie within a millisecond
	}
	return append(bytes.Clone(prefix), bytes.Repeat([]byte{0xff}, tailSize+1)...)
}

func readRow(item *badger.Item, prefix int) (at location, sequence uint64, when time.Time, err error) {
	k := item.Key()
	err = item.Value(func(v []byte) error {
		if len(k) != prefix+tailSize || len(v) != valueSize {
			return fmt.Errorf("%w: a row of the index is malformed: delete the index, it is rebuilt", ErrCorrupt)
		}
		at = location{binary.BigEndian.Uint64(v), int64(binary.BigEndian.Uint64(v[8:]))}
		return nil
	})
	if err != nil {
		return at, 0, when, err
	}
	when = time.UnixMilli(int64(binary.BigEndian.Uint64(k[prefix:])))
	return at, binary.BigEndian.Uint64(k[prefix+8:]), when, nil
}

func (s *search) matches(e *nodepb.Entry) bool {
	t := termsOf(e)
	return (s.Ticket == "" || t.ticket == string(s.Ticket)) &&
		(s.Subject.IsZero() || slices.Contains(t.subjects, string(s.Subject.Key()))) &&
		(s.User == "" || t.user == string(s.User)) &&
		(s.Requester == "" || e.GetRequester().GetInstitution() == string(s.Requester)) &&
		(s.From.IsZero() || !t.time.Before(s.From)) &&
		(s.Until.IsZero() || t.time.Before(s.Until))
}

// read gives the entry at a place, after checking that it is that entry.
func (s *search) read(at location, sequence uint64) (Stored, error) {
	f := s.files[at.segment]
	if f == nil {
		var err error
		if f, err = s.journal.fs.Open(segmentName(at.segment), false); err != nil {
			return Stored{}, err
		}
		s.files[at.segment] = f
	}
	b := make([]byte, headerSize, 1024)
	if _, err := f.ReadAt(b, at.offset); err != nil {
		return Stored{}, corrupt(at, sequence, err)
	}
	h, err := parseHeader(b)
	if err != nil || h.sequence != sequence {
		return Stored{}, corrupt(at, sequence, errHeader)
	}
	b = append(b, make([]byte, h.size()-headerSize)...)
	if _, err := f.ReadAt(b[headerSize:], at.offset+headerSize); err != nil {
		return Stored{}, corrupt(at, sequence, err)
	}
	if h, err = parseRecord(b); err != nil {
		return Stored{}, corrupt(at, sequence, err)
	}
	return s.journal.decrypt(at, h, b)
}

// decrypt opens a record whose checksums are right.
func (j *Journal) decrypt(at location, h header, b []byte) (Stored, error) {
	key := j.keys.get(h.period)
	if key == nil {
		return Stored{}, j.keys.missing(h.period)
	}
	salt, raw, err := openRecord(b, h, key.aead)
	if err != nil {
		return Stored{}, corrupt(at, h.sequence, err)
	}
	e := new(nodepb.Entry)
	if err := proto.Unmarshal(raw, e); err != nil {
		return Stored{}, corrupt(at, h.sequence, errors.New("it is no entry"))
	}
	return Stored{Sequence: h.sequence, Entry: e, Raw: raw, Salt: salt, Commitment: h.commitment}, nil
}

// Verify reads the whole journal as it was at the call and checks every record:
// that none is missing, that each decrypts, and that each is what was committed
// to; of entries that were erased, that their records are whole. It gives how many it read. The error wraps ErrCorrupt and says where.
func (j *Journal) Verify(ctx context.Context) (uint64, error) {
	j.open.RLock()
	defer j.open.RUnlock()
	if j.closed {
		return 0, errClosed
	}
	var n uint64
	err := j.scanAll(0, j.durable.Load(), func(at location, h header, b []byte) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n++
		if _, err := j.decrypt(at, h, b); !errors.Is(err, ErrErased) {
			return err
		}
		return nil
	})
	return n, err
}
