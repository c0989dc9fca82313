package api

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// stamp says of what state a list is.
func (l *List[T]) stamp(v record.View, age time.Duration) (err error) {
	if age >= 0 {
		ms := age.Milliseconds()
		l.ConfirmedMsAgo = &ms
	}
	l.RegistryIndex, err = v.AppliedIndex()
	return err
}

// list reads one public table in one consistent view.
func list[T any](s *Server, q *request, fill func(v record.View, add func(T)) error) (response, error) {
	out := List[T]{Items: []T{}}
	err := s.readView(q, func(v record.View, age time.Duration) (err error) {
		if err := out.stamp(v, age); err != nil {
			return err
		}
		return fill(v, func(t T) { out.Items = append(out.Items, t) })
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Server) institutions(q *request) (response, error) {
	return list(s, q, func(v record.View, add func(Institution)) error {
		nodes := map[string][]InstitutionNode{}
		members, err := v.Members()
		if err != nil {
			return err
		}
		err = v.Nodes(func(n *registrypb.Node) error {
			if n.GetRemoved() {
				return nil
			}
			inst, name := n.GetRef().GetInstitution(), n.GetRef().GetNode()
			nodes[inst] = append(nodes[inst], InstitutionNode{
				Name: names.NodeName(name), Address: n.GetAddress(),
				Voter: slices.Contains(members, names.NodeID{Institution: names.InstitutionID(inst), Node: names.NodeName(name)}),
			})
			return nil
		})
		if err != nil {
			return err
		}
		return v.Institutions(func(i *registrypb.Institution) error {
			out := Institution{
				ID: names.InstitutionID(i.GetId()), Name: i.GetName(), Type: names.InstitutionType(i.GetType()),
				Sector: names.SectorID(i.GetSector()), ManagingBody: i.GetManagingBody(), Suspended: i.GetSuspended(),
				NumberSchemes: i.GetNumberSchemes(), Nodes: nodes[i.GetId()],
			}
			if out.Nodes == nil {
				out.Nodes = []InstitutionNode{}
			}
			add(out)
			return nil
		})
	})
}

func (s *Server) datasets(q *request) (response, error) {
	return list(s, q, func(v record.View, add func(Dataset)) error {
		return v.Datasets(func(d *registrypb.Dataset) error {
			schema := json.RawMessage(d.GetSchema())
			if !json.Valid(schema) {
				schema = json.RawMessage("true") // the registry lets none in
			}
			add(Dataset{
				ID: names.DatasetID(d.GetId()), Title: d.GetTitle(), Scheme: d.GetScheme(),
				Qualities: as[names.Quality](d.GetQualities()), Schema: schema,
			})
			return nil
		})
	})
}

func (s *Server) offerings(q *request) (response, error) {
	return list(s, q, func(v record.View, add func(Offering)) error {
		return v.Offerings(func(o *registrypb.Offering) error {
			if !o.GetWithdrawn() {
				add(Offering{
					Institution: names.InstitutionID(o.GetInstitution()), Dataset: names.DatasetID(o.GetDataset()),
					Qualities: as[names.Quality](o.GetQualities()), Period: periodOf(o.GetPeriod()),
				})
			}
			return nil
		})
	})
}

func (s *Server) authorizations(q *request) (response, error) {
	return list(s, q, func(v record.View, add func(Authorization)) error {
		return v.Authorizations(func(a *registrypb.Authorization) error {
			add(authorizationOf(a))
			return nil
		})
	})
}

func (s *Server) authorization(q *request) (response, error) {
	id := names.AuthorizationID(q.PathValue("id"))
	var found *registrypb.Authorization
	if id.Validate() == nil {
		err := s.readView(q, func(v record.View, _ time.Duration) (err error) {
			found, err = v.Authorization(id)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, problem(CodeNotFound, "id", "See GET /v1/authorizations.")
	}
	return authorizationOf(found), nil
}

func authorizationOf(a *registrypb.Authorization) Authorization {
	return Authorization{
		ID: names.AuthorizationID(a.GetId()), Deliberation: names.Deliberation(a.GetDeliberation()), LegalBasis: a.GetLegalBasis(),
		RequesterType: names.InstitutionType(a.GetRequesterType()), RequesterQualities: as[names.Quality](a.GetRequesterQualities()),
		Dataset: names.DatasetID(a.GetDataset()), Fields: as[names.FieldName](a.GetFields()), Purpose: names.Purpose(a.GetPurpose()),
		Modes: as[names.Mode](a.GetModes()), Period: periodOf(a.GetPeriod()), Revoked: a.GetRevoked(),
		MinAuthLevel: a.GetMinAuthLevel(), SecondClearingPeer: a.GetSecondClearingPeer(), MandateRequired: a.GetMandateRequired(), Law: lawOf(a.GetLaw()),
	}
}

func lawOf(l *registrypb.Law) *Law {
	if l == nil {
		return nil
	}
	return &Law{Title: l.GetTitle(), Article: l.GetArticle(), Published: l.GetPublished()}
}

// as gives names their type; never nil, so that JSON has an array.
func as[T ~string](in []string) []T {
	out := make([]T, len(in))
	for i, s := range in {
		out[i] = T(s)
	}
	return out
}

func periodOf(p *registrypb.Period) names.Period {
	return names.Period{From: names.Date(p.GetFrom()), Until: names.Date(p.GetUntil())}
}
