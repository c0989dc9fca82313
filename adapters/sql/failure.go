package sql

import (
	"context"
	dbsql "database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"

	"github.com/crossroads-mesh/crossroads/node/exchange"
)

// errClosed is what database/sql says of a closed DB, without a sentinel of its own.
const errClosed = "sql: database is closed"

// failure turns a driver's error into one that says what kind of failure it was,
// and nothing of the driver's text: a conversion error quotes the value.
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: no answer in time: %w", exchange.ErrSourceUnavailable, ctx.Err())
	}
	code, unavailable := "the values do not fit the query or its columns", false
	var (
		server  *pgconn.PgError
		lite    *sqlite.Error
		connect *pgconn.ConnectError
		network net.Error
	)
	switch {
	case errors.As(err, &server):
		code, unavailable = postgresFailure(server)
	case errors.As(err, &lite):
		code, unavailable = sqliteFailure(lite)
	case errors.As(err, &connect), errors.As(err, &network):
		code, unavailable = "no connection to the database", true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, driver.ErrBadConn),
		errors.Is(err, dbsql.ErrConnDone), errors.Is(err, net.ErrClosed), err.Error() == errClosed,
		err.Error() == "sql: statement is closed":
		code, unavailable = "the connection to the database ended", true
	}
	if unavailable {
		return fmt.Errorf("%w: %s", exchange.ErrSourceUnavailable, code)
	}
	return fmt.Errorf("%w: %s", ErrQuery, code)
}
