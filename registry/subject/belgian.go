package subject

import (
	"fmt"
	"strings"
	"time"
)

type (
	ssinChecker struct{}
	cbeChecker  struct{}
	nssoChecker struct{}
)

// Normalise checks an SSIN (INSZ/NISS): YYMMDD NNN CC, domain page section 5.
func (ssinChecker) Normalise(number string) (string, error) {
	n, err := digits(number, 11)
	if err != nil {
		return "", err
	}
	century, ok := ssinCentury(n)
	if !ok {
		return "", fmt.Errorf("%w: check digits do not match", ErrMalformed)
	}
	month, day := atoi(n[2:4]), atoi(n[4:6])
	switch { // bis numbers: + 20 sex unknown, + 40 sex known
	case month >= 40:
		month -= 40
	case month >= 20:
		month -= 20
	}
	if month > 12 {
		return "", fmt.Errorf("%w: no such month", ErrMalformed)
	}
	if !dayExists(century+atoi(n[0:2]), month, day) {
		return "", fmt.Errorf("%w: no such day", ErrMalformed)
	}
	if seq := n[6:9]; seq == "000" || seq == "999" {
		return "", fmt.Errorf("%w: sequence %s is not used", ErrMalformed, seq)
	}
	return n, nil
}

// ssinCentury tells by its check digits whether n was given to somebody born in
// the 1900s or the 2000s.
func ssinCentury(n string) (century int, ok bool) {
	head, check := atoi(n[:9]), atoi(n[9:])
	switch check {
	case 97 - head%97:
		return 1900, true
	case 97 - (2_000_000_000+head)%97:
		return 2000, true
	}
	return 0, false
}

// SSINCheckDigits gives the two last digits for the nine first ones of an SSIN of
// somebody born in the given century (1900 or 2000).
func SSINCheckDigits(head, century int) int {
	if century == 2000 {
		head += 2_000_000_000
	}
	return 97 - head%97
}

// dayExists allows unknown parts (00). With the month unknown any day up to 31
// may stand.
func dayExists(year, month, day int) bool {
	switch {
	case day == 0:
		return true
	case month == 0:
		return day <= 31
	}
	return day <= 28 || day <= time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// Normalise checks an enterprise or establishment number of the Crossroads Bank
// for Enterprises.
func (cbeChecker) Normalise(number string) (string, error) {
	n, err := digits(number, 10)
	if err != nil {
		return "", err
	}
	if n[0] == '9' {
		return "", fmt.Errorf("%w: the first digit is 0 or 1 for an enterprise, 2 to 8 for an establishment", ErrMalformed)
	}
	if atoi(n[8:]) != 97-atoi(n[:8])%97 {
		return "", fmt.Errorf("%w: check digits do not match", ErrMalformed)
	}
	return n, nil
}

// Normalise checks an employer number of the NSSO.
func (nssoChecker) Normalise(number string) (string, error) {
	n, err := digits(number, 9)
	if err != nil {
		return "", err
	}
	if atoi(n[7:]) != 96-atoi(n[:7])*100%97 {
		return "", fmt.Errorf("%w: check digits do not match", ErrMalformed)
	}
	return n, nil
}

var separators = strings.NewReplacer(" ", "", ".", "", "-", "", "/", "")

// digits drops the usual separators and insists on exactly count digits.
func digits(s string, count int) (string, error) {
	if len(s) == count && allDigits(s) { // as nearly all come
		return s, nil
	}
	if len(s) > 3*count {
		return "", fmt.Errorf("%w: want %d digits", ErrMalformed, count)
	}
	s = separators.Replace(s)
	if len(s) != count || strings.Trim(s, "0123456789") != "" {
		return "", fmt.Errorf("%w: want %d digits", ErrMalformed, count)
	}
	return s, nil
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// atoi reads a short run of digits that was checked before.
func atoi(s string) (n int) {
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	return n
}
