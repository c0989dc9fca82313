// Package adapters opens an institution's own systems from the configuration.
//
// Each kind of system is a package of its own that implements the port
// exchange.Source: rest (an HTTP/JSON service), sql (a query on SQLite or
// PostgreSQL). A new kind is a new package, a member in config.Source and a case
// here; package sourcetest holds what every kind must do.
package adapters

import (
	"errors"
	"fmt"
	"io"

	"github.com/crossroads-mesh/crossroads/adapters/rest"
	"github.com/crossroads-mesh/crossroads/adapters/sql"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
)

// ErrKind means that a source names no kind of system, or more than one.
var ErrKind = errors.New("a source needs exactly one of rest and sql")

// Open makes the source that cfg describes. It checks the configuration, not the
// system behind it: a node starts although one of its databases is down. The
// closer ends every connection; closing is safe while questions are under way,
// which then fail.
func Open(cfg config.Source) (exchange.Source, io.Closer, error) {
	var (
		source interface {
			exchange.Source
			io.Closer
		}
		err error
	)
	switch {
	case (cfg.REST == nil) == (cfg.SQL == nil):
		err = ErrKind
	case cfg.REST != nil:
		source, err = rest.Open(*cfg.REST)
	default:
		source, err = sql.Open(*cfg.SQL)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("source of %s: %w", cfg.Dataset, err)
	}
	return source, source, nil
}
