package reading

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// ReportQuery says what counts as unusual. Zero fields take the default named with
// them.
type ReportQuery struct {
	From  time.Time // default: 30 days before Until
	Until time.Time // default: now
	// Zone is the time zone of the working day, as "Europe/Brussels"; default UTC.
	Zone string
	// Begins and Ends are the working day, as 07:00 and 19:00, the defaults.
	// Weekends count as working days only with Weekends.
	Begins, Ends string
	Weekends     bool
	// Volume is how many times the median of all users is much; default 3.
	Volume float64
	// Repeated is how often one user asking about the same person is often; default 5.
	Repeated int
}

// Report is what the users whom an officer oversees did that is out of the common.
// It accuses nobody: night shifts and large files are ordinary too.
type Report struct {
	From     time.Time  `json:"from"`
	Until    time.Time  `json:"until"`
	Zone     string     `json:"zone"`
	Begins   string     `json:"begins"`
	Ends     string     `json:"ends"`
	Uses     int        `json:"uses"`  // questions asked
	Users    int        `json:"users"` // who asked any
	Median   float64    `json:"median"`
	OffHours []OffHours `json:"off_hours"` // outside the working day, the most first
	Volume   []Volume   `json:"volume"`    // far more than others
	Repeated []Repeated `json:"repeated"`  // the same person again and again
	Partial  bool       `json:"partial,omitempty"`
}

// OffHours is what one user asked outside the working day.
type OffHours struct {
	User  string    `json:"user"`
	Uses  int       `json:"uses"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// Volume is how much one user asked, against the median of all.
type Volume struct {
	User  string  `json:"user"`
	Uses  int     `json:"uses"`
	Times float64 `json:"times_median"`
}

// Repeated is one user's questions about one person.
type Repeated struct {
	User    string         `json:"user"`
	Subject RepeatedPerson `json:"subject"`
	Uses    int            `json:"uses"`
	Days    int            `json:"days"` // different ones
	First   time.Time      `json:"first"`
	Last    time.Time      `json:"last"`
	Tickets []names.Ticket `json:"tickets"` // the newest, at most 10
}

// RepeatedPerson is a subject's number. It is personal data.
type RepeatedPerson struct {
	Scheme string `json:"scheme"`
	Number string `json:"number"`
}

const maxTickets = 10

// working is the working day.
type working struct {
	zone         *time.Location
	begins, ends time.Duration // since midnight
	weekends     bool
}

func (q *ReportQuery) complete(now time.Time) (working, error) {
	if q.Until.IsZero() {
		q.Until = now
	}
	if q.From.IsZero() {
		q.From = q.Until.AddDate(0, 0, -30)
	}
	q.Zone, q.Begins, q.Ends = cmp.Or(q.Zone, "UTC"), cmp.Or(q.Begins, "07:00"), cmp.Or(q.Ends, "19:00")
	q.Volume, q.Repeated = cmp.Or(q.Volume, 3), cmp.Or(q.Repeated, 5)
	w := working{weekends: q.Weekends}
	var err error
	if w.zone, err = time.LoadLocation(q.Zone); err != nil || q.Zone == "Local" {
		return w, fmt.Errorf("%w: zone: want one as Europe/Brussels or UTC", ErrMalformed)
	}
	for text, d := range map[string]*time.Duration{q.Begins: &w.begins, q.Ends: &w.ends} {
		t, err := time.Parse("15:04", text)
		if err != nil {
			return w, fmt.Errorf("%w: begins and ends: want a time of day as 07:00", ErrMalformed)
		}
		*d = time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	}
	switch {
	case !q.From.Before(q.Until):
		return w, fmt.Errorf("%w: from must be before until", ErrMalformed)
	case w.begins >= w.ends:
		return w, fmt.Errorf("%w: the working day must begin before it ends", ErrMalformed)
	case q.Volume < 1 || q.Repeated < 2:
		return w, fmt.Errorf("%w: volume must be at least 1 and repeated at least 2", ErrMalformed)
	}
	return w, nil
}

func (w working) off(t time.Time) bool {
	t = t.In(w.zone)
	since := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	weekend := t.Weekday() == time.Saturday || t.Weekday() == time.Sunday
	return weekend && !w.weekends || since < w.begins || since >= w.ends
}

// Report looks for what is unusual among the questions of the users whom an officer
// oversees. The error wraps ErrMalformed, ErrNoRight or ErrJournal.
func (s *Service) Report(ctx context.Context, who Reader, q ReportQuery) (*Report, error) {
	day, err := q.complete(s.cfg.Now())
	if err != nil {
		return nil, err
	}
	if err := s.oversees(ctx, who, "", "report of unusual use"); err != nil {
		return nil, err
	}
	t := tally{day: day, users: map[string]int{}, off: map[string]*OffHours{}, repeated: map[string]*Repeated{}, days: map[string]map[string]bool{}}
	partial, err := s.scan(ctx, who, Search{From: q.From, Until: q.Until}, func(e journal.Stored) bool {
		t.add(e.Entry)
		return true
	})
	if err != nil {
		return nil, err
	}
	r := t.report(q)
	r.Partial = partial
	return r, nil
}

// tally counts questions; they come the newest first.
type tally struct {
	day      working
	users    map[string]int
	off      map[string]*OffHours
	repeated map[string]*Repeated
	days     map[string]map[string]bool
}

func (t *tally) add(e *nodepb.Entry) {
	if e.GetEvent() != nodepb.Event_REQUESTED {
		return
	}
	user, when := e.GetUser(), at(e.GetTimeUnixMs())
	t.users[user]++
	if t.day.off(when) {
		o := t.off[user]
		if o == nil {
			o = &OffHours{User: user, Last: when}
			t.off[user] = o
		}
		o.Uses++
		o.First = when
	}
	if e.GetSubject() == nil {
		return
	}
	k := user + "\x00" + e.Subject.Scheme + "\x00" + e.Subject.Number
	r := t.repeated[k]
	if r == nil {
		r = &Repeated{User: user, Subject: RepeatedPerson{e.Subject.Scheme, e.Subject.Number}, Last: when}
		t.repeated[k], t.days[k] = r, map[string]bool{}
	}
	r.Uses++
	r.First = when
	t.days[k][when.In(t.day.zone).Format(time.DateOnly)] = true
	if len(r.Tickets) < maxTickets {
		r.Tickets = append(r.Tickets, names.Ticket(e.GetTicket()))
	}
}

func (t *tally) report(q ReportQuery) *Report {
	r := &Report{
		From: q.From.UTC(), Until: q.Until.UTC(), Zone: q.Zone, Begins: q.Begins, Ends: q.Ends, Users: len(t.users),
		OffHours: []OffHours{}, Volume: []Volume{}, Repeated: []Repeated{},
	}
	counts := make([]int, 0, len(t.users))
	for _, n := range t.users {
		counts = append(counts, n)
		r.Uses += n
	}
	r.Median = median(counts)
	for user, n := range t.users {
		if len(t.users) > 1 && float64(n) >= q.Volume*r.Median {
			r.Volume = append(r.Volume, Volume{User: user, Uses: n, Times: float64(n) / r.Median})
		}
	}
	for _, o := range t.off {
		r.OffHours = append(r.OffHours, *o)
	}
	for k, p := range t.repeated {
		if p.Days = len(t.days[k]); p.Uses >= q.Repeated {
			r.Repeated = append(r.Repeated, *p)
		}
	}
	slices.SortFunc(r.OffHours, func(a, b OffHours) int { return cmp.Or(b.Uses-a.Uses, cmp.Compare(a.User, b.User)) })
	slices.SortFunc(r.Volume, func(a, b Volume) int { return cmp.Or(b.Uses-a.Uses, cmp.Compare(a.User, b.User)) })
	slices.SortFunc(r.Repeated, func(a, b Repeated) int {
		return cmp.Or(b.Uses-a.Uses, cmp.Compare(a.User, b.User), cmp.Compare(a.Subject.Number, b.Subject.Number))
	})
	return r
}

func median(counts []int) float64 {
	slices.Sort(counts)
	n := len(counts)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return float64(counts[n/2])
	}
	return float64(counts[n/2-1]+counts[n/2]) / 2
}
