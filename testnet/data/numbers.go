package data

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// blockSize is how many persons are drawn from one set of dice.
const blockSize = 10

// Places within a block. Places 4 and 6, 5 and 6 share a generation and a sex:
// see numbers.counter.
const (
	seniorF = iota
	seniorM
	middleF
	middleM
	adultF
	adultM
	adultX
	youngX
	childF
	childM
)

// generation is a run of birth years that no other place of the block uses, so
// that the birth year in a number tells the place.
type generation struct{ first, years int }

var generations = [blockSize]generation{
	seniorF: {1930, 30}, seniorM: {1930, 30},
	middleF: {1960, 20}, middleM: {1960, 20},
	adultF: {1980, 22}, adultM: {1980, 22}, adultX: {1980, 22},
	youngX: {2002, 6},
	childF: {2008, 18}, childM: {2008, 18},
}

const (
	daysUsed  = 365 // of every year; 31 December of a leap year stays free
	sequences = 499 // of each sex on one day: 1, 3 .. 997 and 2, 4 .. 998
)

func (g generation) slots() int { return g.years * daysUsed * sequences }

// numbers maps places to birth days and sequence numbers, one to one and back: an
// affine permutation of the slots of each generation and sex, different for every
// seed.
type numbers struct{ perms map[line]permutation }

type line struct {
	year int // the first of the generation
	sex  Sex
}

type permutation struct{ n, a, inverse, b uint64 }

func newNumbers(seed uint64) numbers {
	dice := rand.New(rand.NewPCG(mix(seed), 0x6e756d62657273))
	ns := numbers{perms: map[line]permutation{}}
	for i := range 2 * blockSize { // two blocks show both sexes at every place
		g, sex := generations[i%blockSize], sexAt(i/blockSize, i%blockSize)
		if _, done := ns.perms[line{g.first, sex}]; done {
			continue
		}
		n := uint64(g.slots())
		for {
			a := n/3 + dice.Uint64N(n/3)
			if inv, ok := inverse(a, n); ok {
				ns.perms[line{g.first, sex}] = permutation{n, a, inv, dice.Uint64N(n)}
				break
			}
		}
	}
	return ns
}

func (p permutation) at(x int) int   { return int((p.a*uint64(x) + p.b) % p.n) }
func (p permutation) back(y int) int { return int((uint64(y) + p.n - p.b) % p.n * p.inverse % p.n) }

// inverse gives a⁻¹ mod n, if there is one.
func inverse(a, n uint64) (uint64, bool) {
	t, next, r, rest := int64(0), int64(1), int64(n), int64(a)
	for rest != 0 {
		q := r / rest
		t, next = next, t-q*next
		r, rest = rest, r-q*rest
	}
	if r != 1 {
		return 0, false
	}
	if t < 0 {
		t += int64(n)
	}
	return uint64(t), true
}

// sexAt gives the sex of the person at a place: fixed, or by turns.
func sexAt(block, place int) Sex {
	switch place {
	case seniorF, middleF, adultF, childF:
		return Female
	case adultX, youngX:
		if block%2 == 0 {
			return Female
		}
	}
	return Male
}

// counter numbers the persons of one generation and sex without a clash.
func counter(block, place int) int {
	switch place {
	case adultF, adultM:
		return 2 * block
	case adultX:
		return 2*block + 1
	case youngX:
		return block / 2
	}
	return block
}

// birth gives the birth day and the sequence number of the person at a place.
func (ns numbers) birth(block, place int) (day names.Date, sequence int) {
	g := generations[place]
	slot := ns.perms[line{g.first, sexAt(block, place)}].at(counter(block, place))
	sequence = 2*(slot%sequences) + 1
	if sexAt(block, place) == Female {
		sequence++
	}
	slot /= sequences
	return date(g.first+slot/daysUsed, 1, 1) + names.Date(slot%daysUsed), sequence
}

// place is the inverse: the index of the person who may have this number. The
// number must be valid; whether the person has it is for the caller to see.
func (ns numbers) place(id subject.ID) (index int, ok bool) {
	if _, err := subject.Belgian().Parse(id.Scheme(), id.Number()); err != nil || id.Scheme() != subject.SSIN {
		return 0, false
	}
	n, _ := strconv.Atoi(id.Number())
	head, check := n/100, n%100
	year, month, day, sequence := head/1e7, head/1e5%100%20, head/1000%100, head%1000
	if check == subject.SSINCheckDigits(head, 2000) {
		year += 2000
	} else {
		year += 1900
	}
	sex := Male
	if sequence%2 == 0 {
		sex = Female
		sequence--
	}
	for place, g := range generations {
		if year < g.first || year >= g.first+g.years || month == 0 || day == 0 {
			continue
		}
		slot := (year-g.first)*daysUsed + int(date(year, month, day)-date(year, 1, 1))
		c := ns.perms[line{g.first, sex}].back(slot*sequences + sequence/2)
		for _, block := range []int{c, c / 2, 2 * c, 2*c + 1} {
			if counter(block, place) == c && sexAt(block, place) == sex {
				return block*blockSize + place, true
			}
		}
	}
	return 0, false
}

// Month offsets of bis numbers.
const (
	bisSexKnown   = 40
	bisSexUnknown = 20
)

// ssin writes the number of somebody born on day; offset is 0 or a bis offset.
func ssin(day names.Date, sequence, offset int) subject.ID {
	y, m, d := day.Time().Date()
	head := (y%100*10000+(int(m)+offset)*100+d)*1000 + sequence
	var b [11]byte
	n := head*100 + subject.SSINCheckDigits(head, y/100*100)
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return subject.Raw(subject.SSIN, string(b[:]))
}

// employer gives the employer at a place of the (endless) list of employers.
func employer(seed uint64, i int) Employer {
	h := int((mix(seed) + uint64(i)*7919) % 1_000_000)
	enterprise, office := 4_000_000+h, 1_000_000+h
	return Employer{
		Name:       fmt.Sprintf("%s %s", lastNames[h%len(lastNames)], trades[h/len(lastNames)%len(trades)]),
		Enterprise: fmt.Sprintf("%08d%02d", enterprise, 97-enterprise%97),
		Number:     fmt.Sprintf("%07d%02d", office, 96-office*100%97),
	}
}

// meterCode gives an 18-digit code of an energy connection, with its check digit.
func meterCode(household int) string {
	head := fmt.Sprintf("5414488%010d", household)
	sum := 0
	for i := range len(head) {
		w := 3
		if i%2 == 1 {
			w = 1
		}
		sum += w * int(head[i]-'0')
	}
	return fmt.Sprintf("%s%d", head, (10-sum%10)%10)
}

func date(year, month, day int) names.Date {
	return names.DateOf(time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC))
}

// anniversary gives the day years after d.
func anniversary(d names.Date, years int) names.Date {
	y, m, day := d.Time().Date()
	return date(y+years, int(m), day)
}

// mix spreads a seed over all its bits (the finaliser of SplitMix64), so that
// neighbouring blocks do not throw alike.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
