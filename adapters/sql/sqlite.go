package sql

import (
	dbsql "database/sql"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"modernc.org/sqlite"
)

// openSQLite takes a path, or file:PATH?immutable=1 for a database that nobody
// writes. Whatever it says, the database is opened for reading only.
func openSQLite(dsn string, timeout time.Duration) (*dbsql.DB, error) {
	path, raw := dsn, ""
	if rest, ok := strings.CutPrefix(dsn, "file:"); ok {
		path, raw, _ = strings.Cut(rest, "?")
		var err error
		if path, err = url.PathUnescape(path); err != nil {
			return nil, fmt.Errorf("%w: dsn: malformed escape", ErrConfig)
		}
		if strings.HasPrefix(path, "//") { // file:///path, and nothing remote
			if path = path[2:]; !strings.HasPrefix(path, "/") {
				return nil, fmt.Errorf("%w: dsn: want file:///absolute/path", ErrConfig)
			}
		}
	}
	given, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: dsn: malformed parameters", ErrConfig)
	}
	options := url.Values{
		"mode":          {"ro"},
		"_query_only":   {"1"},
		"_busy_timeout": {strconv.FormatInt(timeout.Milliseconds(), 10)},
	}
	for key, values := range given {
		switch {
		case key == "mode" && values[0] == "ro":
		case key == "immutable" && values[0] == "1":
			options.Set("immutable", "1")
		default:
			return nil, fmt.Errorf("%w: dsn: parameter %.20q: only mode=ro and immutable=1 may be set", ErrConfig, key)
		}
	}
	if path == "" || strings.Contains(path, ":memory:") {
		return nil, fmt.Errorf("%w: dsn: want the path of a database file", ErrConfig)
	}
	name := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + options.Encode()
	return dbsql.Open("sqlite", name)
}

// SQLite's result codes that say "not now".
const (
	sqliteBusy      = 5
	sqliteLocked    = 6
	sqliteInterrupt = 9
	sqliteIOErr     = 10
	sqliteCantOpen  = 14
)

// sqliteFailure tells what an error of the driver's means.
func sqliteFailure(err *sqlite.Error) (code string, unavailable bool) {
	primary := err.Code() & 0xff
	switch primary {
	case sqliteBusy, sqliteLocked, sqliteInterrupt, sqliteIOErr, sqliteCantOpen:
		unavailable = true
	}
	return fmt.Sprintf("SQLite result code %d", primary), unavailable
}
