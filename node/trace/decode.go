package trace

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// MaxEntries is how many entries of one node are looked at for one ticket.
const MaxEntries = 1000

// ErrMalformed is wrapped by the error of Decode when the entry does not have the
// form of one, ErrAltered when it is not what was committed to.
var (
	ErrMalformed = errors.New("it does not have the form of a journal entry")
	ErrAltered   = errors.New("it is not what its node committed to")
)

// Decode reads an entry that a peer sent and recomputes its commitment. Nothing
// in it is to be believed beyond that: its node may have written it so.
func Decode(s *nodepb.StoredEntry) (*nodepb.Entry, error) {
	switch {
	case len(s.GetEntry()) == 0 || len(s.GetEntry()) > journal.MaxEntry:
		return nil, fmt.Errorf("%w: %d bytes, want 1 to %d", ErrMalformed, len(s.GetEntry()), journal.MaxEntry)
	case len(s.GetSalt()) != journal.SaltSize:
		return nil, fmt.Errorf("%w: a salt of %d bytes, want %d", ErrMalformed, len(s.GetSalt()), journal.SaltSize)
	case len(s.GetCommitment()) != journal.CommitmentSize:
		return nil, fmt.Errorf("%w: a commitment of %d bytes, want %d", ErrMalformed, len(s.GetCommitment()), journal.CommitmentSize)
	}
	c := journal.EntryCommitment([journal.SaltSize]byte(s.GetSalt()), s.GetEntry())
	if !hmac.Equal(c[:], s.GetCommitment()) {
		return nil, ErrAltered
	}
	e := new(nodepb.Entry)
	if err := proto.Unmarshal(s.GetEntry(), e); err != nil {
		return nil, fmt.Errorf("%w: not protobuf", ErrMalformed)
	}
	if len(e.GetDetail()) > journal.MaxDetail || len(e.ProtoReflect().GetUnknown()) > 0 {
		return nil, fmt.Errorf("%w: it says more than an entry may", ErrMalformed)
	}
	return e, nil
}

// Parties gives the nodes other than self whose journals should know of what
// these entries tell: the clearing peers and suppliers they name, and the
// requester; in order and each once. A supplier of which only the institution is
// known has an empty Node: any node of that institution may hold the segment.
// Entries that cannot be read name nobody.
func Parties(self names.NodeID, entries []*nodepb.StoredEntry) []names.NodeID {
	seen := map[names.NodeID]bool{}
	for _, s := range entries[:min(len(entries), MaxEntries)] {
		e, err := Decode(s)
		if err != nil || e.GetRole() == nodepb.Role_READER {
			continue
		}
		for _, ref := range []*registrypb.NodeRef{e.GetRequester(), e.GetClearer(), e.GetSupplier(), e.GetSecondClearance().GetClearer()} {
			n := nodeID(ref)
			if n == self || n.Institution.Validate() != nil || n.Node != "" && n.Node.Validate() != nil {
				continue
			}
			seen[n] = true
		}
	}
	return sorted(seen)
}

func nodeID(r *registrypb.NodeRef) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(r.GetInstitution()), Node: names.NodeName(r.GetNode())}
}

// show gives institution/node, or the institution alone.
func show(n names.NodeID) string {
	if n.Node == "" {
		return string(n.Institution)
	}
	return n.String()
}

func sorted[V any](m map[names.NodeID]V) []names.NodeID {
	ids := make([]names.NodeID, 0, len(m))
	for n := range m {
		ids = append(ids, n)
	}
	slices.SortFunc(ids, compareNodes)
	return ids
}
