package belgium

import (
	"fmt"
	"math"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The size of the directory that is to be held (Robben 2006): persons, and at how many
// institutions each is known.
const (
	FullPersons     = 15_570_000
	KnownAt         = 8.02
	daysInYear      = 12 * 28 // that exist in every year
	yearsInNumber   = 100     // a number holds the year of birth in two digits
	sequencesPerDay = 998
)

// Country is a directory of some size. It is not changed after it is made, and so is
// safe for concurrent use.
type Country struct {
	persons      int
	institutions []Institution
}

// Institution is one that declares references.
type Institution struct {
	ID        names.InstitutionID
	Name      string
	Type      string
	Qualities []names.Quality
	// every is how many persons there are for each that it knows.
	every float64
	seed  uint64
	count int
}

// group is institutions of one kind, which together know share of all persons.
type group struct {
	id, typ   string
	count     int
	share     float64
	qualities []string
}

// The shares are invented, and add up to KnownAt: the register knows everybody, a few
// national bodies most, and some two thousand others a few each.
var groups = []group{
	{"rn", "national-register", 1, 1.00, []string{"resident", "former-resident"}},
	{"nic", "insurance-sector", 1, 0.96, []string{"insured", "dependant", "vipo"}},
	{"finance", "tax-authority", 1, 0.75, []string{"taxpayer"}},
	{"nsso", "social-security-office", 1, 0.62, []string{"employee", "former-employee", "student"}},
	{"sigedis", "career-database", 1, 0.60, []string{"career"}},
	{"fpd", "pension-office", 1, 0.52, []string{"pensioner", "future-pensioner"}},
	{"onva", "holiday-fund", 1, 0.40, []string{"holiday-maker"}},
	{"nihdi", "insurance-control", 1, 0.35, []string{"patient", "care-provider"}},
	{"neo", "unemployment-office", 1, 0.28, []string{"unemployed", "career-break"}},
	{"employment-service", "employment-service", 4, 0.41, []string{"job-seeker"}},
	{"child-benefit", "child-benefit-fund", 12, 0.40, []string{"child", "beneficiary"}},
	{"economy", "energy-regulator", 1, 0.15, []string{"customer"}},
	{"nisse", "self-employed-office", 1, 0.14, []string{"self-employed", "helper"}},
	{"fedris", "accident-fund", 1, 0.09, []string{"victim"}},
	{"cbss", "bis-register", 1, 0.08, []string{"bis"}},
	{"dg-han", "disability-office", 1, 0.06, []string{"disabled"}},
	{"pps", "integration-office", 1, 0.03, []string{"living-wage"}},
	{"municipality", "municipality", 581, 0.74, []string{"inhabitant"}},
	{"pcsa", "pcsa", 581, 0.08, []string{"living-wage", "aid"}},
	{"housing", "housing-company", 300, 0.05, []string{"tenant"}},
	{"fund", "second-pillar-fund", 1_100, 0.31, []string{"member", "former-member"}},
}

// New makes a country of so many persons. Institutions of which none would know anybody
// are left out.
func New(persons int) *Country { return country(persons, groups) }

// National makes a country of which the national bodies alone declare about so many
// references: few institutions are admitted in a moment.
func National(references int) *Country {
	var national []group
	known := 0.0
	for _, g := range groups {
		if g.count == 1 {
			national, known = append(national, g), known+g.share
		}
	}
	return country(int(math.Ceil(float64(references)/known)), national)
}

func country(persons int, groups []group) *Country {
	c := &Country{persons: persons}
	for _, g := range groups {
		var qualities []names.Quality
		for _, q := range g.qualities {
			qualities = append(qualities, names.Quality(q))
		}
		for i := range g.count {
			inst := Institution{ID: names.InstitutionID("be-" + g.id), Name: g.id, Type: g.typ, Qualities: qualities}
			if g.count > 1 {
				inst.ID = names.InstitutionID(fmt.Sprintf("be-%s-%04d", g.id, i+1))
				inst.Name = string(inst.ID)
			}
			inst.every = float64(g.count) / g.share
			inst.seed = mix(uint64(len(c.institutions)) + 1)
			inst.count = int(math.Floor(float64(persons) / inst.every))
			if inst.count > 0 {
				c.institutions = append(c.institutions, inst)
			}
		}
	}
	slices.SortStableFunc(c.institutions, func(a, b Institution) int { return b.count - a.count })
	return c
}

// Persons gives how many persons there are.
func (c *Country) Persons() int { return c.persons }

// Institutions gives all, the largest first.
func (c *Country) Institutions() []Institution { return c.institutions }

// References gives how many references all institutions declare.
func (c *Country) References() (n int) {
	for _, i := range c.institutions {
		n += i.count
	}
	return n
}

// Count gives how many references an institution declares, one a person.
func (i *Institution) Count() int { return i.count }

// Number gives the number of the nth person; greater persons have greater numbers.
func (c *Country) Number(n int) subject.ID {
	const days = yearsInNumber * daysInYear
	// Spread over the days, and over the sequence numbers of a day.
	slots := uint64(days) * sequencesPerDay
	slot := uint64(n) * slots / uint64(c.persons)
	day, sequence := int(slot/sequencesPerDay), int(slot%sequencesPerDay)+1
	year, rest := day/daysInYear, day%daysInYear
	month, dom := 1+rest/28, 1+rest%28
	century := 1900
	if year < 26 && sequence > sequencesPerDay/2 {
		century = 2000
	}
	head := year*10_000_000 + month*100_000 + dom*1000 + sequence
	var b [11]byte
	v := head*100 + subject.SSINCheckDigits(head, century)
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return subject.Raw(subject.SSIN, string(b[:]))
}

// Person gives the place of the nth person that an institution knows.
func (i *Institution) Person(n int) int {
	at := int(float64(n) * i.every)
	if room := int(i.every); room > 1 {
		at += int(mix(i.seed^uint64(n)) % uint64(room))
	}
	return at
}

// mix is the finaliser of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
