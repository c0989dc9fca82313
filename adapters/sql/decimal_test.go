package sql

import (
	"math/big"
	"testing"
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
