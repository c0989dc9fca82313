package sql

import (
	"slices"
	"strings"
	"testing"
)

func TestBind(t *testing.T) {
	for _, c := range []struct {
		d       dialect
		in, out string
		order   string
	}{
		{sqliteDialect, "a WHERE s = :subject", "a WHERE s = ?1", "subject"},
		{sqliteDialect, ":until :subject :until :from", "?1 ?2 ?1 ?3", "until subject from"},
		{sqliteDialect, "':from' :subject '''' ':until'", "':from' ?1 '''' ':until'", "subject"},
		{sqliteDialect, `":from" [:from] ` + "`:from`" + ` :subject`, `":from" [:from] ` + "`:from`" + ` ?1`, "subject"},
		{sqliteDialect, "-- :from ; '\n:subject -- '", "-- :from ; '\n?1 -- '", "subject"},
		{sqliteDialect, "/* :from /* ; */ :subject", "/* :from /* ; */ ?1", "subject"},
		{sqliteDialect, ":subject ; -- end\n ; ", "?1  -- end\n  ", "subject"},
		{sqliteDialect, `'\' :subject`, `'\' ?1`, "subject"},
		{postgresDialect, ":subject::text, x::date, :from", "$1::text, x::date, $2", "subject from"},
		{postgresDialect, `E'\' :from' :subject`, `E'\' :from' $1`, "subject"},
		{postgresDialect, `e'\\' :subject`, `e'\\' $1`, "subject"},
		{postgresDialect, `'\' :subject`, `'\' $1`, "subject"},
		{postgresDialect, `the'\' :subject`, `the'\' $1`, "subject"},
		{postgresDialect, "$$ :from $$ $a$ :until $$ $a$ :subject", "$$ :from $$ $a$ :until $$ $a$ $1", "subject"},
		{postgresDialect, "/* /* */ :from */ :subject", "/* /* */ :from */ $1", "subject"},
		{postgresDialect, "a[1:2] , b[:3], name$1, :subject, j ? 'k', @ -1", "a[1:2] , b[:3], name$1, $1, j ? 'k', @ -1", "subject"},
		{postgresDialect, "f(a := :subject)", "f(a := $1)", "subject"},
	} {
		out, order, err := bind("SELECT "+c.in, c.d)
		if err != nil || out != "SELECT "+c.out || strings.Join(order, " ") != c.order {
			t.Errorf("%s\n got %s %v, %v\nwant %s", c.in, out, order, err, c.out)
		}
	}
}

func TestBindRefuses(t *testing.T) {
	for _, c := range []struct {
		d  dialect
		in string
	}{
		{sqliteDialect, ""}, {sqliteDialect, "1"}, {sqliteDialect, "':subject'"}, {sqliteDialect, "-- :subject"},
		{sqliteDialect, ":subject; DELETE FROM x"}, {postgresDialect, ":subject; DELETE FROM x"}, {sqliteDialect, ":subject; /* */ 1"},
		{sqliteDialect, ":subject ?"}, {sqliteDialect, ":subject ?1"}, {sqliteDialect, ":subject @x"}, {sqliteDialect, ":subject $x"}, {sqliteDialect, ":subject :1"},
		{postgresDialect, ":subject $1"}, {postgresDialect, ":subject $"}, {postgresDialect, ":subject $$ x"}, {postgresDialect, ":subject $a$ x $b$"},
		{sqliteDialect, ":subject :Subject"}, {sqliteDialect, ":subjects"}, {sqliteDialect, ":number"}, {sqliteDialect, ":subject 'x"}, {sqliteDialect, ":subject \"x"},
		{sqliteDialect, ":subject /* x"}, {postgresDialect, ":subject /* /* */"}, {postgresDialect, `:subject E'\'`}, {sqliteDialect, ":subject \x00"}, {sqliteDialect, ":subject [x"},
	} {
		if out, _, err := bind("SELECT "+c.in, c.d); err == nil {
			t.Errorf("%q was taken as %q", c.in, out)
		}
	}
	for _, q := range []string{"", " \n", ":subject", "(:subject)", "-- SELECT\n:subject", "'SELECT' :subject", "DELETE FROM x WHERE y = :subject", "selects :subject"} {
		if out, _, err := bind(q, sqliteDialect); err == nil {
			t.Errorf("%q was taken as %q", q, out)
		}
	}
	for _, q := range []string{"/* */ select :subject", "((SELECT :subject))", "With x as (select 1) select :subject"} {
		if _, _, err := bind(q, postgresDialect); err != nil {
			t.Errorf("%q: %v", q, err)
		}
	}
}

// FuzzBind: what comes out has no named parameter left outside quotes, and binding
// changes nothing but parameters and semicolons.
func FuzzBind(f *testing.F) {
	f.Add("SELECT a FROM t WHERE s = :subject AND d >= :from", true)
	f.Add("SELECT E'\\'' $$ $$ :subject -- x", true)
	f.Add("SELECT [a] `b` \"c\" :subject;", false)
	f.Fuzz(func(t *testing.T, query string, pg bool) {
		d := sqliteDialect
		if pg {
			d = postgresDialect
		}
		out, order, err := bind(query, d)
		if err != nil {
			return
		}
		if !slices.Contains(order, paramSubject) || len(order) > 3 {
			t.Fatalf("order %v", order)
		}
		back := out
		for i, name := range order {
			back = strings.ReplaceAll(back, string(d.mark)+string(rune('1'+i)), ":"+name)
		}
		plain := func(s string) string { return strings.ReplaceAll(s, ";", "") }
		if !strings.ContainsAny(query, "$?") && plain(back) != plain(query) {
			t.Fatalf("%q became %q", query, out)
		}
	})
}
