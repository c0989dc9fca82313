package reading

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// groupOf says which records tell of the same use.
func groupOf(r told) string {
	switch {
	case r.Role == nodepb.Role_READER && len(r.Reading) > 0:
		return fmt.Sprintf("r%x %d", r.Reading, r.Outcome) // shown again, it was refused: that is another
	case r.Role == nodepb.Role_DECLARER && r.Ticket != "": // what was declared, and what the registry made of it
		return "d" + r.node.String() + " " + r.Ticket
	case r.Role == nodepb.Role_READER, r.Ticket == "":
		return fmt.Sprintf("e%s %d", r.node, r.Sequence)
	}
	return "t" + r.Ticket
}

// use makes one of the records that tell of it. What they disagree about is given
// as the requester's own journal has it, then the clearing peer's.
func use(v record.View, g []told) (Use, error) {
	slices.SortStableFunc(g, func(a, b told) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Event, b.Event), cmp.Compare(a.TimeUnixMs, b.TimeUnixMs))
	})
	best := g[0]
	u := Use{
		Kind: kindOf(best), Time: at(best.TimeUnixMs), Ticket: names.Ticket(best.Ticket), User: best.User, Application: best.Application,
		Channel: best.Channel, AuthLevel: best.AuthLevel, Purpose: names.Purpose(best.Purpose), Mode: names.Mode(best.Mode),
		Dataset: names.DatasetID(best.Dataset), Outcome: Undecided,
	}
	if u.Kind == LogReading { // of a party's own ticket, it tells under which
		best = local(g)
		u.User, u.Application, u.Channel = best.User, best.Application, best.Channel
	}
	if p := best.Period; p != nil {
		span := record.Period(p)
		u.Period = &span
	}
	for _, r := range g {
		u.Authorization = cmp.Or(u.Authorization, names.AuthorizationID(r.Authorization))
		u.Deliberation = cmp.Or(u.Deliberation, names.Deliberation(r.Deliberation))
		u.Disputed = u.Disputed || u.Kind == Consultation && differs(best, r)
		if !slices.Contains(u.ToldBy, r.node.String()) {
			u.ToldBy = append(u.ToldBy, r.node.String())
		}
	}
	slices.Sort(u.ToldBy)
	u.decide(g)
	if u.Kind == Notified {
		publisher, err := u.tell(v, g)
		if err != nil {
			return u, err
		}
		return u, u.explain(v, *publisher)
	}
	if err := u.supply(v, g); err != nil {
		return u, err
	}
	return u, u.explain(v, best)
}

func kindOf(r told) Kind {
	switch {
	case r.Role == nodepb.Role_READER:
		return LogReading
	case r.Role == nodepb.Role_PUBLISHER, r.Role == nodepb.Role_RECIPIENT, r.Event == nodepb.Event_CLEARED:
		return Notified
	case r.Event == nodepb.Event_DECLARED:
		return Declaration
	case r.Event == nodepb.Event_WITHDRAWN:
		return Withdrawal
	case r.Event == nodepb.Event_MANDATE_GIVEN:
		return MandateGiven
	case r.Event == nodepb.Event_MANDATE_REVOKED:
		return MandateEnded
	}
	return Consultation
}

// local gives the record of the node where somebody stood, before those of the
// nodes that it asked.
func local(g []told) told {
	for _, r := range g {
		if record.NodeID(r.Requester) == r.node {
			return r
		}
	}
	return g[0]
}

func differs(a, b told) bool {
	return record.NodeID(a.Requester) != record.NodeID(b.Requester) || a.User != b.User || a.Application != b.Application ||
		a.Purpose != b.Purpose || a.Dataset != b.Dataset
}

// decide says how the use came out, and which fields it was about.
func (u *Use) decide(g []told) {
	if u.Kind == Declaration || u.Kind == Withdrawal || u.Kind == MandateGiven || u.Kind == MandateEnded {
		for _, r := range g {
			switch r.Outcome {
			case registrypb.Outcome_PERMIT:
				u.Outcome = Permitted
			case registrypb.Outcome_DENY:
				u.Outcome = orBefore(u.Outcome, Denied)
			}
		}
		return
	}
	asked := []string(nil)
	for _, r := range g {
		if r.Event == nodepb.Event_REQUESTED {
			asked = r.Fields
		}
		if r.Reason != registrypb.Reason_REASON_UNSPECIFIED && (r.Outcome != registrypb.Outcome_PERMIT || u.Kind == LogReading) && u.Reason == "" {
			u.Reason = r.Reason.String()
		}
		switch r.Outcome {
		case registrypb.Outcome_PERMIT:
			u.Outcome = Permitted
			if r.Event != nodepb.Event_REQUESTED {
				u.Fields, u.Withheld = union(u.Fields, r.Fields), union(u.Withheld, r.Withheld)
			}
		case registrypb.Outcome_DENY:
			u.Outcome = orBefore(u.Outcome, Denied)
		case registrypb.Outcome_NOT_APPLICABLE:
			u.Outcome = orBefore(u.Outcome, NotApplicable)
		}
	}
	if u.Outcome == Permitted {
		u.Reason = ""
	} else {
		u.Fields = asked
	}
}

// orBefore keeps a permission: one supplier was permitted, whatever another clearing
// peer said of the rest.
func orBefore(was, is string) string {
	if was == Permitted {
		return was
	}
	return is
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// supply says what became of it at each supplier, by whoever is best placed to know.
func (u *Use) supply(v record.View, g []told) error {
	if u.Kind != Consultation {
		return nil
	}
	at := map[string]int{}
	for _, event := range []nodepb.Event{nodepb.Event_SUPPLIED, nodepb.Event_REFUSED, nodepb.Event_ANSWERED, nodepb.Event_EXPIRED_UNUSED, nodepb.Event_DECIDED} {
		for _, r := range g {
			inst := r.Supplier.GetInstitution()
			if r.Event != event || inst == "" {
				continue
			}
			if _, known := at[inst]; known {
				continue
			}
			at[inst] = len(u.Suppliers)
			who, err := institution(v, inst)
			if err != nil {
				return err
			}
			x := UseSupplier{Institution: who}
			if r.Status != nodepb.Status_STATUS_UNSPECIFIED {
				x.Status = r.Status.String()
			}
			if event == nodepb.Event_EXPIRED_UNUSED {
				x.Status = event.String()
			}
			if r.Reason != registrypb.Reason_REASON_UNSPECIFIED {
				x.Reason = r.Reason.String()
			}
			u.Suppliers = append(u.Suppliers, x)
		}
	}
	slices.SortFunc(u.Suppliers, func(a, b UseSupplier) int { return cmp.Compare(a.Institution.ID, b.Institution.ID) })
	return nil
}

// explain adds what the public tables say.
func (u *Use) explain(v record.View, best told) (err error) {
	if u.Institution, err = institution(v, best.Requester.GetInstitution()); err != nil {
		return err
	}
	if u.Authorization != "" {
		a, err := v.Authorization(u.Authorization)
		if err != nil {
			return err
		}
		u.LegalBasis = a.GetLegalBasis()
		u.Deliberation = cmp.Or(u.Deliberation, names.Deliberation(a.GetDeliberation()))
	}
	if u.Dataset != "" {
		d, err := v.Dataset(u.Dataset)
		if err != nil {
			return err
		}
		u.Title = d.GetTitle()
	}
	return nil
}

func institution(v record.View, id string) (Institution, error) {
	i, err := v.Institution(names.InstitutionID(id))
	return Institution{ID: names.InstitutionID(id), Name: i.GetName()}, err
}

// tell says who told, which is then the institution of the use, and what became of it
// with each who was to be told.
func (u *Use) tell(v record.View, g []told) (*told, error) {
	at := map[string]int{}
	var publisher *told
	for _, event := range []nodepb.Event{nodepb.Event_NOTICE_DELIVERED, nodepb.Event_NOTICE_RECEIVED, nodepb.Event_NOTICE_LAPSED, nodepb.Event_NOTICE_SENT, nodepb.Event_CLEARED} {
		for _, r := range g {
			inst := r.Requester.GetInstitution()
			if _, known := at[inst]; r.Event != event || inst == "" || known {
				continue
			}
			at[inst] = len(u.Suppliers)
			who, err := institution(v, inst)
			if err != nil {
				return nil, err
			}
			u.Suppliers = append(u.Suppliers, UseSupplier{Institution: who, Status: event.String()})
		}
	}
	slices.SortFunc(u.Suppliers, func(a, b UseSupplier) int { return cmp.Compare(a.Institution.ID, b.Institution.ID) })
	for i := range g {
		if publisher == nil || g[i].Event == nodepb.Event_PUBLISHED {
			r := g[i]
			publisher = &r
		}
	}
	if publisher.Event == nodepb.Event_PUBLISHED {
		u.User, u.Application, u.Channel, u.Time = publisher.User, publisher.Application, publisher.Channel, time.UnixMilli(publisher.TimeUnixMs).UTC()
	}
	own := *publisher
	own.SubjectRecord = proto.CloneOf(publisher.SubjectRecord)
	own.Requester = publisher.Supplier
	return &own, nil
}
