package data

import (
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Example is a consultation worth showing, and what it must bring.
type Example struct {
	Title string // one line, for people
	Consultation
	Answer Answer // of Expected, on the day of the examples
}

// scenario finds the person of an example.
type scenario struct {
	title     string
	requester names.InstitutionID
	purpose   names.Purpose
	dataset   names.DatasetID
	fields    []names.FieldName
	level     uint32
	former    bool // ask by the former number
	period    func(p *Person) names.Period
	status    nodepb.Status
	reason    registrypb.Reason
	fits      func(p *Person) bool // a quick look before the answer is worked out
}

// lately is the year up to Today.
var lately = names.Period{From: Today - 364, Until: Today}

const scenarioLook = 20_000 // persons looked at for an example

var scenarios = []scenario{
	{title: "The energy regulator asks whether a customer has increased reimbursement: yes or no, and nothing more",
		requester: "fps-economy", purpose: "social-energy-tariff", dataset: "increased-reimbursement/v1",
		fields: []names.FieldName{"entitled", "ground", "start_date"}, status: nodepb.Status_DATA_FOUND,
		fits: func(p *Person) bool { return p.Energy != nil && len(p.Reimbursed) > 0 }},
	{title: "A PCSA asks for the wages of somebody it makes a social inquiry about",
		requester: "pcsa-ghent", purpose: "social-inquiry", dataset: "wages-quarterly/v1", status: nodepb.Status_DATA_FOUND,
		fits: func(p *Person) bool { return len(p.Inquiries) > 0 && len(p.Jobs) > 0 }},
	{title: "A PCSA asks where somebody on a living wage lives, and with whom",
		requester: "pcsa-ghent", purpose: "social-inquiry", dataset: "household-composition/v1", status: nodepb.Status_DATA_FOUND,
		fits: func(p *Person) bool { return len(p.LivingWages) > 0 && p.Relation != "" }},
	{title: "A PCSA asks once what is paid in place of wages, and several institutions answer",
		requester: "pcsa-ghent", purpose: "social-inquiry", dataset: "replacement-income/v1", status: nodepb.Status_DATA_FOUND,
		period: func(*Person) names.Period { return names.Period{From: date(2005, 1, 1), Until: Today} },
		fits:   func(p *Person) bool { return len(p.Inquiries) > 0 && len(p.Unemployed) > 0 && len(p.Incapacities) > 0 }},
	{title: "The pension office asks for the career of somebody who worked",
		requester: "fpd", purpose: "pension-calculation", dataset: "employment-relation/v1", status: nodepb.Status_DATA_FOUND,
		fits: func(p *Person) bool { return len(p.Jobs) > 0 }},
	{title: "A health fund asks whether a member draws a pension",
		requester: "nic", purpose: "insurability", dataset: "pension-rights/v1", status: nodepb.Status_DATA_FOUND,
		fits: func(p *Person) bool { return p.Pension != nil }},
	{title: "An inspector of the employment office, logged in strongly, asks for wages during unemployment",
		requester: "neo", purpose: "unemployment-inspection", dataset: "wages-quarterly/v1", level: 3, status: nodepb.Status_DATA_FOUND,
		fits: func(p *Person) bool { return len(p.Unemployed) > 0 && len(p.Jobs) > 0 }},
	{title: "The source has a file, and no record in this period",
		requester: "fpd", purpose: "pension-calculation", dataset: "wages-quarterly/v1", status: nodepb.Status_NO_DATA_FOUND,
		period: func(*Person) names.Period { return names.Period{From: date(2015, 1, 1), Until: date(2015, 12, 31)} },
		fits:   func(p *Person) bool { return len(p.Jobs) > 0 && p.Jobs[0].From < date(2015, 1, 1) }},

	{title: "A number with a wrong check digit", requester: "pcsa-ghent", purpose: "social-inquiry", dataset: "person-identity/v1",
		reason: registrypb.Reason_MALFORMED_NUMBER, fits: func(*Person) bool { return true }},
	{title: "A purpose for which no deliberation gives these data", requester: "pcsa-ghent", purpose: "social-energy-tariff", dataset: "wages-quarterly/v1",
		reason: registrypb.Reason_NOT_ALLOWED, fits: func(p *Person) bool { return len(p.Inquiries) > 0 }},
	{title: "An authorization whose time is over", requester: "fps-economy", purpose: "heating-premium", dataset: "increased-reimbursement/v1",
		reason: registrypb.Reason_NOT_ALLOWED, fits: func(p *Person) bool { return p.Energy != nil && len(p.Reimbursed) > 0 }},
	{title: "Somebody on whom the PCSA has no file", requester: "pcsa-ghent", purpose: "social-inquiry", dataset: "wages-quarterly/v1",
		reason: registrypb.Reason_NOT_INTEGRATED, fits: func(p *Person) bool { return len(p.Jobs) > 0 && len(p.Inquiries) == 0 }},
	{title: "A time in which the PCSA had no file yet", requester: "pcsa-ghent", purpose: "social-inquiry", dataset: "person-address/v1",
		period: func(*Person) names.Period { return names.Period{From: date(2010, 1, 1), Until: date(2010, 12, 31)} },
		reason: registrypb.Reason_NOT_INTEGRATED, fits: func(p *Person) bool { return p.Household.City.ID == "ghent" && len(p.LivingWages) > 0 }},
	{title: "A bis number that was replaced: the answer gives the new one", requester: "nsso", purpose: "contribution-control", dataset: "person-identity/v1", former: true,
		period: func(p *Person) names.Period { return names.Period{From: p.Former.Since, Until: p.Former.ReplacedOn} },
		reason: registrypb.Reason_REPLACED_NUMBER, fits: func(p *Person) bool { return p.Former != nil && len(p.Jobs) > 0 }},
	{title: "A cancelled number", requester: "nsso", purpose: "contribution-control", dataset: "person-identity/v1",
		period: func(p *Person) names.Period { return clip(p.Jobs[0].Period, lately) },
		reason: registrypb.Reason_CANCELLED_NUMBER, fits: func(p *Person) bool {
			return p.Cancelled != names.Forever && len(p.Jobs) > 0 && p.Jobs[0].Overlaps(lately)
		}},
	{title: "Somebody who had died before the time asked about", requester: "fpd", purpose: "pension-calculation", dataset: "person-address/v1",
		period: func(p *Person) names.Period { return names.Period{From: p.Death + 10, Until: p.Death + 40} },
		reason: registrypb.Reason_DECEASED_SUBJECT, fits: func(p *Person) bool { return p.Death != names.Forever && p.Pension != nil }},
	{title: "Nobody who may supply these data has a file", requester: "fpd", purpose: "pension-calculation", dataset: "unemployment-benefit/v1",
		reason: registrypb.Reason_UNKNOWN_SUBJECT, fits: func(p *Person) bool { return p.Pension != nil && len(p.Unemployed) == 0 }},
	{title: "None of the fields asked is within the authorization", requester: "fps-economy", purpose: "social-energy-tariff", dataset: "increased-reimbursement/v1",
		fields: []names.FieldName{"ground"}, reason: registrypb.Reason_NO_PERMITTED_FIELD,
		fits: func(p *Person) bool { return p.Energy != nil && len(p.Reimbursed) > 0 }},
	{title: "A user who is not logged in strongly enough", requester: "neo", purpose: "unemployment-inspection", dataset: "wages-quarterly/v1", level: 1,
		reason: registrypb.Reason_AUTH_LEVEL_TOO_LOW, fits: func(p *Person) bool { return len(p.Unemployed) > 0 && len(p.Jobs) > 0 }},
	{title: "A purpose that needs the person's mandate", requester: "pcsa-ghent", purpose: "debt-mediation", dataset: "wages-quarterly/v1",
		reason: registrypb.Reason_MANDATE_MISSING, fits: func(p *Person) bool { return len(p.Inquiries) > 0 && len(p.Jobs) > 0 }},
}

// Examples gives consultations that are permitted, with data and without, and one
// or more for every reason of refusal that the data alone can bring about, on the
// given day (it decides which authorizations are in force). One is left out when
// its requester does not take part, or when a small world has nobody who fits.
func (w *World) Examples(on names.Date) []Example {
	found := make([]*Example, len(scenarios))
	left := len(scenarios)
	for p := range w.Persons() {
		if p.Index == scenarioLook || left == 0 {
			break
		}
		for i, s := range scenarios {
			if found[i] != nil || !s.fits(p) {
				continue
			}
			if e, ok := w.try(s, p, on); ok {
				found[i] = &e
				left--
			}
		}
	}
	var all []Example
	for _, e := range found {
		if e != nil {
			all = append(all, *e)
		}
	}
	return all
}

func (w *World) try(s scenario, p *Person, on names.Date) (Example, bool) {
	c := Consultation{
		Requester: s.requester, Purpose: s.purpose, Dataset: s.dataset, Fields: s.fields, AuthLevel: s.level,
		Scheme: subject.SSIN, Number: p.SSIN.Number(), Period: lately,
	}
	if s.period != nil {
		c.Period = s.period(p)
	}
	if s.former {
		c.Number = p.Former.SSIN.Number()
	}
	if s.reason == registrypb.Reason_MALFORMED_NUMBER {
		last := c.Number[len(c.Number)-1]
		c.Number = c.Number[:len(c.Number)-1] + string('0'+(last-'0'+1)%10)
	}
	want := s.status
	if s.reason != registrypb.Reason_REASON_UNSPECIFIED {
		want = nodepb.Status_NO_RESULT
	}
	a := w.Expected(c, on)
	return Example{s.title, c, a}, a.Status == want && a.Reason == s.reason
}
