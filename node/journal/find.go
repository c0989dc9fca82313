package journal

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

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
		if len(s.found) == s.Limit {
			break
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
	from, until := millis(s.From, 0), millis(s.Until, math.MaxInt64)
	add := func(p posted) (bool, error) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		e, err := s.read(p.at, p.sequence)
		if errors.Is(err, ErrErased) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if s.matches(e.Entry) {
			s.found = append(s.found, e)
		}
		return len(s.found) < s.Limit, nil
	}
	many, err := s.journal.index.among(month, kind, term, from, until)
	if err != nil {
		return err
	}
	m := merge{rest: many, reverse: s.NewestFirst, add: add}
	if err := s.journal.index.each(prefix, from, until, s.NewestFirst, m.next); err != nil {
		return err
	}
	return m.end()
}

func (s *search) matches(e *nodepb.Entry) bool {
	t := termsOf(e)
	return (s.Ticket == "" || t.ticket == string(s.Ticket)) &&
		(s.Subject.IsZero() || slices.Contains(t.subjects, string(s.Subject.Key())) || InLot(e, s.Subject) != nil) &&
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
