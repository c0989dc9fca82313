package sector

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// Seals holds a managing body's journal outside, which others witness, against its
// sector's, which nobody else sees: each outcome that is sealed outside must stand within, and
// must rest on what stands there. The records of the journal outside are given first. It
// is used by one goroutine.
type Seals struct {
	outside map[seal]*sealed
	rests   map[[32]byte][][]byte // by the salt that joins them: seals of the parts of an outcome not yet read
	erased  map[string]bool       // months of the sector's journal
	last    time.Time             // of the last entry within
	broken  []Unsealed
}

type seal [sha256.Size]byte

// sealed is an outcome as the journal outside has it.
type sealed struct {
	sequence int64
	at       time.Time
	found    bool
}

// Unsealed is an outcome that is not within as it must be.
type Unsealed struct {
	Seal    []byte
	Outside int64 // entry outside that carries the seal; -1: none does
	Inside  int64 // the outcome's entry within; -1: there is none
	at      time.Time
}

// slack is how far apart two journals of one machine may lie in time.
const slack = time.Minute

// NewSeals makes a Seals.
func NewSeals() *Seals {
	return &Seals{outside: map[seal]*sealed{}, rests: map[[32]byte][][]byte{}, erased: map[string]bool{}}
}

// Outside takes a record of the journal outside.
func (s *Seals) Outside(r journal.Audited) {
	e := new(nodepb.Entry)
	if r.Entry == nil || proto.Unmarshal(r.Entry, e) != nil || len(e.SectorSeal) != sha256.Size {
		return
	}
	if k := seal(e.SectorSeal); s.outside[k] == nil { // an answer that was sent again carries the same
		s.outside[k] = &sealed{sequence: int64(r.Sequence), at: time.UnixMilli(e.TimeUnixMs).UTC()}
	}
}

// Inside takes a record of the sector's journal.
func (s *Seals) Inside(r journal.Audited) {
	if r.Erased != nil {
		s.erased[r.Erased.Period] = true
	}
	e := new(nodepb.Entry)
	if r.Entry == nil || proto.Unmarshal(r.Entry, e) != nil {
		return
	}
	s.last = time.UnixMilli(e.TimeUnixMs).UTC()
	if len(e.SealSalt) != 32 {
		return
	}
	salt := [32]byte(e.SealSalt)
	switch e.Event {
	case nodepb.Event_SECTOR_ANSWERED:
		s.rests[salt] = append(s.rests[salt], Seal(e))
	case nodepb.Event_RESOLVED:
		parts := s.rests[salt]
		delete(s.rests, salt)
		k := seal(Seal(e))
		u := Unsealed{Seal: k[:], Outside: -1, Inside: int64(r.Sequence), at: s.last}
		if o := s.outside[k]; o != nil {
			o.found, u.Outside = true, o.sequence
		}
		if !bytes.Equal(joined(parts), e.PermissionHash) {
			s.broken = append(s.broken, u)
		}
	}
}

// Epoch is where an epoch of the journal outside was declared: after so many entries.
type Epoch struct{ At int64 }

// Conclude gives what is wrong, and how many outcomes were lost with a disk whose restore
// was declared: those after all that the restored disks have in common. What is of a month
// that was erased within is neither. running: the node wrote meanwhile, so the end of
// the journal outside may be newer than that of the other.
func (s *Seals) Conclude(epochs []Epoch, running bool) (wrong []Unsealed, lost int) {
	wrong = slices.DeleteFunc(slices.Clone(s.broken), func(u Unsealed) bool { return s.ofErased(u.at) }) // its parts may be
	var missing []Unsealed
	for k, o := range s.outside {
		if !o.found && !s.ofErased(o.at) && !(running && o.at.After(s.last.Add(-slack))) {
			missing = append(missing, Unsealed{Seal: k[:], Outside: o.sequence, Inside: -1, at: o.at})
		}
	}
	for _, e := range epochs {
		var until time.Time // the newest before the epoch that both have
		for _, o := range s.outside {
			if o.found && o.sequence < e.At && o.at.After(until) {
				until = o.at
			}
		}
		missing = slices.DeleteFunc(missing, func(u Unsealed) bool {
			gone := u.Outside < e.At && u.at.After(until.Add(-slack))
			if gone {
				lost++
			}
			return gone
		})
	}
	wrong = append(wrong, missing...)
	slices.SortFunc(wrong, func(a, b Unsealed) int {
		return cmp.Or(cmp.Compare(a.Outside, b.Outside), cmp.Compare(a.Inside, b.Inside))
	})
	return wrong, lost
}

// ofErased reports whether an outcome may have stood in a month that was erased: it was
// written before what carries its seal.
func (s *Seals) ofErased(at time.Time) bool {
	return s.erased[at.Format("2006-01")] || s.erased[at.Add(-slack).Format("2006-01")]
}
