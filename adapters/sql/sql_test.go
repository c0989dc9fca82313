package sql

import (
	dbsql "database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/adapters/sourcetest"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func mustExec(t *testing.T, db *dbsql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%.60s: %v", query, err)
	}
}

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func openSource(t *testing.T, cfg config.SQLSource) *Source {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func ask(number string) exchange.Query {
	return exchange.Query{Subject: subject.Raw(subject.SSIN, number), Period: names.Period{From: names.Always, Until: names.Forever}}
}

// sqliteDatabase makes an empty database, open for writing.
func sqliteDatabase(t *testing.T) (*dbsql.DB, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "an odd name? 100%25 #1.db")
	db, err := dbsql.Open("sqlite", "file:"+strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23", " ", "%20").Replace(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db, path
}

const sqliteQuery = `SELECT label, count, amount, active, born
FROM fixture /* not :this */
WHERE subject = :subject AND first_day <= :until AND last_day >= :from AND ':text' <> ''
ORDER BY rowid;`

func TestSQLiteConformance(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.System {
		db, path := sqliteDatabase(t)
		mustExec(t, db, `CREATE TABLE fixture (subject TEXT, first_day TEXT, last_day TEXT,
			label TEXT, count INTEGER, amount DECIMAL(12,2), active BOOLEAN, born DATE)`)
		for _, r := range sourcetest.Fixture() {
			mustExec(t, db, "INSERT INTO fixture VALUES (?,?,?,?,?,?,?,?)", r.Subject, r.From, r.Until, r.Label, r.Count, r.Amount, r.Active, nullable(r.Born))
		}
		s := openSource(t, config.SQLSource{Driver: "sqlite", DSN: path, Query: sqliteQuery, MaxRows: sourcetest.MaxRows, Timeout: 500 * time.Millisecond})
		return sourcetest.System{
			Source: s, Close: s.Close, CountsRows: true,
			// SQLite keeps open files: a new connection is what fails.
			Break: func() { s.db.SetMaxIdleConns(-1); must(t, os.Rename(path, path+".away")) },
			Mend:  func() { must(t, os.Rename(path+".away", path)) },
			Hang:  func() { mustExec(t, db, "BEGIN EXCLUSIVE") },
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSQLiteTypes(t *testing.T) {
	db, path := sqliteDatabase(t)
	for i, c := range []struct{ declared, value, want string }{
		{"DATE", "'2024-02-29'", `"2024-02-29"`},
		{"DATE", "NULL", "null"},
		{"DATE", "'2024-02-30'", ""},
		{"DATE", "'2024-02-28 12:00:00'", ""},
		{"DATE", "'tomorrow'", ""},
		{"DATE", "20240229", ""},
		{"DATETIME", "'2024-02-29 12:34:56'", `"2024-02-29T12:34:56Z"`},
		{"TIMESTAMP", "'2024-02-29T12:34:56.5+02:00'", `"2024-02-29T10:34:56.5Z"`},
		{"DATETIME", "'noon'", ""},
		{"BOOLEAN", "1", "true"},
		{"BOOLEAN", "0", "false"},
		{"boolean", "TRUE", "true"},
		{"BOOLEAN", "2", ""},
		{"BOOLEAN", "'yes'", ""},
		{"DECIMAL(10,2)", "'1234.50'", "1234.50"},
		{"DECIMAL(10,2)", "1200", "1200.00"},
		{"DECIMAL(10,2)", "-0.05", "-0.05"},
		{"DECIMAL(10,2)", "0.005", ""},
		{"DECIMAL(10, 0)", "7", "7"},
		{"DECIMAL(10)", "7", "7"},
		{"NUMERIC", "1.25", "1.25"},
		{"NUMERIC", "'12345678901234567'", "12345678901234567"},
		{"DECIMAL(20,2)", "'123456789012345.67'", ""},
		{"DECIMAL(10,2)", "'a lot'", ""},
		{"INTEGER", "-9223372036854775808", "-9223372036854775808"},
		{"REAL", "0.1", "0.1"},
		{"REAL", "9e999", ""},
		{"TEXT", "'<a href=\"x\">'", `"\u003ca href=\"x\"\u003e"`},
		{"TEXT", "CAST(x'ff' AS TEXT)", ""},
		{"BLOB", "x'00'", ""},
		{"JSON", `'{"a": [1]}'`, `{"a": [1]}`},
		{"JSON", `'{"a": '`, ""},
	} {
		table := fmt.Sprintf("t%d", i)
		mustExec(t, db, fmt.Sprintf("CREATE TABLE %s (subject TEXT, v %s)", table, c.declared))
		mustExec(t, db, fmt.Sprintf("INSERT INTO %s VALUES ('1', %s)", table, c.value))
		s := openSource(t, config.SQLSource{Driver: "sqlite", DSN: path, Query: "SELECT v FROM " + table + " WHERE subject = :subject"})
		got, err := s.Fetch(t.Context(), ask("1"))
		switch {
		case c.want == "" && !errors.Is(err, ErrQuery):
			t.Errorf("%s %s: %s, %v; want an error", c.declared, c.value, got, err)
		case c.want != "" && (err != nil || len(got) != 1 || string(got[0]) != `{"v":`+c.want+`}`):
			t.Errorf("%s %s: %s, %v; want %s", c.declared, c.value, got, err, c.want)
		case err != nil && strings.Contains(err.Error(), strings.Trim(c.value, "'")) && len(c.value) > 3:
			t.Errorf("%s: the error shows the value: %v", c.declared, err)
		}
	}
}

// TestSQLiteIsReadOnly tries to write through a query.
func TestSQLiteIsReadOnly(t *testing.T) {
	db, path := sqliteDatabase(t)
	mustExec(t, db, "CREATE TABLE v (subject TEXT, n INTEGER)")
	mustExec(t, db, "INSERT INTO v VALUES ('1', 1)")
	for _, q := range []string{
		"WITH x AS (SELECT 1) DELETE FROM v WHERE subject = :subject RETURNING n",
		"WITH x AS (SELECT 2) INSERT INTO v SELECT :subject, 2 RETURNING n",
	} {
		s := openSource(t, config.SQLSource{Driver: "sqlite", DSN: path, Query: q})
		if got, err := s.Fetch(t.Context(), ask("1")); !errors.Is(err, ErrQuery) {
			t.Errorf("%s: %s, %v", q, got, err)
		}
	}
	for _, q := range []string{"DELETE FROM v WHERE subject = :subject", "PRAGMA query_only = :subject", "ATTACH :subject AS other", "VACUUM INTO :subject"} {
		if _, err := Open(config.SQLSource{Driver: "sqlite", DSN: path, Query: q}); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", q, err)
		}
	}
	var n int
	if err := db.QueryRow("SELECT count(*) FROM v").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows left, %v", n, err)
	}
	away := filepath.Join(t.TempDir(), "none.db")
	s := openSource(t, config.SQLSource{Driver: "sqlite", DSN: away, Query: "SELECT 1 AS n WHERE :subject = '1'"})
	if _, err := s.Fetch(t.Context(), ask("1")); !errors.Is(err, exchange.ErrSourceUnavailable) {
		t.Errorf("no file: %v", err)
	}
	if _, err := os.Stat(away); err == nil {
		t.Error("asking made a database")
	}
}

// TestLongQueriesEnd: the time limit reaches into a query that runs.
func TestLongQueriesEnd(t *testing.T) {
	_, path := sqliteDatabase(t)
	must(t, os.WriteFile(path, nil, 0o600))
	s := openSource(t, config.SQLSource{Driver: "sqlite", DSN: path, Timeout: 100 * time.Millisecond,
		Query: "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE :subject = '1') SELECT count(*) AS n FROM c"})
	began := time.Now()
	if _, err := s.Fetch(t.Context(), ask("1")); !errors.Is(err, exchange.ErrSourceUnavailable) {
		t.Errorf("endless: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestLargeAnswersAreRefused(t *testing.T) {
	_, path := sqliteDatabase(t)
	must(t, os.WriteFile(path, nil, 0o600))
	s := openSource(t, config.SQLSource{Driver: "sqlite", DSN: path, MaxRows: 10_000,
		Query: "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n < 5000 AND :subject = '1') SELECT n, hex(zeroblob(1024)) AS text FROM c"})
	if _, err := s.Fetch(t.Context(), ask("1")); !errors.Is(err, ErrQuery) {
		t.Errorf("large: %v", err)
	}
}

func TestColumnsMustBeFields(t *testing.T) {
	_, path := sqliteDatabase(t)
	must(t, os.WriteFile(path, nil, 0o600))
	for _, q := range []string{
		"SELECT 1 + 1 WHERE :subject = '1'", "SELECT 1 AS a, 2 AS a WHERE :subject = '1'", `SELECT 1 AS "a b" WHERE :subject = '1'`, `SELECT 1 AS "a""b" WHERE :subject = '1'`,
	} {
		s := openSource(t, config.SQLSource{Driver: "sqlite", DSN: path, Query: q})
		if _, err := s.Fetch(t.Context(), ask("1")); !errors.Is(err, ErrQuery) {
			t.Errorf("%s: %v", q, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	const q = "SELECT 1 AS n WHERE :subject = '1'"
	file := filepath.Join(t.TempDir(), "dsn")
	must(t, os.WriteFile(file, []byte(" \n"), 0o600))
	for name, cfg := range map[string]config.SQLSource{
		"nothing":           {},
		"no driver":         {DSN: "x", Query: q},
		"another driver":    {Driver: "mysql", DSN: "x", Query: q},
		"no dsn":            {Driver: "sqlite", Query: q},
		"two dsns":          {Driver: "sqlite", DSN: "x", DSNFile: file, Query: q},
		"no dsn file":       {Driver: "sqlite", DSNFile: "/does/not/exist", Query: q},
		"empty dsn file":    {Driver: "sqlite", DSNFile: file, Query: q},
		"memory":            {Driver: "sqlite", DSN: ":memory:", Query: q},
		"memory by mode":    {Driver: "sqlite", DSN: "file:x?mode=memory", Query: q},
		"writable":          {Driver: "sqlite", DSN: "file:x?mode=rwc", Query: q},
		"pragma":            {Driver: "sqlite", DSN: "file:x?_pragma=query_only(0)", Query: q},
		"pragma, escaped":   {Driver: "sqlite", DSN: "file:x?%5fquery_only=0", Query: q},
		"another host":      {Driver: "sqlite", DSN: "file://host/x", Query: q},
		"malformed escape":  {Driver: "sqlite", DSN: "file:%zz", Query: q},
		"postgres dsn":      {Driver: "postgres", DSN: "postgres://u:hunter2@:bad:/", Query: q},
		"no query":          {Driver: "sqlite", DSN: "x"},
		"no subject":        {Driver: "sqlite", DSN: "x", Query: "SELECT 1 AS n"},
		"negative rows":     {Driver: "sqlite", DSN: "x", Query: q, MaxRows: -1},
		"far too many rows": {Driver: "sqlite", DSN: "x", Query: q, MaxRows: exchange.MaxRecords + 1},
		"negative timeout":  {Driver: "sqlite", DSN: "x", Query: q, Timeout: -1},
	} {
		_, err := Open(cfg)
		if !errors.Is(err, ErrConfig) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.WriteFile(file, []byte(filepath.Join(t.TempDir(), "x.db")+"\n"), 0o600))
	openSource(t, config.SQLSource{Driver: "sqlite", DSNFile: file, Query: q})
	openSource(t, config.SQLSource{Driver: "sqlite", DSN: "file:///tmp/x.db?immutable=1&mode=ro", Query: q})
}
