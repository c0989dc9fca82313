// Package sourcetest holds what every exchange.Source must do, whatever system
// stands behind it. An adapter's test hands Run a way to stand its system up with
// the records of Fixture in it; everything else is the same for all.
package sourcetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/batch/sources"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Dataset is the one that the fixture's records belong to.
const Dataset names.DatasetID = "fixture/v1"

// Row is one record in the system under test, and the time it is about.
type Row struct {
	Subject     string
	From, Until string // YYYY-MM-DD, both ends included
	Label       string // text
	Count       int64  // integer
	Amount      string // decimal with two decimals
	Active      bool   // boolean
	Born        string // date; empty: null
}

// JSON is the record as the source must give it, byte for byte.
func (r Row) JSON() json.RawMessage {
	born := json.RawMessage("null")
	if r.Born != "" {
		born, _ = json.Marshal(r.Born) // a string always marshals
	}
	b, _ := json.Marshal(struct {
		Label  string          `json:"label"`
		Count  int64           `json:"count"`
		Amount json.RawMessage `json:"amount"`
		Active bool            `json:"active"`
		Born   json.RawMessage `json:"born"`
	}{r.Label, r.Count, json.RawMessage(r.Amount), r.Active, born}) // the parts are JSON
	return b
}

// The subjects of the fixture. Nobody has no record.
const (
	Anna   = "74071238186"
	Bert   = "03022814690"
	Nobody = "61000000317"
	Many   = "88510521792" // has more records than a source with MaxRows allows
)

// MaxRows is the limit that the system under test is opened with, if its adapter
// counts records.
const MaxRows = 50

// Fixture is what the system must hold, in this order.
func Fixture() []Row {
	rows := []Row{
		{Anna, "2024-01-01", "2024-03-31", "first quarter", 62, "9123.40", true, "1974-07-12"},
		{Anna, "2024-04-01", "2024-06-30", "second 'quarter'; \"quoted\" \\ <&> é 漢", -1, "0.00", false, ""},
		{Anna, "2025-01-01", "9999-12-31", "", 9007199254740993, "9999999999.99", true, "1900-02-28"},
		{Bert, "0001-01-01", "9999-12-31", "always", 0, "-0.05", false, "2003-02-28"},
	}
	for range MaxRows + 1 {
		rows = append(rows, Row{Many, "2024-01-01", "2024-01-31", "one of many", 1, "1.00", true, ""})
	}
	return rows
}

// System is a system under test with the fixture in it.
type System struct {
	Source exchange.Source
	Close  func() error // of the source
	// Break makes the system unreachable, Mend undoes it. Nil: it cannot be.
	Break, Mend func()
	// Hang makes the system take longer than its time limit, until the test ends.
	// Nil: it cannot be.
	Hang func()
	// CountsRows: more than MaxRows is an error.
	CountsRows bool
}

// Run holds a kind of source against everything that a source must do. Stand makes
// a new system for each part.
func Run(t *testing.T, stand func(t *testing.T) System) {
	parts := map[string]func(*testing.T, System){
		"records": records, "periods": periods, "nobody": nobody, "injection": injection, "concurrent": concurrent,
		"cancelled": cancelled, "unavailable": unavailable, "hanging": hanging, "closed": closed, "too many": tooMany,
		"at once": atOnce,
	}
	for name, part := range parts {
		t.Run(name, func(t *testing.T) { part(t, stand(t)) })
	}
}

func query(number, from, until string) exchange.Query {
	f, err := names.ParseDate(from)
	u, err2 := names.ParseDate(until)
	if err != nil || err2 != nil {
		panic("sourcetest: malformed date")
	}
	return exchange.Query{
		Dataset: Dataset, Subject: subject.Raw(subject.SSIN, number), Period: names.Period{From: f, Until: u},
		Qualities: []names.Quality{"employee"}, Fields: []names.FieldName{"label", "count", "amount", "active", "born"},
	}
}

func everything(number string) exchange.Query { return query(number, "0001-01-01", "9999-12-31") }

func fetch(t *testing.T, s System, q exchange.Query) []json.RawMessage {
	t.Helper()
	got, err := s.Source.Fetch(t.Context(), q)
	if err != nil {
		t.Fatalf("Fetch: %v", err)
	}
	return got
}

func expect(t *testing.T, got []json.RawMessage, want ...Row) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i, r := range want {
		if !bytes.Equal(got[i], r.JSON()) {
			t.Errorf("record %d:\n got %s\nwant %s", i, got[i], r.JSON())
		}
	}
}

// hides fails if an error quotes the number it was about.
func hides(t *testing.T, err error, number string) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), number) {
		t.Errorf("the error quotes the number: %v", err)
	}
}

func records(t *testing.T, s System) {
	rows := Fixture()
	expect(t, fetch(t, s, everything(Anna)), rows[0], rows[1], rows[2])
	expect(t, fetch(t, s, everything(Bert)), rows[3])
}

// periods: both ends are included, on both sides.
func periods(t *testing.T, s System) {
	rows := Fixture()
	for _, c := range []struct {
		from, until string
		want        []Row
	}{
		{"2024-03-31", "2024-03-31", rows[0:1]},
		{"2024-04-01", "2024-04-01", rows[1:2]},
		{"2024-03-31", "2024-04-01", rows[0:2]},
		{"2023-01-01", "2024-01-01", rows[0:1]},
		{"2023-01-01", "2023-12-31", nil},
		{"2024-07-01", "2024-12-31", nil},
		{"2024-12-31", "2025-01-01", rows[2:3]},
		{"9999-12-31", "9999-12-31", rows[2:3]},
	} {
		expect(t, fetch(t, s, query(Anna, c.from, c.until)), c.want...)
	}
}

// nobody: no records are an empty slice, not nil, and no error.
func nobody(t *testing.T, s System) {
	if got := fetch(t, s, everything(Nobody)); got == nil || len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// injection: a number that is no number finds nobody, whatever it says.
func injection(t *testing.T, s System) {
	for _, n := range []string{
		"' OR '1'='1", "x'; DROP TABLE fixture; --", `" OR ""="`, "%", "_", "*", ":subject", "$1", "?1", "{}", `","number":"` + Anna, "", "é",
	} {
		got, err := s.Source.Fetch(t.Context(), everything(n))
		if err == nil && len(got) != 0 {
			t.Errorf("%q found %d records", n, len(got))
		}
		if n != "" && len(n) > 2 {
			hides(t, err, n)
		}
	}
	expect(t, fetch(t, s, everything(Bert)), Fixture()[3])
}

func concurrent(t *testing.T, s System) {
	rows := Fixture()
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for range 5 {
				got, err := s.Source.Fetch(t.Context(), everything(Bert))
				if err != nil || len(got) != 1 || !bytes.Equal(got[0], rows[3].JSON()) {
					t.Errorf("%d records, %v", len(got), err)
				}
			}
		})
	}
	all.Wait()
}

func cancelled(t *testing.T, s System) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Source.Fetch(ctx, everything(Anna))
	if !errors.Is(err, exchange.ErrSourceUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	hides(t, err, Anna)
}

// unavailable: a system that is away is unavailable, and found again when it is
// back.
func unavailable(t *testing.T, s System) {
	if s.Break == nil {
		t.Skip("this system cannot be made to go away")
	}
	fetch(t, s, everything(Bert))
	s.Break()
	_, err := s.Source.Fetch(t.Context(), everything(Anna))
	if !errors.Is(err, exchange.ErrSourceUnavailable) {
		t.Errorf("away: %v", err)
	}
	hides(t, err, Anna)
	s.Mend()
	got, err := s.Source.Fetch(t.Context(), everything(Bert))
	if errors.Is(err, exchange.ErrSourceUnavailable) { // the first after may find a dead connection
		got, err = s.Source.Fetch(t.Context(), everything(Bert))
	}
	if err != nil || len(got) != 1 {
		t.Errorf("back again: %d records, %v", len(got), err)
	}
}

// hanging: a system that does not answer holds nobody up for long.
func hanging(t *testing.T, s System) {
	if s.Hang == nil {
		t.Skip("this system cannot be made to hang")
	}
	s.Hang()
	began := time.Now()
	_, err := s.Source.Fetch(t.Context(), everything(Anna))
	if !errors.Is(err, exchange.ErrSourceUnavailable) {
		t.Errorf("hanging: %v", err)
	}
	hides(t, err, Anna)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func closed(t *testing.T, s System) {
	fetch(t, s, everything(Bert))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// An adapter without connections of its own may still answer; if not, the
	// system is unavailable.
	if _, err := s.Source.Fetch(t.Context(), everything(Anna)); err != nil && !errors.Is(err, exchange.ErrSourceUnavailable) {
		t.Errorf("closed: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// tooMany: more than the limit is an error, never a part.
func tooMany(t *testing.T, s System) {
	got, err := s.Source.Fetch(t.Context(), everything(Many))
	switch {
	case s.CountsRows && (err == nil || errors.Is(err, exchange.ErrSourceUnavailable)):
		t.Errorf("%d records, %v", len(got), err)
	case !s.CountsRows && (err != nil || len(got) != MaxRows+1):
		t.Errorf("%d records, %v", len(got), err)
	}
	hides(t, err, Many)
}

// atOnce: many questions at once are answered as each is by itself, or not at all.
func atOnce(t *testing.T, s System) {
	source, can := s.Source.(sources.Many)
	if !can {
		t.Skip("this system is asked about one subject at a time")
	}
	rows := Fixture()
	for _, n := range []int{1, 2, 63, 64, 65, 600} {
		var queries []exchange.Query
		for i := range n {
			queries = append(queries, query([]string{Anna, Nobody, Bert, "' OR '1'='1", ""}[i%5], "2024-03-01", "2024-04-30"))
		}
		got, ok, err := source.FetchMany(t.Context(), queries)
		switch {
		case err != nil || ok && len(got) != n:
			t.Fatalf("%d questions: %d answers, %v", n, len(got), err)
		case !ok && n > 60:
			t.Errorf("%d questions were not taken at once", n)
		case !ok:
			continue
		}
		for i, records := range got {
			switch i % 5 {
			case 0:
				expect(t, records, rows[0], rows[1])
			case 2:
				expect(t, records, rows[3])
			default:
				if records == nil || len(records) > 0 {
					t.Errorf("question %d: %v", i, records)
				}
			}
		}
	}
	var queries []exchange.Query
	for range 100 {
		queries = append(queries, everything(Bert))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := source.FetchMany(ctx, queries); !errors.Is(err, exchange.ErrSourceUnavailable) {
		t.Errorf("cancelled: %v", err)
	}
	if s.CountsRows { // one by one, the others have theirs
		if _, ok, err := source.FetchMany(t.Context(), append(queries, everything(Many))); ok || err != nil {
			t.Errorf("too many of one: %v, %v", ok, err)
		}
	}
	switch { // nothing follows: connections may have ended
	case s.Break != nil:
		s.Break()
		_, ok, err := source.FetchMany(t.Context(), queries)
		if ok || !errors.Is(err, exchange.ErrSourceUnavailable) {
			t.Errorf("away: %v, %v", ok, err)
		}
		hides(t, err, Bert)
		s.Mend()
	case s.Hang != nil:
		s.Hang()
		if _, ok, err := source.FetchMany(t.Context(), queries); ok {
			t.Errorf("hanging: %v, %v", ok, err)
		}
	}
}
