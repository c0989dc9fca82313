package data

import (
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Sex as the register records it.
type Sex string

// The two values of the register.
const (
	Female Sex = "F"
	Male   Sex = "M"
)

// Cents is an amount of euro in hundredths.
type Cents int64

// Person is one invented person with a life. All periods are within the life;
// what still goes on ends at names.Forever.
type Person struct {
	Index     int
	SSIN      subject.ID
	Former    *FormerNumber // the bis number that SSIN replaced; nil: none
	Bis       bool          // SSIN is a bis number: known, but not in the register of residents
	Cancelled names.Date    // day on which SSIN was cancelled; names.Forever: it was not

	FirstName, LastName string
	Sex                 Sex
	Nationality         string // ISO 3166 code
	Birth               names.Date
	Death               names.Date // names.Forever: alive

	Household *Household
	Relation  Relation

	Jobs         []Job
	SelfEmployed []SelfEmployment
	Unemployed   []Unemployment
	CareerBreaks []CareerBreak // each within one of Jobs
	Incapacities []Incapacity
	LivingWages  []LivingWage
	Inquiries    []names.Period // social inquiries at the PCSA of the city
	Reimbursed   []Reimbursement
	Accidents    []Accident // each during one of Jobs
	Pension      *Pension
	Guarantee    *IncomeGuarantee
	Disability   *Disability
	ChildBenefit *ChildBenefit
	Energy       *EnergyContract // of the reference person of the household
}

// FormerNumber is a number that was replaced.
type FormerNumber struct {
	SSIN       subject.ID
	Since      names.Date
	ReplacedOn names.Date
}

// Life gives the days from birth to death.
func (p *Person) Life() names.Period { return names.Period{From: p.Birth, Until: p.Death} }

// aged reports whether p had had that many birthdays by d.
func (p *Person) aged(years int, d names.Date) bool { return anniversary(p.Birth, years) <= d }

// Relation is the place of a person in the household.
type Relation string

// The relations to the reference person of the household.
const (
	ReferencePerson Relation = "reference-person"
	Partner         Relation = "partner"
	Child           Relation = "child"
	OtherRelative   Relation = "other-relative"
)

// Household is the people at one address. Its members share it.
type Household struct {
	ID        int
	City      *City
	Addresses []Address // oldest first, without gap; the last is the present one
	Members   []*Person // the reference person first
}

// Since gives the day the household was formed.
func (h *Household) Since() names.Date { return h.Addresses[0].From }

// Address is where a household lived for a while.
type Address struct {
	names.Period
	Street, Number string
}

// City is a municipality.
type City struct {
	ID, Name   string
	PostalCode string
	Region     string
	weight     int
}

// Employer has a number at the NSSO and one at the Crossroads Bank for Enterprises.
type Employer struct{ Name, Enterprise, Number string }

// The spells of a career. No two of them overlap.
type (
	// Job is one employment relation.
	Job struct {
		names.Period
		Employer Employer
		Kind     string // blue-collar, white-collar
		Percent  int    // of full time
		Monthly  Cents  // gross
	}
	// SelfEmployment is a spell of self-employed work as main occupation.
	SelfEmployment struct {
		names.Period
		Activity string
		Yearly   Cents
	}
	// Unemployment is a spell of paid unemployment.
	Unemployment struct {
		names.Period
		Category string
		Daily    Cents
	}
	// Incapacity is a spell of incapacity for work after a job.
	Incapacity struct {
		names.Period
		Daily Cents
	}
	// LivingWage is a spell at the PCSA of the city.
	LivingWage struct {
		names.Period
		Category string
		Monthly  Cents
	}
)

// What follows from a career.
type (
	// CareerBreak is a break, in whole or in part, within a job.
	CareerBreak struct {
		names.Period
		Percent int
	}
	// Reimbursement is a spell of increased reimbursement of health care.
	Reimbursement struct {
		names.Period
		Ground string
	}
	// Accident is a recognised accident at work.
	Accident struct {
		On         names.Date
		Employer   Employer
		Incapacity int // percent, lasting
	}
	// Pension is a retirement pension.
	Pension struct {
		names.Period
		Monthly     Cents
		CareerYears int
	}
	// IncomeGuarantee is the income guarantee for the elderly.
	IncomeGuarantee struct {
		names.Period
		Monthly Cents
	}
	// Disability is a recognised handicap.
	Disability struct {
		names.Period
		Points      int // of 18
		ParkingCard bool
	}
	// ChildBenefit is a child's right.
	ChildBenefit struct {
		names.Period
		Monthly Cents
	}
	// EnergyContract is the supply of one connection.
	EnergyContract struct {
		names.Period
		Meter        string
		Commodity    string
		SocialTariff bool
	}
)
