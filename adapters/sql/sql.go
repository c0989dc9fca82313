// Package sql asks a database of the institution's own for the records of one
// subject, through one SELECT that the institution wrote.
//
// # The query
//
// It has named parameters, which are bound and never pasted into the text:
//
//	:subject  the number, as text, in its canonical form (required)
//	:from     first day of the period, YYYY-MM-DD
//	:until    last day of the period, YYYY-MM-DD; 9999-12-31 for no end
//
// Each column is a field and must be named like it. The query gives all fields
// that the dataset's schema requires; the exchange lets out the permitted ones. An
// example:
//
//	SELECT year, quarter, gross_wage
//	FROM wages
//	WHERE ssin = :subject AND first_day <= :until AND last_day >= :from
//	ORDER BY year, quarter
//
// Only one SELECT (or WITH ... SELECT) is accepted, and only the named parameters
// above: no ?, $1 or @name. Text in quotes, comments and PostgreSQL's :: casts are left alone.
//
// For lots, the same query is asked about many subjects with one statement; what it answers
// about each is the same. See Source.FetchMany.
//
// # From rows to records
//
//	NULL                            null
//	DATE                            "YYYY-MM-DD"
//	TIMESTAMP, DATETIME             "2006-01-02T15:04:05Z" (RFC 3339)
//	BOOLEAN                         true, false (0 and 1 in SQLite)
//	NUMERIC(p,s), DECIMAL(p,s)      a number with exactly s decimals
//	NUMERIC, DECIMAL                a number with its digits
//	integers, floating point        a number
//	JSON, JSONB                     as it stands
//	everything else                 a string
//	BYTEA, BLOB                     refused: encode it in the query
//
// SQLite keeps the value of a DECIMAL column as binary floating point: exact up to
// 15 digits, and more are refused. In SQLite an expression has no declared type:
// CAST does not give it one, so select columns where dates, booleans and decimals
// are concerned.
//
// # Safety
//
// Connections are read-only (SQLite: mode=ro and query_only; PostgreSQL:
// default_transaction_read_only), few, and every question has a time limit that
// the server knows too. More than MaxRows rows, or MaxBytes bytes, is an error,
// never a part. Errors name the kind of failure, and a code of the driver's, but
// not the driver's text: it may quote a subject's number.
package sql

import (
	"context"
	dbsql "database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Defaults and limits.
const (
	DefaultTimeout = 5 * time.Second
	DefaultMaxRows = 1000
	// MaxBytes is how much JSON one answer may make.
	MaxBytes = 8 << 20

	maxConns     = 8
	maxIdleConns = 4
	maxDSN       = 8 << 10
)

var (
	// ErrConfig is wrapped by the errors of Open.
	ErrConfig = errors.New("sql source misconfigured")
	// ErrQuery means that the database refused the query or gave rows that are
	// no records.
	ErrQuery = errors.New("sql source answered wrongly")
)

// Source is one query on one database. It is safe for concurrent use.
type Source struct {
	db      *dbsql.DB
	one     prepared
	order   []string // the parameter behind each placeholder of one
	many    many
	timeout time.Duration
	maxRows int
	shape   atomic.Pointer[shape] // of the last answer
}

var _ exchange.Source = (*Source)(nil)

// Open checks cfg and makes the source. It does not connect.
func Open(cfg config.SQLSource) (*Source, error) {
	if cfg.Timeout < 0 || cfg.MaxRows < 0 || cfg.MaxRows > exchange.MaxRecords {
		return nil, fmt.Errorf("%w: want a timeout from 0 on, and max_rows from 0 to %d", ErrConfig, exchange.MaxRecords)
	}
	dsn, err := readDSN(cfg)
	if err != nil {
		return nil, err
	}
	s := &Source{timeout: cfg.Timeout, maxRows: cfg.MaxRows}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if s.maxRows == 0 {
		s.maxRows = DefaultMaxRows
	}
	var d dialect
	switch cfg.Driver {
	case "sqlite":
		d = sqliteDialect
		s.db, err = openSQLite(dsn, s.timeout)
	case "postgres":
		d = postgresDialect
		s.db, err = openPostgres(dsn, s.timeout)
	default:
		err = fmt.Errorf("%w: driver: want sqlite or postgres", ErrConfig)
	}
	if err != nil {
		return nil, err
	}
	s.db.SetMaxOpenConns(maxConns)
	s.db.SetMaxIdleConns(maxIdleConns)
	s.db.SetConnMaxIdleTime(5 * time.Minute)
	if s.one.query, s.order, err = bind(cfg.Query, d); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: query: %w", ErrConfig, err), s.db.Close())
	}
	s.many.text, s.many.dialect = cfg.Query, d
	return s, nil
}

func readDSN(cfg config.SQLSource) (string, error) {
	if (cfg.DSN == "") == (cfg.DSNFile == "") {
		return "", fmt.Errorf("%w: want exactly one of dsn and dsn_file", ErrConfig)
	}
	if cfg.DSN != "" {
		return cfg.DSN, nil
	}
	f, err := os.Open(cfg.DSNFile)
	if err != nil {
		return "", fmt.Errorf("%w: dsn_file: %w", ErrConfig, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDSN+1))
	if err != nil {
		return "", fmt.Errorf("%w: dsn_file: %w", ErrConfig, err)
	}
	dsn := strings.TrimSpace(string(b))
	if dsn == "" || len(b) > maxDSN {
		return "", fmt.Errorf("%w: dsn_file %s: want one line with the data source name", ErrConfig, cfg.DSNFile)
	}
	return dsn, nil
}

// Close ends all connections. Questions under way fail.
func (s *Source) Close() error {
	s.one.close() // the connections end with the database below
	s.many.close()
	return s.db.Close()
}

// Fetch runs the query.
func (s *Source) Fetch(ctx context.Context, q exchange.Query) ([]json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	stmt, err := s.one.on(ctx, s.db)
	if err != nil {
		return nil, failure(ctx, err)
	}
	rows, err := stmt.QueryContext(ctx, s.arguments(q)...)
	if err != nil {
		return nil, failure(ctx, err)
	}
	defer rows.Close()
	found := [][]json.RawMessage{{}}
	if err := s.read(ctx, rows, found, false); err != nil {
		return nil, err
	}
	return found[0], nil
}

func (s *Source) arguments(q exchange.Query) []any {
	args := make([]any, len(s.order))
	for i, name := range s.order {
		args[i] = argument(name, q)
	}
	return args
}

func argument(name string, q exchange.Query) any {
	switch name {
	case paramSubject:
		return q.Subject.Number()
	case paramFrom:
		return q.Period.From.String()
	}
	return q.Period.Until.String()
}

// read puts the rows into found. Of placed ones the first column says where each belongs,
// and those that belong nowhere are left out.
func (s *Source) read(ctx context.Context, rows *dbsql.Rows, found [][]json.RawMessage, placed bool) error {
	types, err := rows.ColumnTypes()
	if err != nil {
		return fmt.Errorf("%w: the columns cannot be told", ErrQuery)
	}
	own := 0
	if placed {
		own = 1
	}
	columns, err := s.columnsOf(types[own:])
	if err != nil {
		return err
	}
	var place int64
	into := []any{&place}[:own]
	values := make([]any, len(columns))
	for i := range values {
		into = append(into, &values[i])
	}
	sizes := make([]int, len(found))
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return failure(ctx, err)
		}
		if place >= int64(len(found)) {
			continue
		}
		if len(found[place]) == s.maxRows {
			return fmt.Errorf("%w: more than max_rows (%d) rows", ErrQuery, s.maxRows)
		}
		r, err := record(columns, values)
		if err != nil {
			return err
		}
		if sizes[place] += len(r); sizes[place] > MaxBytes {
			return fmt.Errorf("%w: more than %d bytes", ErrQuery, MaxBytes)
		}
		found[place] = append(found[place], r)
	}
	if err := rows.Err(); err != nil {
		return failure(ctx, err)
	}
	return nil
}

// shape is what an answer's columns were, and what became of them.
type shape struct {
	told    []told
	columns []column
}

// told is what the driver says of a column.
type told struct {
	name, declared   string
	precision, scale int64
	sized            bool
}

func toldOf(t *dbsql.ColumnType) told {
	c := told{name: t.Name(), declared: t.DatabaseTypeName()}
	c.precision, c.scale, c.sized = t.DecimalSize()
	return c
}

// columnsOf is that of the types, found once for answers that are alike.
func (s *Source) columnsOf(types []*dbsql.ColumnType) ([]column, error) {
	if last := s.shape.Load(); last != nil && last.is(types) {
		return last.columns, nil
	}
	columns, err := columnsOf(types)
	if err != nil {
		return nil, err
	}
	next := &shape{columns: columns}
	for _, t := range types {
		next.told = append(next.told, toldOf(t))
	}
	s.shape.Store(next)
	return columns, nil
}

func (s *shape) is(types []*dbsql.ColumnType) bool {
	if len(types) != len(s.told) {
		return false
	}
	for i, t := range types {
		if toldOf(t) != s.told[i] {
			return false
		}
	}
	return true
}

// columnsOf insists that every column can be a field.
func columnsOf(types []*dbsql.ColumnType) ([]column, error) {
	seen := map[string]bool{}
	columns := make([]column, len(types))
	for i, t := range types {
		if err := names.FieldName(t.Name()).Validate(); err != nil {
			return nil, fmt.Errorf("%w: column %d cannot be a field; name it with AS: %w", ErrQuery, i+1, err)
		}
		if seen[t.Name()] {
			return nil, fmt.Errorf("%w: two columns are named %s", ErrQuery, t.Name())
		}
		seen[t.Name()] = true
		columns[i] = columnOf(t)
	}
	return columns, nil
}
