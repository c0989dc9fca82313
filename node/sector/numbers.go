package sector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// maxNumbers is about how many subjects one question may be: those of a chunk.
const maxNumbers = 2048

// Numbers tells managing bodies, at a registry member, under which numbers a subject
// stands. It is safe for concurrent use.
type Numbers struct {
	Registry exchange.Registry
	Journal  exchange.Journal // the node's
	Schemes  subject.Schemes
	Now      func() time.Time
}

// Serve answers a managing body about subjects on whom it has declared a file, under
// whatever number; of others it says nothing, as of those that do not exist. That it asked
// is journaled first.
func (n *Numbers) Serve(ctx context.Context, from names.NodeID, req *nodepb.NumbersRequest) (*nodepb.NumbersResponse, error) {
	if len(req.GetSubjects()) == 0 || len(req.GetSubjects()) > maxNumbers {
		return nil, fmt.Errorf("%w: %d subjects, want 1 to %d", ErrMalformed, len(req.GetSubjects()), maxNumbers)
	}
	if _, err := n.Registry.Standing(); err != nil {
		return nil, fmt.Errorf("%w: %w", exchange.ErrRegistryStale, err)
	}
	e := &nodepb.Entry{TimeUnixMs: n.Now().UnixMilli(), Role: nodepb.Role_READER, Event: nodepb.Event_READ, Channel: "mesh",
		Requester: nodeRef(from), Detail: fmt.Sprintf("other numbers of %d subjects, by a managing body", len(req.Subjects))}
	if len(req.Subjects) == 1 {
		if id, err := n.Schemes.Parse(subject.Scheme(req.Subjects[0].GetScheme()), req.Subjects[0].GetNumber()); err == nil {
			e.Subject = protoSubject(id)
		}
	}
	if _, err := n.Journal.Append(ctx, e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	resp := new(nodepb.NumbersResponse)
	return resp, n.Registry.View(func(v record.View) error {
		body, err := v.Institution(from.Institution)
		if err != nil || !body.GetManagingBody() {
			return errors.Join(err, ErrNotOfSector)
		}
		for _, s := range req.Subjects {
			found := new(nodepb.SubjectNumbers)
			if id, err := n.Schemes.Parse(subject.Scheme(s.GetScheme()), s.GetNumber()); err == nil && id.Number() == s.GetNumber() {
				if found, err = familyFor(v, from.Institution, id); err != nil {
					return err
				}
			}
			resp.Subjects = append(resp.Subjects, found)
		}
		return nil
	})
}

func familyFor(v record.View, body names.InstitutionID, id subject.ID) (*nodepb.SubjectNumbers, error) {
	family, err := v.Family(id)
	if err != nil {
		return nil, err
	}
	refs, err := v.References(family[0]) // of all that it replaced too
	if err != nil {
		return nil, err
	}
	found := new(nodepb.SubjectNumbers)
	if slices.ContainsFunc(refs, func(r record.Reference) bool { return r.Institution == body }) {
		for _, other := range family {
			found.Numbers = append(found.Numbers, protoSubject(other))
		}
	}
	return found, nil
}

// follow has the sector directory learn under which other numbers subjects stand: from
// this node's own view if it is a member, and else from what two members of different
// institutions say alike: the word of one, who may lie, does not join two persons' files.
// The first asked is the clearing peer, if there is one. It asks always, whatever the
// directory holds: whether it did would tell what that lacks. Where nobody answers within
// a lead, the directory's own knowledge must do. The error is the journal's.
func (m *Manager) follow(ctx context.Context, ids []subject.ID, clearer names.NodeID) error {
	var families [][]subject.ID
	var members []names.NodeID
	own := false
	err := m.Registry.View(func(v record.View) (err error) {
		if own, err = v.IsMember(m.Self); err != nil {
			return err
		}
		if !own {
			members, err = v.Members()
			return err
		}
		for _, id := range ids {
			family, err := v.Family(id)
			if err != nil {
				return err
			}
			families = append(families, family)
		}
		return nil
	})
	if err != nil {
		m.Log.Warn("which numbers were replaced cannot be read; what the sector directory knows is used", "err", err)
	}
	if err == nil && !own {
		families = m.askNumbers(ctx, ids, m.witnesses(clearer, members))
	}
	for _, family := range families {
		for _, old := range family[min(1, len(family)):] {
			if err := m.learn(ctx, old, family[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxWitnesses is how many members are asked at once; two of them must say the same.
const maxWitnesses = 3

// witnesses gives members of different institutions, the clearing peer first.
func (m *Manager) witnesses(clearer names.NodeID, members []names.NodeID) (all []names.NodeID) {
	if clearer != (names.NodeID{}) {
		all = append(all, clearer)
	}
	for _, n := range m.Peers.Order(members) {
		if len(all) < maxWitnesses && !slices.ContainsFunc(all, func(o names.NodeID) bool { return o.Institution == n.Institution }) {
			all = append(all, n)
		}
	}
	return all
}

// askNumbers gives, for each subject, the numbers that two of those asked say it has.
func (m *Manager) askNumbers(ctx context.Context, ids []subject.ID, members []names.NodeID) (families [][]subject.ID) {
	req := new(nodepb.NumbersRequest)
	for _, id := range ids[:min(len(ids), maxNumbers)] {
		req.Subjects = append(req.Subjects, protoSubject(id))
	}
	ctx, cancel := context.WithTimeout(ctx, m.times.Lead())
	defer cancel()
	said := make([][]*nodepb.SubjectNumbers, len(members))
	var all sync.WaitGroup
	for i, to := range members {
		all.Go(func() {
			resp, err := m.Peers.Numbers(ctx, to, req)
			if err == nil && len(resp.GetSubjects()) == len(req.Subjects) {
				said[i] = resp.Subjects
			}
		})
	}
	all.Wait()
	for at, id := range ids[:len(req.Subjects)] {
		for i, one := range said {
			agrees := func(other []*nodepb.SubjectNumbers) bool { return other != nil && proto.Equal(other[at], one[at]) }
			if one == nil || !slices.ContainsFunc(said[i+1:], agrees) {
				continue
			}
			if family, ok := m.family(id, one[at]); ok {
				families = append(families, family)
			}
			break
		}
	}
	return families
}

// family reads the numbers of a subject, which must be among them.
func (m *Manager) family(of subject.ID, n *nodepb.SubjectNumbers) (family []subject.ID, ok bool) {
	for _, s := range n.GetNumbers()[:min(len(n.GetNumbers()), directory.MaxFamily)] {
		id, err := m.Schemes.Parse(subject.Scheme(s.GetScheme()), s.GetNumber())
		if err != nil || id.Number() != s.GetNumber() {
			return nil, false
		}
		family = append(family, id)
	}
	return family, slices.Contains(family, of)
}

// learn joins two numbers in the sector directory, once, and journals that before. Where
// the directory cannot hold that, since both have been with different members on one day,
// they stay apart there.
func (m *Manager) learn(ctx context.Context, old, now subject.ID) error {
	family, err := m.directory.Family(now)
	if err != nil || slices.Contains(family, old) {
		return err
	}
	e := &nodepb.Entry{TimeUnixMs: m.Now().UnixMilli(), Role: nodepb.Role_MANAGING_BODY, Event: nodepb.Event_AFFILIATED, Requester: nodeRef(m.Self),
		Subject: protoSubject(old), AlsoSubjects: []*registrypb.Subject{protoSubject(now)}, Detail: "the registry says that this number was replaced by another"}
	if err := m.journal(ctx, e); err != nil {
		return err
	}
	if err := m.directory.Replace(old, now); errors.Is(err, directory.ErrRefused) {
		m.Log.Warn("a replaced number cannot be followed in the sector directory: mend the references under both", "err", err)
	} else if err != nil {
		return err
	}
	return nil
}
