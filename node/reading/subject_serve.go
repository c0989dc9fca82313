package reading

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/mandate"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The most that a node gives for one view.
const (
	maxRecords     = 2000
	maxRecordBytes = 3 << 20
)

// ServeSubject gives another node what this node's journal holds on the subject of
// a token that was made out to that node. The reading is journaled before. The
// error wraps ErrNoRight or ErrJournal, or is the registry's.
func (s *Service) ServeSubject(ctx context.Context, node names.NodeID, req *nodepb.SubjectRequest) (*nodepb.SubjectResponse, error) {
	e := from(s.reading(purposeSubject), node)
	t, refused := s.check(req.GetToken(), node, sum(req.GetViewing()))
	if err := asFault(refused); err != nil {
		return nil, err
	}
	if t != nil {
		e.Subject, e.RequestHash = filed(t.Subject), sum(req.GetToken())
	}
	viewing, malformed := decodeViewing(req.GetViewing())
	if refused == nil {
		refused = malformed
	}
	if err := s.note(ctx, e, refused); err != nil {
		return nil, err
	}
	return s.own(ctx, t.Subject, viewing, e.RequestHash)
}

// own gives what this node's journal and view of the directory hold on a subject.
func (s *Service) own(ctx context.Context, about subject.ID, viewing *nodepb.SubjectViewing, thisReading []byte) (*nodepb.SubjectResponse, error) {
	family, holders, err := s.files(about)
	if err != nil {
		return nil, err
	}
	given, err := s.given(about)
	if err != nil {
		return nil, err
	}
	resp := &nodepb.SubjectResponse{Holders: holders, Mandates: given}
	seen := make(map[uint64]bool) // an entry may be about several numbers of one family
	for _, id := range family {
		found, err := s.find(ctx, journal.Query{
			Subject: id, From: at(viewing.FromUnixMs), Until: at(viewing.UntilUnixMs), Limit: maxRecords + 1, NewestFirst: true,
		})
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if ev := f.Entry.GetEvent(); ev == nodepb.Event_INQUIRED || ev == nodepb.Event_CONCLUDED {
				continue // its parts, each a use by itself, tell all of it
			}
			if !seen[f.Sequence] && string(f.Entry.GetRequestHash()) != string(thisReading) { // that somebody is just looking is no news
				seen[f.Sequence] = true
				resp.Records = append(resp.Records, recordOf(f, id))
			}
		}
	}
	slices.SortStableFunc(resp.Records, func(a, b *nodepb.SubjectRecord) int { return int(sign(b.TimeUnixMs - a.TimeUnixMs)) })
	size := 0
	for i, r := range resp.Records {
		if size += proto.Size(r); i >= maxRecords || size > maxRecordBytes {
			resp.Records, resp.More = resp.Records[:i], true
			break
		}
	}
	return resp, nil
}

// given gives the mandates that a subject gave, as far as this node knows.
func (s *Service) given(about subject.ID) (all []*nodepb.HeldMandate, err error) {
	err = s.cfg.Registry.View(func(v record.View) error {
		mandates, err := v.MandatesOf(about)
		for _, m := range mandates[:min(len(mandates), mandate.MaxListed)] {
			all = append(all, mandate.Wire(m))
		}
		return err
	})
	return all, err
}

func sign(d int64) int64 { return max(-1, min(1, d)) }

// files gives the numbers that a subject is filed under and who has files, as far
// as this node knows: a member knows all, every other node its own institution's.
func (s *Service) files(about subject.ID) (family []subject.ID, holders []string, err error) {
	err = s.cfg.Registry.View(func(v record.View) error {
		if family, err = v.Family(about); err != nil {
			return err
		}
		if !slices.Contains(family, about) {
			family = append(family, about)
		}
		refs, err := v.References(family[0])
		for _, r := range refs { // sorted by institution
			if n := len(holders); n == 0 || holders[n-1] != string(r.Institution) {
				holders = append(holders, string(r.Institution))
			}
		}
		return err
	})
	return family, holders, err
}

// recordOf is an entry without what is not the subject's: the institution's own
// numbers, what only proves, and remarks of machines. Of one about many it is how this
// subject fared, and nothing of the others.
func recordOf(f journal.Stored, id subject.ID) *nodepb.SubjectRecord {
	e := f.Entry
	r := &nodepb.SubjectRecord{
		Sequence: f.Sequence, Commitment: f.Commitment[:], TimeUnixMs: e.GetTimeUnixMs(), Role: e.GetRole(), Event: e.GetEvent(),
		Ticket: e.GetTicket(), Requester: e.GetRequester(), Supplier: e.GetSupplier(), User: e.GetUser(), Application: e.GetApplication(),
		Channel: e.GetChannel(), AuthLevel: e.GetAuthLevel(), Purpose: e.GetPurpose(), Mode: e.GetMode(), Dataset: e.GetDataset(),
		Fields: e.GetFields(), Withheld: e.GetWithheld(), Period: e.GetPeriod(), Authorization: e.GetAuthorization(),
		Deliberation: e.GetDeliberation(), Outcome: e.GetOutcome(), Status: e.GetStatus(), Reason: e.GetReason(),
	}
	if g := journal.InLot(e, id); g != nil {
		r.Outcome, r.Status, r.Reason, r.Authorization, r.Deliberation = g.Outcome, g.Status, g.Reason, g.Authorization, g.Deliberation
		if e.GetEvent() != nodepb.Event_REQUESTED {
			r.Fields, r.Withheld = g.Fields, g.Withheld
		}
	}
	if e.GetEvent() == nodepb.Event_READ {
		r.Reading = e.GetRequestHash()
	}
	return r
}

// named gives the nodes that records name; with no node, any of the institution's.
func named(records []*nodepb.SubjectRecord) (all []*registrypb.NodeRef) {
	for _, r := range records {
		if r.GetRole() == nodepb.Role_READER {
			continue
		}
		all = append(all, r.GetRequester(), r.GetSupplier())
	}
	return all
}
