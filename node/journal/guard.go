package journal

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Limits of an entry, in bytes where nothing else is said.
const (
	MaxEntry    = 128 << 10
	MaxDetail   = 200
	MaxEvidence = 4 // envelopes: request, clearance, answer, second clearance
	// MaxLotSubjects is how many subjects an entry on a chunk of a lot may be about.
	MaxLotSubjects = 8192
	// MaxAlsoSubjects is how many numbers an entry may be about beside its subject's.
	MaxAlsoSubjects = 16
)

// Entries carry a time within these bounds, so that a month can be named.
var (
	earliest = time.UnixMilli(1)
	latest   = time.Date(9999, 12, 1, 0, 0, 0, 0, time.UTC)
)

// pending is an entry on its way to the disk.
type pending struct {
	entry      []byte
	salt       [SaltSize]byte
	commitment [CommitmentSize]byte
	terms      terms
	sequence   uint64     // set by the writer before done
	done       chan error // takes one outcome; set by who waits for it
}

// prepare checks an entry and computes all that does not depend on its place.
func prepare(e *nodepb.Entry) (*pending, error) {
	if err := guard(e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if len(raw) > MaxEntry {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are taken", ErrRefused, len(raw), MaxEntry)
	}
	p := &pending{entry: raw, terms: termsOf(e)}
	rand.Read(p.salt[:])
	p.commitment = EntryCommitment(p.salt, raw)
	return p, nil
}

// guard keeps out what is no entry, and what could carry content or a subject's
// number where none belongs.
func guard(e *nodepb.Entry) error {
	switch {
	case e == nil:
		return fmt.Errorf("there is none")
	case e.Role == nodepb.Role_ROLE_UNSPECIFIED || e.Event == nodepb.Event_EVENT_UNSPECIFIED:
		return fmt.Errorf("it names no role or no event")
	case e.TimeUnixMs < earliest.UnixMilli() || e.TimeUnixMs >= latest.UnixMilli():
		return fmt.Errorf("its time is missing or out of range")
	case len(e.Detail) > MaxDetail:
		return fmt.Errorf("its detail has %d bytes, at most %d are taken", len(e.Detail), MaxDetail)
	case len(e.Evidence) > MaxEvidence:
		return fmt.Errorf("it rests on %d envelopes, at most %d are taken", len(e.Evidence), MaxEvidence)
	case e.Subject.GetNumber() != "" && strings.Contains(e.Detail, e.Subject.GetNumber()):
		return fmt.Errorf("its detail repeats the subject's number")
	case len(e.AlsoSubjects) > MaxAlsoSubjects:
		return fmt.Errorf("it is about %d other numbers, at most %d are taken", len(e.AlsoSubjects), MaxAlsoSubjects)
	case slices.ContainsFunc(e.AlsoSubjects, func(s *registrypb.Subject) bool {
		return s.GetNumber() == "" || strings.Contains(e.Detail, s.GetNumber())
	}):
		return fmt.Errorf("its detail repeats the number of another subject, or one is empty")
	case len(e.ProtoReflect().GetUnknown()) > 0:
		return fmt.Errorf("it has fields that are not known here")
	case len(e.GetSecondClearance().GetId()) > 32 || e.SecondClearance != nil && len(e.SecondClearance.Hash) != 32:
		return fmt.Errorf("its second clearance has an id of more than 32 bytes, or no hash of 32")
	case len(e.ClearanceId) > 32:
		return fmt.Errorf("its clearance id has %d bytes, at most 32 are taken", len(e.ClearanceId))
	}
	if err := guardLot(e.GetLot()); err != nil {
		return err
	}
	for _, h := range [][]byte{e.RequestHash, e.ClearanceHash, e.AnswerCommitment} {
		if len(h) != 0 && len(h) != 32 {
			return fmt.Errorf("one of its hashes has %d bytes, want 32", len(h))
		}
	}
	return nil
}

// guardLot keeps out lists of subjects that are not as they should be.
func guardLot(l *nodepb.LotPart) error {
	n := 0
	for _, g := range l.GetGroups() {
		if err := packed.CheckForm(g.GetSubjects(), MaxLotSubjects); err != nil {
			return err
		}
		n += packed.Len(g.Subjects)
	}
	if n > MaxLotSubjects {
		return fmt.Errorf("it is about %d subjects of a lot, at most %d are taken", n, MaxLotSubjects)
	}
	return nil
}

// InLot gives how a subject fared in a chunk of a lot that an entry tells of; nil when it
// is not one of its subjects.
func InLot(e *nodepb.Entry, id subject.ID) *nodepb.LotSubjects {
	for _, g := range e.GetLot().GetGroups() {
		if packed.Find(g.GetSubjects(), id) >= 0 {
			return g
		}
	}
	return nil
}

// terms is what an entry can be found by.
type terms struct {
	time     time.Time
	ticket   string
	subjects []string // subject.ID.Key of each number it is about
	many     []*registrypb.Subjects
	user     string
}

func termsOf(e *nodepb.Entry) terms {
	t := terms{time: time.UnixMilli(e.TimeUnixMs), ticket: e.Ticket, user: e.User}
	for _, s := range append([]*registrypb.Subject{e.Subject}, e.AlsoSubjects...) {
		if s == nil {
			continue
		}
		key := string(subject.Raw(subject.Scheme(s.Scheme), s.Number).Key())
		if !slices.Contains(t.subjects, key) {
			t.subjects = append(t.subjects, key)
		}
	}
	for _, g := range e.GetLot().GetGroups() {
		t.many = append(t.many, g.GetSubjects())
	}
	return t
}
