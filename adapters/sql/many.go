package sql

import (
	"context"
	dbsql "database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/crossroads-mesh/crossroads/node/batch/sources"
	"github.com/crossroads-mesh/crossroads/node/exchange"
)

const (
	// sqliteArms is how many subjects one statement asks SQLite about. It takes at most 500
	// parts of a compound SELECT; what is gained by more than a few dozen is little.
	sqliteArms = 64
	// postgresAtOnce is how many subjects one statement asks PostgreSQL about.
	postgresAtOnce = 512
	// fewest is how many subjects are worth a statement about many.
	fewest = 8
	// slowPause is for how long nothing is asked about many subjects at once after one such
	// question took too long.
	slowPause = time.Minute
)

var _ sources.Many = (*Source)(nil)

// many is the institution's query, made to answer about many subjects at once: exactly what
// it answers about each, with a number before it that says about which.
//
// SQLite is asked a compound of the query, once for each subject:
//
//	SELECT 0, q.* FROM (query about ?1) q UNION ALL SELECT 1, q.* FROM (query about ?2) q ...
//
// PostgreSQL joins the subjects with the query about each:
//
//	SELECT a.place, q.* FROM unnest($1::text[]) WITH ORDINALITY a, LATERAL (query about a.subject) q
//
// Neither sorts the rows of one answer anew: they come in the query's own order.
type many struct {
	dialect
	text string // as the institution wrote it

	made  atomic.Pointer[manyStatement] // nil until it was used
	after atomic.Int64                  // Unix ms; not before
}

type manyStatement struct {
	prepared
	order []string // the parameters besides the subjects
}

// FetchMany asks about many subjects with a few statements; see sources.Many. It does not,
// and gives false, where no such statement can be made of the query, where few are asked
// about, and where any answer is wrong or they take too long: asked one by one, the answers
// about the others stand.
func (s *Source) FetchMany(ctx context.Context, queries []exchange.Query) (records [][]exchange.Record, ok bool, err error) {
	if len(queries) < fewest || time.Now().UnixMilli() < s.many.after.Load() {
		return nil, false, nil
	}
	found := make([][]json.RawMessage, len(queries))
	for i := range found {
		found[i] = []json.RawMessage{}
	}
	for done := 0; done < len(queries); {
		end := min(done+s.many.atOnce(), len(queries))
		limited, cancel := context.WithTimeout(ctx, s.timeout)
		err := s.fetchSome(limited, queries[done:end], found[done:end])
		slow := limited.Err() != nil
		cancel()
		switch {
		case err == nil:
			done = end
			continue
		case ctx.Err() != nil:
			return nil, false, failure(ctx, err)
		case slow:
			s.many.after.Store(time.Now().Add(slowPause).UnixMilli())
		case errors.Is(err, exchange.ErrSourceUnavailable):
			return nil, false, err
		}
		return nil, false, nil
	}
	return found, true, nil
}

func (s *Source) fetchSome(ctx context.Context, queries []exchange.Query, found [][]json.RawMessage) error {
	m, err := s.many.statement(ctx, s.db, s.one.query, s.order)
	if err != nil {
		return failure(ctx, err)
	}
	stmt, err := m.on(ctx, s.db)
	if err != nil {
		return failure(ctx, err)
	}
	args := s.many.subjects(queries)
	for _, name := range m.order { // all are of one period
		args = append(args, argument(name, queries[0]))
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return failure(ctx, err)
	}
	defer rows.Close()
	return s.read(ctx, rows, found, true)
}

func (m *many) atOnce() int {
	if m.postgres {
		return postgresAtOnce
	}
	return sqliteArms
}

// subjects gives the arguments that say whom it is about. SQLite's are always as many: the
// last is asked about again, and what comes of it has no place.
func (m *many) subjects(queries []exchange.Query) (args []any) {
	if m.postgres {
		numbers := make([]string, len(queries))
		for i, q := range queries {
			numbers[i] = q.Subject.Number()
		}
		return []any{numbers}
	}
	for i := range sqliteArms {
		args = append(args, queries[min(i, len(queries)-1)].Subject.Number())
	}
	return args
}

// statement makes the statement the first time. single is the query about one subject, and
// order its parameters.
func (m *many) statement(ctx context.Context, db *dbsql.DB, single string, order []string) (*manyStatement, error) {
	if made := m.made.Load(); made != nil {
		return made, nil
	}
	made, err := m.compound(), error(nil)
	if m.postgres {
		made, err = m.lateral(ctx, db, single, order)
	}
	if err != nil {
		return nil, err
	}
	m.made.CompareAndSwap(nil, made)
	return m.made.Load(), nil
}

func (m *many) close() {
	if made := m.made.Load(); made != nil {
		made.close()
	}
}

// with writes the query with other text for :subject, and numbers the other parameters
// from first on.
func (s *manyStatement) with(m *many, subject string, first int) string {
	text, err := replace(m.text, m.dialect, func(name string) string {
		if name == paramSubject {
			return subject
		}
		at := slices.Index(s.order, name)
		if at < 0 {
			at, s.order = len(s.order), append(s.order, name)
		}
		return m.placeholder(first + at)
	})
	if err != nil { // it was read when the source was opened
		panic(err)
	}
	return text
}

func (m *many) compound() *manyStatement {
	s := new(manyStatement)
	var b strings.Builder
	for i := range sqliteArms {
		if i > 0 {
			b.WriteString("UNION ALL ")
		}
		fmt.Fprintf(&b, "SELECT %d, q.* FROM (\n%s\n) q\n", i, s.with(m, m.placeholder(i+1), sqliteArms+1))
	}
	s.query = b.String()
	return s
}

// lateral asks the server of what type the query wants its subject: there it comes as text,
// and becomes what it would have become as a parameter.
func (m *many) lateral(ctx context.Context, db *dbsql.DB, single string, order []string) (*manyStatement, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var wanted *pgtype.Type
	err = conn.Raw(func(c any) error {
		described, err := c.(*stdlib.Conn).Conn().Prepare(ctx, "", single)
		if err != nil {
			return err
		}
		wanted, _ = c.(*stdlib.Conn).Conn().TypeMap().TypeForOID(described.ParamOIDs[slices.Index(order, paramSubject)])
		return nil
	})
	if err != nil {
		return nil, err
	}
	if wanted == nil {
		return nil, fmt.Errorf("%w: the subject is of a type of the database's own", ErrQuery)
	}
	s := new(manyStatement)
	of := s.with(m, `CAST("crossroads asks".subject AS pg_catalog.`+wanted.Name+`)`, 2)
	s.query = "SELECT \"crossroads asks\".place - 1, q.* FROM unnest($1::text[]) WITH ORDINALITY AS \"crossroads asks\" (subject, place),\nLATERAL (\n" + of + "\n) AS q"
	return s, nil
}
