package sql

import (
	dbsql "database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/adapters/sourcetest"
	"github.com/crossroads-mesh/crossroads/node/batch/sources"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// queries that institutions may write, over one table; each must answer about many subjects
// as about each.
var manyQueries = []string{
	"SELECT label, day FROM kept WHERE subject = :subject ORDER BY n DESC",
	"SELECT label, day, flag, amount, n FROM kept k WHERE :subject = k.subject AND day >= :from AND day <= :until ORDER BY day, n -- all",
	"SELECT DISTINCT label FROM kept WHERE subject = :subject ORDER BY label;",
	"SELECT count(*) AS n, max(n) AS most FROM kept WHERE subject = :subject",
	"SELECT n FROM kept WHERE subject = :subject ORDER BY n LIMIT 2",
	"SELECT n FROM kept WHERE subject = :subject AND n > 10 UNION ALL SELECT -n FROM kept WHERE subject = :subject ORDER BY 1",
	"WITH own AS (SELECT n, label FROM kept WHERE subject = :subject) SELECT a.n, b.label FROM own a JOIN own b ON a.n <= b.n ORDER BY a.n, b.n",
	"SELECT q.n, (SELECT min(o.n) FROM kept o WHERE o.subject = :subject) AS least FROM kept q WHERE q.subject = :subject ORDER BY q.n",
	"SELECT label, sum(n) AS n FROM kept WHERE subject = :subject GROUP BY label HAVING count(*) > 0 ORDER BY label",
	"SELECT n, row_number() OVER (ORDER BY n DESC) AS place FROM kept WHERE subject = :subject ORDER BY n",
	"SELECT 1 AS one WHERE :subject <> 'x'",
	"SELECT n FROM kept WHERE subject = :subject AND NOT EXISTS (SELECT 1 FROM kept o WHERE o.subject = kept.subject AND o.n > kept.n)",
}

// checkMany holds what a source says of many subjects against what it says of each.
func checkMany(t *testing.T, s *Source, random *rand.Rand, numbers []string) {
	t.Helper()
	from := names.DateOf(day(0))
	p := names.Period{From: from + names.Date(random.IntN(20)), Until: from + names.Date(20+random.IntN(20))}
	var queries []exchange.Query
	for range fewest + random.IntN(200) {
		queries = append(queries, exchange.Query{Subject: subject.Raw(subject.SSIN, numbers[random.IntN(len(numbers))]), Period: p})
	}
	got, ok, err := s.FetchMany(t.Context(), queries)
	if !ok || err != nil {
		t.Fatalf("%s: not asked at once: %v", s.many.text, err)
	}
	for i, q := range queries {
		want, err := s.Fetch(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if got[i] == nil || !slices.EqualFunc(got[i], want, slices.Equal) {
			t.Fatalf("%s: subject %d of %d:\n got %s\nwant %s", s.many.text, i, len(queries), got[i], want)
		}
	}
}

// fillMany writes up to five rows about each subject.
func fillMany(t *testing.T, db *dbsql.DB, random *rand.Rand, insert string) (numbers []string) {
	t.Helper()
	tx, err := db.Begin()
	must(t, err)
	for i := range 60 {
		number := fmt.Sprintf("%011d", i)
		numbers = append(numbers, number)
		for range i % 6 {
			_, err := tx.Exec(insert, number, []any{"a", "b ' \"", nil}[random.IntN(3)], day(random.IntN(40)).Format("2006-01-02"), random.IntN(2) == 0, random.IntN(1000), random.IntN(50))
			must(t, err)
		}
	}
	must(t, tx.Commit())
	return append(numbers, "nobody", "")
}

func TestSQLiteManyIsEach(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	db, path := sqliteDatabase(t)
	mustExec(t, db, "CREATE TABLE kept (subject TEXT, label TEXT, day DATE, flag BOOLEAN, amount DECIMAL(9,2), n INTEGER)")
	mustExec(t, db, "CREATE INDEX kept_subject ON kept (subject)")
	numbers := fillMany(t, db, random, "INSERT INTO kept VALUES (?, ?, ?, ?, ? / 4.0, ?)")
	for _, q := range manyQueries {
		s := openSource(t, config.SQLSource{Driver: "sqlite", DSN: path, Query: q})
		for range 5 {
			checkMany(t, s, random, numbers)
		}
	}
}

func TestPostgresManyIsEach(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	db, url := postgresDatabase(t)
	for _, kind := range []string{"text", "varchar(11)", "char(11)"} {
		mustExec(t, db, "DROP TABLE IF EXISTS kept")
		mustExec(t, db, "CREATE TABLE kept (subject "+kind+", label text, day date, flag boolean, amount numeric(9,2), n int)")
		numbers := fillMany(t, db, random, "INSERT INTO kept VALUES ($1, $2, $3, $4, $5::numeric / 4, $6)")
		for _, q := range append(manyQueries, "SELECT n::text || 'E' AS a, E'\\'' AS b, $$:x$$ AS c FROM kept WHERE subject = :subject ORDER BY n", "SELECT :subject::text AS s") {
			s := openSource(t, config.SQLSource{Driver: "postgres", DSN: url, Query: q})
			checkMany(t, s, random, numbers)
			must(t, s.Close())
		}
	}
	// A number as a number: what is none fails, and for all others as for each.
	mustExec(t, db, "CREATE TABLE counted (subject bigint, n int)")
	mustExec(t, db, "INSERT INTO counted SELECT i, i FROM generate_series(1, 100) i")
	s := openSource(t, config.SQLSource{Driver: "postgres", DSN: url, Query: "SELECT n FROM counted WHERE subject = :subject"})
	checkMany(t, s, random, []string{"00000000001", "00000000099", "5", "101"})
	queries := slices.Repeat([]exchange.Query{ask("7")}, 20)
	queries[11] = ask("seven")
	if _, ok, err := s.FetchMany(t.Context(), queries); ok || err != nil {
		t.Errorf("a wrong one among many: %v, %v", ok, err)
	}
}

// A query that takes longer about many than it may is not asked so for a while.
func TestManyTooSlow(t *testing.T) {
	db, path := sqliteDatabase(t)
	mustExec(t, db, "CREATE TABLE kept (subject TEXT, n INTEGER)")
	mustExec(t, db, "INSERT INTO kept VALUES (?, 1)", sourcetest.Bert)
	s := openSource(t, config.SQLSource{Driver: "sqlite", DSN: path, Timeout: 1,
		Query: "SELECT n FROM kept WHERE subject = :subject"})
	queries := slices.Repeat([]exchange.Query{ask(sourcetest.Bert)}, 100)
	if _, ok, err := s.FetchMany(t.Context(), queries); ok || err != nil || s.many.after.Load() == 0 {
		t.Errorf("too slow: %v, %v, again after %d", ok, err, s.many.after.Load())
	}
	if _, err := s.Fetch(t.Context(), queries[0]); !errors.Is(err, exchange.ErrSourceUnavailable) {
		t.Errorf("and each: %v", err)
	}
}

// BenchmarkMany asks a table of 100,000 subjects about a chunk of a lot, with the records
// of a test network's dataset: at once, and each.
func BenchmarkMany(b *testing.B) {
	path := b.TempDir() + "/kept.db"
	db, err := dbsql.Open("sqlite", path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	const people = 100_000
	for _, q := range []string{
		"CREATE TABLE kept (subject TEXT, valid_from TEXT, valid_until TEXT, entitled BOOLEAN, since DATE)",
		fmt.Sprintf("WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < %d) INSERT INTO kept SELECT printf('%%011d', n), '2020-01-01', '9999-12-31', n %% 2, '2020-01-01' FROM i", people-1),
		"CREATE INDEX kept_subject ON kept (subject)",
	} {
		if _, err := db.Exec(q); err != nil {
			b.Fatal(err)
		}
	}
	s, err := Open(config.SQLSource{Driver: "sqlite", DSN: path,
		Query: "SELECT entitled, since FROM kept WHERE subject = :subject AND valid_from <= :until AND valid_until >= :from ORDER BY rowid"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	random := rand.New(rand.NewPCG(5, 6))
	var queries []exchange.Query
	for range 2048 {
		queries = append(queries, ask(fmt.Sprintf("%011d", random.IntN(people))))
	}
	b.Run("at once", func(b *testing.B) {
		for b.Loop() {
			if _, ok, err := s.FetchMany(b.Context(), queries); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(queries)), "ns/subject")
	})
	b.Run("each", func(b *testing.B) {
		for b.Loop() {
			if _, err := sources.Fetch(b.Context(), oneByOne{s}, queries); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(queries)), "ns/subject")
	})
}

func day(n int) time.Time { return time.Date(2024, 1, 1+n, 0, 0, 0, 0, time.UTC) }

type oneByOne struct{ exchange.Source }
