package sql

import (
	dbsql "database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// openPostgres takes a URL or a key=value string, as libpq does.
func openPostgres(dsn string, timeout time.Duration) (*dbsql.DB, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil { // its text quotes the DSN
		return nil, fmt.Errorf("%w: dsn: want postgres://user@host/database or key=value pairs", ErrConfig)
	}
	cfg.RuntimeParams["default_transaction_read_only"] = "on"
	cfg.RuntimeParams["statement_timeout"] = strconv.FormatInt(max(1, timeout.Milliseconds()), 10)
	cfg.RuntimeParams["standard_conforming_strings"] = "on" // bind reads quotes that way
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "crossroads"
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > timeout {
		cfg.ConnectTimeout = timeout
	}
	return stdlib.OpenDB(*cfg), nil
}

// postgresFailure tells what an error of the server's means.
func postgresFailure(err *pgconn.PgError) (code string, unavailable bool) {
	if len(err.Code) == 5 {
		switch err.Code[:2] {
		case "08", "53", "57", "58": // connection, resources, operator, system
			unavailable = true
		case "28": // authorization: to be mended in the configuration or the server
			unavailable = true
		}
	}
	return "SQLSTATE " + err.Code, unavailable
}
