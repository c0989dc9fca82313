package names

import (
	"fmt"
	"time"
)

// Date is a civil date, counted in days since 1970-01-01; it knows no time zone.
type Date int32

// The dates that stand for "since always" and "until further notice".
const (
	Always  Date = -719162 // 0001-01-01
	Forever Date = 2932896 // 9999-12-31
)

// DateOf gives the civil date of t in t's own location.
func DateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400)
}

// ParseDate reads YYYY-MM-DD.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return 0, fmt.Errorf("%w: date %q: want YYYY-MM-DD", ErrMalformed, clip(s))
	}
	days := t.Unix() / 86400
	if t.Unix()%86400 < 0 {
		days--
	}
	return Date(days), nil
}

// Time gives midnight UTC of d.
func (d Date) Time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// String gives YYYY-MM-DD.
func (d Date) String() string { return d.Time().Format(time.DateOnly) }

// MarshalText gives YYYY-MM-DD.
func (d Date) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads YYYY-MM-DD.
func (d *Date) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDate(string(b))
	return err
}

// Period is a span of days, both ends included.
type Period struct {
	From  Date `json:"from"`
	Until Date `json:"until"`
}

// Validate reports whether both ends are in range and in order.
func (p Period) Validate() error {
	switch {
	case p.From < Always || p.Until > Forever:
		return fmt.Errorf("%w: period out of range", ErrMalformed)
	case p.From > p.Until:
		return fmt.Errorf("%w: period ends (%s) before it begins (%s)", ErrMalformed, p.Until, p.From)
	}
	return nil
}

// Overlaps reports whether p and q share at least one day.
func (p Period) Overlaps(q Period) bool { return p.From <= q.Until && q.From <= p.Until }

// Contains reports whether d lies within p.
func (p Period) Contains(d Date) bool { return p.From <= d && d <= p.Until }
