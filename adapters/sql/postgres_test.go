package sql

import (
	"context"
	dbsql "database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver, to write the fixture with
	"go.uber.org/goleak"

	"github.com/crossroads-mesh/crossroads/adapters/sourcetest"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
)

// postgres is the server that the tests share: the one of CROSSROADS_TEST_POSTGRES
// (a URL whose user may create databases), or one of their own that lives as long
// as the tests.
var postgres = sync.OnceValues(startPostgres)

var stopPostgres = func() {}

func TestMain(m *testing.M) {
	code := m.Run()
	stopPostgres()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var errNoPostgres = errors.New("SKIPPED: PostgreSQL absent, install postgresql (or set CROSSROADS_TEST_POSTGRES)")

func startPostgres() (url string, err error) {
	if url := os.Getenv("CROSSROADS_TEST_POSTGRES"); url != "" {
		return url, nil
	}
	return ownPostgres()
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// awaitServer connects until the server takes it: it has no other way to say so.
func awaitServer(url string) error {
	db, err := dbsql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		if err = db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// postgresDatabase makes a database for one test and gives an open handle that may
// write, and its URL.
func postgresDatabase(t *testing.T) (db *dbsql.DB, url string) {
	t.Helper()
	_, _, db, url = postgresServer(t)
	return db, url
}

// postgresServer gives a handle on the server's own database and the name of the
// test's besides.
func postgresServer(t *testing.T) (admin *dbsql.DB, name string, db *dbsql.DB, url string) {
	t.Helper()
	server, err := postgres()
	if errors.Is(err, errNoPostgres) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	admin, err = dbsql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	name = fmt.Sprintf("crossroads_test_%d_%d", os.Getpid(), time.Now().UnixNano())
	if _, err := admin.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndexByte(server, '/')
	_, options, _ := strings.Cut(server[at:], "?")
	url = server[:at+1] + name + "?" + options
	if db, err = dbsql.Open("pgx", url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = db.Close()
		if _, err := admin.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Error(err)
		}
		_ = admin.Close()
	})
	return admin, name, db, url
}

const postgresQuery = `SELECT label, count, amount, active, born
FROM fixture -- :nobody's parameter
WHERE subject = :subject AND first_day <= :until::date AND last_day >= :from::date
ORDER BY id`

func TestPostgresConformance(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.System {
		admin, name, db, url := postgresServer(t)
		mustExec(t, db, `CREATE TABLE fixture (id serial, subject text, first_day date, last_day date,
			label text, count bigint, amount numeric(12,2), active boolean, born date)`)
		for _, r := range sourcetest.Fixture() {
			mustExec(t, db, "INSERT INTO fixture (subject, first_day, last_day, label, count, amount, active, born) VALUES ($1,$2,$3,$4,$5,$6,$7,$8)",
				r.Subject, r.From, r.Until, r.Label, r.Count, r.Amount, r.Active, nullable(r.Born))
		}
		s := openSource(t, config.SQLSource{Driver: "postgres", DSN: url, Query: postgresQuery, MaxRows: sourcetest.MaxRows, Timeout: time.Second})
		return sourcetest.System{
			Source: s, Close: s.Close, CountsRows: true,
			Break: func() {
				mustExec(t, admin, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false")
				mustExec(t, admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
			},
			Mend: func() { mustExec(t, admin, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS true") },
			Hang: func() { lockTable(t, db) },
		}
	})
}

// lockTable keeps everybody off the fixture until the test ends.
func lockTable(t *testing.T, db *dbsql.DB) {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	if _, err := tx.Exec("LOCK TABLE fixture IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
}

func TestPostgresTypes(t *testing.T) {
	db, url := postgresDatabase(t)
	mustExec(t, db, `CREATE TABLE v (subject text, a numeric, b numeric(6,0), c double precision, d jsonb, e timestamptz, f smallint, g varchar(5), h uuid, i timestamp)`)
	mustExec(t, db, `INSERT INTO v VALUES ('1', 123456789012345678901234567890.123456789, 42, 0.1, '{"x":[1,null]}', '2024-05-06 07:08:09+02', -3, 'é', '11111111-2222-3333-4444-555555555555', '2024-05-06 07:08:09.5')`)
	s := openSource(t, config.SQLSource{Driver: "postgres", DSN: url, Query: "SELECT a,b,c,d,e,f,g,h,i FROM v WHERE subject = :subject"})
	got, err := s.Fetch(t.Context(), ask("1"))
	want := `{"a":123456789012345678901234567890.123456789,"b":42,"c":0.1,"d":{"x": [1, null]},"e":"2024-05-06T05:08:09Z","f":-3,"g":"é","h":"11111111-2222-3333-4444-555555555555","i":"2024-05-06T07:08:09.5Z"}`
	if err != nil || len(got) != 1 || string(got[0]) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	for column, value := range map[string]string{
		"numeric": "'NaN'", "double precision": "'Infinity'", "date": "'infinity'", "bytea": `'\x00'`, "timestamp": "'-infinity'",
	} {
		name := strings.ReplaceAll(column, " ", "_")
		mustExec(t, db, fmt.Sprintf("CREATE TABLE %s_bad (subject text, v %s)", name, column))
		mustExec(t, db, fmt.Sprintf("INSERT INTO %s_bad VALUES ('1', %s)", name, value))
		s := openSource(t, config.SQLSource{Driver: "postgres", DSN: url, Query: "SELECT v FROM " + name + "_bad WHERE subject = :subject"})
		if got, err := s.Fetch(t.Context(), ask("1")); !errors.Is(err, ErrQuery) {
			t.Errorf("%s %s: %s, %v", column, value, got, err)
		}
	}
}

// TestPostgresIsReadOnly: a query that would write is refused by the server.
func TestPostgresIsReadOnly(t *testing.T) {
	db, url := postgresDatabase(t)
	mustExec(t, db, "CREATE TABLE v (subject text, n int)")
	mustExec(t, db, "INSERT INTO v VALUES ('1', 1)")
	for _, q := range []string{
		"WITH gone AS (DELETE FROM v WHERE subject = :subject RETURNING n) SELECT n FROM gone",
		"SELECT n FROM v WHERE subject = :subject FOR UPDATE",
	} {
		s := openSource(t, config.SQLSource{Driver: "postgres", DSN: url, Query: q})
		if _, err := s.Fetch(t.Context(), ask("1")); !errors.Is(err, ErrQuery) || !strings.Contains(err.Error(), "25006") {
			t.Errorf("%s: %v", q, err)
		}
	}
	var n int
	if err := db.QueryRow("SELECT count(*) FROM v").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows left, %v", n, err)
	}
}

// TestPostgresErrorsHideTheNumber: the server's own text would quote it.
func TestPostgresErrorsHideTheNumber(t *testing.T) {
	db, url := postgresDatabase(t)
	mustExec(t, db, "CREATE TABLE v (subject date, n int)")
	mustExec(t, db, "CREATE TABLE w (subject bigint, n int)")
	for _, q := range []string{
		"SELECT n FROM v WHERE subject = :subject",
		"SELECT n FROM w WHERE subject = :subject",
		"SELECT n FROM nowhere WHERE subject = :subject",
		"SELECT 1/0 AS n WHERE '1' = :subject OR TRUE",
		"SELECT (:subject)::text::date AS n",
	} {
		s := openSource(t, config.SQLSource{Driver: "postgres", DSN: url, Query: q})
		for _, number := range []string{sourcetest.Anna, "not-a-number-7407"} {
			_, err := s.Fetch(t.Context(), ask(number))
			if err != nil && (strings.Contains(err.Error(), number) || !errors.Is(err, ErrQuery)) {
				t.Errorf("%s: %v", q, err)
			}
		}
	}
}

func TestPostgresAway(t *testing.T) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	s := openSource(t, config.SQLSource{Driver: "postgres", DSN: "postgres://u:secret@127.0.0.1:" + port + "/x?sslmode=disable", Query: "SELECT 1 AS n WHERE :subject = '1'"})
	_, err = s.Fetch(t.Context(), ask("1"))
	if !errors.Is(err, exchange.ErrSourceUnavailable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("away: %v", err)
	}
}
