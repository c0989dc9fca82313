package mandate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// MaxListed is how many mandates one list holds.
const MaxListed = 2000

// List gives the mandates that this institution registered, or may use; of one subject
// alone, if about is not zero. Who looks is journaled. Which ones it may use a registry
// member says, if this node is none: complete is false when none answered.
func (s *Service) List(ctx context.Context, who Asker, about subject.ID) (all []*record.Mandate, complete bool, err error) {
	e := s.entry(who, nodepb.Event_READ, about)
	e.Role, e.Ticket, e.Detail = nodepb.Role_READER, "", "the mandates that this institution registered or holds"
	if _, err := s.cfg.Journal.Append(ctx, e); err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	self := s.cfg.Self.Institution
	var members []names.NodeID
	var family []subject.ID
	complete = true
	err = s.cfg.Registry.View(func(v record.View) error {
		registered, err := v.MandatesRegistered(self)
		if err != nil {
			return err
		}
		held, err := v.MandatesHeld(self)
		if err != nil {
			return err
		}
		all = append(registered, held...)
		if !about.IsZero() {
			if family, err = v.Family(about); err != nil {
				return err
			}
		}
		member, err := v.IsMember(s.cfg.Self)
		if err != nil || member {
			return err
		}
		members, err = v.Members()
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if len(members) > 0 {
		var held []*record.Mandate
		held, complete = s.ask(ctx, members)
		all = append(all, held...)
	}
	// What came from elsewhere, of a mandate that is known here too, is the newer.
	slices.SortStableFunc(all, func(a, b *record.Mandate) int {
		if a.Revoked != b.Revoked && a.ID == b.ID {
			if a.Revoked {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.ID, b.ID)
	})
	all = slices.CompactFunc(all, func(a, b *record.Mandate) bool { return a.ID == b.ID })
	if !about.IsZero() {
		all = slices.DeleteFunc(all, func(m *record.Mandate) bool { return m.Giver != about && !slices.Contains(family, m.Giver) })
	}
	return all[:min(len(all), MaxListed)], complete && len(all) <= MaxListed, nil
}

// ask asks one member after the other what this institution may use.
func (s *Service) ask(ctx context.Context, members []names.NodeID) ([]*record.Mandate, bool) {
	for _, m := range members {
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		resp, err := s.cfg.Peers.Mandates(limited, m, &nodepb.MandatesRequest{})
		cancel()
		if err != nil {
			s.cfg.Log.Info("a member did not say which mandates there are", "peer", m.String(), "err", err)
			continue
		}
		var all []*record.Mandate
		for _, h := range resp.GetMandates()[:min(len(resp.GetMandates()), MaxListed)] {
			if got := FromWire(h); got.Holder == s.cfg.Self.Institution && got.ID.Validate() == nil {
				all = append(all, got)
			}
		}
		return all, !resp.GetMore()
	}
	return nil, false
}

// Serve answers another institution that asks which mandates it may use. That it asked is
// journaled.
func (s *Service) Serve(ctx context.Context, from names.NodeID, _ *nodepb.MandatesRequest) (*nodepb.MandatesResponse, error) {
	if _, err := s.cfg.Registry.Standing(); err != nil {
		return nil, err
	}
	_, err := s.cfg.Journal.Append(ctx, &nodepb.Entry{
		TimeUnixMs: s.cfg.Now().UnixMilli(), Role: nodepb.Role_READER, Event: nodepb.Event_READ, Channel: "mesh",
		Requester: &registrypb.NodeRef{Institution: string(from.Institution), Node: string(from.Node)}, Detail: "the mandates that it may use",
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	resp := new(nodepb.MandatesResponse)
	return resp, s.cfg.Registry.View(func(v record.View) error {
		all, err := v.MandatesHeld(from.Institution)
		resp.More = len(all) > MaxListed
		for _, m := range all[:min(len(all), MaxListed)] {
			resp.Mandates = append(resp.Mandates, Wire(m))
		}
		return err
	})
}

// Wire gives a mandate as nodes tell each other of it; FromWire reads that.
func Wire(m *record.Mandate) *nodepb.HeldMandate {
	h := &nodepb.HeldMandate{
		Id: string(m.ID), Giver: number(m.Giver), Holder: string(m.Holder), OnBehalf: number(m.OnBehalf), Purpose: string(m.Purpose),
		Period:   &registrypb.Period{From: int32(m.Period.From), Until: int32(m.Period.Until)},
		Provider: string(m.Provider), AuthLevel: m.AuthLevel, GivenUnixMs: m.Given.UnixMilli(), Vouched: m.Vouched,
		Revoked: m.Revoked, RevokedBy: string(m.RevokedBy), ByGiver: m.ByGiver,
	}
	for _, d := range m.Datasets {
		h.Datasets = append(h.Datasets, string(d))
	}
	return h
}

// FromWire: see Wire. Nothing of it is checked.
func FromWire(h *nodepb.HeldMandate) *record.Mandate {
	id := func(s *registrypb.Subject) subject.ID {
		if s == nil {
			return subject.ID{}
		}
		return subject.Raw(subject.Scheme(s.GetScheme()), s.GetNumber())
	}
	m := &record.Mandate{
		ID: names.MandateID(h.GetId()), Giver: id(h.GetGiver()), Holder: names.InstitutionID(h.GetHolder()), OnBehalf: id(h.GetOnBehalf()),
		Purpose: names.Purpose(h.GetPurpose()), Period: record.Period(h.GetPeriod()), Provider: names.ProviderID(h.GetProvider()),
		AuthLevel: h.GetAuthLevel(), Given: time.UnixMilli(h.GetGivenUnixMs()).UTC(), Vouched: h.GetVouched(),
		Revoked: h.GetRevoked(), RevokedBy: names.InstitutionID(h.GetRevokedBy()), ByGiver: h.GetByGiver(),
	}
	for _, d := range h.GetDatasets() {
		m.Datasets = append(m.Datasets, names.DatasetID(d))
	}
	return m
}
