package sql

import (
	dbsql "database/sql"
	"fmt"
	"math/big"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/config"
)

// byRationals is appendDecimal as rational numbers have it, for a text that is a decimal.
func byRationals(text string, scale int) (string, bool) {
	exact, ok := new(big.Rat).SetString(text)
	if !ok {
		return "", false
	}
	scaled := exact.FloatString(scale)
	back, ok := new(big.Rat).SetString(scaled)
	return scaled, ok && back.Cmp(exact) == 0
}

// FuzzDecimal holds the decimals that are written by their digits against rational
// numbers.
func FuzzDecimal(f *testing.F) {
	for _, s := range []string{"0", "-0", "-0.00", "1.50", "1.500", "1.501", "12", "-12.3", "0.001", "100.00", "-0.10", ".5", "5.", "007", "1e9", "", "-", "1.2.3", "99999999999999999999.99"} {
		for _, scale := range []int{0, 1, 2, 5} {
			f.Add(s, scale)
		}
	}
	f.Fuzz(func(t *testing.T, text string, scale int) {
		if scale < 0 || scale > 100 {
			return
		}
		got, err := column{kind: kindDecimal, scale: scale}.appendDecimal([]byte("7-.0"), text)
		if !isDecimal([]byte(text)) {
			if err == nil {
				t.Fatalf("%q, which is no decimal, became %q", text, got)
			}
			return
		}
		want, exact := byRationals(text, scale)
		if exact != (err == nil) || err == nil && string(got) != "7-.0"+want {
			t.Fatalf("%q with %d decimals: %q, %v; want %q, exact %t", text, scale, got, err, want, exact)
		}
	})
}

// BenchmarkRecord is a row of two decimals, two numbers, a date and a text.
func BenchmarkRecord(b *testing.B) {
	columns := []column{{"year", kindOther, noScale}, {"quarter", kindOther, noScale}, {"gross_wage", kindDecimal, 2}, {"days", kindDecimal, 2}, {"first_day", kindDate, noScale}, {"employer", kindOther, noScale}}
	values := []any{int64(2025), int64(3), 9876.5, "61.25", "2025-07-01", "0417497106"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := record(columns, values); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFetch asks about one of a thousand, of whom four rows are kept each.
func BenchmarkFetch(b *testing.B) {
	path := b.TempDir() + "/kept.db"
	db, err := dbsql.Open("sqlite", path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	for _, q := range []string{
		"CREATE TABLE wages (subject TEXT, year INTEGER, quarter INTEGER, gross_wage DECIMAL(12,2), days DECIMAL(5,2), first_day DATE, employer TEXT)",
		"WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 3999) INSERT INTO wages SELECT printf('%011d', n / 4), 2025, n % 4 + 1, n + 0.25, 61.5, '2025-01-01', '0417497106' FROM i",
		"CREATE INDEX of_subject ON wages (subject)",
	} {
		if _, err := db.Exec(q); err != nil {
			b.Fatal(err)
		}
	}
	s, err := Open(config.SQLSource{Driver: "sqlite", DSN: path,
		Query: "SELECT year, quarter, gross_wage, days, first_day, employer FROM wages WHERE subject = :subject ORDER BY quarter"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if r, err := s.Fetch(b.Context(), ask(fmt.Sprintf("%011d", i%1000))); err != nil || len(r) != 4 {
			b.Fatal(len(r), err)
		}
	}
}
