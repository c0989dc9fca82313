// Package systems stands in for the institutions' own systems in a test network:
// what a node asks for records, and what the nodes of a real network would find
// when they are installed.
//
// Each institution that supplies anything has one SQLite database, with a table
// for each dataset, filled from the lives of package data. Most nodes ask theirs by
// SQL. Some institutions keep their database to themselves and offer an HTTP/JSON
// service on the loopback interface, as package adapters/rest describes it, behind
// a bearer token. Nothing here is kept in Go maps.
//
//	s, err := systems.New(systems.Config{World: w, Dir: dir})  // quick: ports and paths
//	sources, err := s.Sources("nic")                           // for the node's configuration
//	err = s.Fill(ctx)                                          // writes the databases
//	err = s.Run(ctx)                                           // serves until ctx is done
//	err = s.Close()
//
// Fill may run beside everything else that starts: until it is done the systems
// are unavailable, which nodes know how to say.
package systems

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// Timeout is how long a node waits for its institution's system.
const Timeout = 2 * time.Second

// DefaultREST are the institutions that offer a service rather than a database.
var DefaultREST = []names.InstitutionID{"nic", "neo"}

// Config says which systems to stand up.
type Config struct {
	World *data.World
	Dir   string                // one folder for each institution is made in it; kept by Close
	REST  []names.InstitutionID // nil: DefaultREST
	Log   *slog.Logger          // nil: none
}

// Systems are the systems of all institutions of one world. Its methods are safe
// for concurrent use, but for Close, which comes last.
type Systems struct {
	world *data.World
	log   *slog.Logger
	all   []*system
	watch atomic.Pointer[Watch]
}

// Watch is told of each question that an institution's service is asked, before it
// answers. It is called by many at once.
type Watch func(names.InstitutionID, names.DatasetID, subject.ID)

// Watch has w told from now on. Institutions that are asked by SQL are not watched.
func (s *Systems) Watch(w Watch) { s.watch.Store(&w) }

// system is that of one institution.
type system struct {
	data.Institution
	datasets []*data.Dataset
	dir      string
	watch    *atomic.Pointer[Watch]
	service  *service // nil: asked by SQL
}

// New lays out folders, tokens and ports. It fills and serves nothing yet.
func New(cfg Config) (*Systems, error) {
	s := &Systems{world: cfg.World, log: cfg.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	rest := cfg.REST
	if rest == nil {
		rest = DefaultREST
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("systems: %w", err)
	}
	for _, i := range cfg.World.Institutions() {
		y := &system{Institution: i, datasets: cfg.World.Holds(i), dir: filepath.Join(dir, string(i.ID)), watch: &s.watch}
		if len(y.datasets) == 0 {
			continue
		}
		s.all = append(s.all, y)
		if err := os.MkdirAll(y.dir, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("systems: %w", err), s.Close())
		}
		if slices.Contains(rest, i.ID) {
			if y.service, err = y.open(); err != nil {
				return nil, errors.Join(fmt.Errorf("systems: %s: %w", i.ID, err), s.Close())
			}
		}
	}
	return s, nil
}

// Sources gives what to write in the configuration of an institution's node. An
// institution that supplies nothing has none.
func (s *Systems) Sources(id names.InstitutionID) []config.Source {
	for _, y := range s.all {
		if y.ID == id {
			return y.sources()
		}
	}
	return nil
}

// Close ends what Run left open, or all if Run was never called. The files stay.
func (s *Systems) Close() error {
	var err error
	for _, y := range s.all {
		if y.service != nil {
			err = errors.Join(err, y.service.close())
		}
	}
	return err
}

func (y *system) database() string  { return filepath.Join(y.dir, "records.db") }
func (y *system) tokenFile() string { return filepath.Join(y.dir, "service.token") }

func (y *system) sources() (all []config.Source) {
	for _, d := range y.datasets {
		src := config.Source{Dataset: d.ID}
		if y.service != nil {
			src.REST = &config.RESTSource{
				URL:       "http://" + y.service.listener.Addr().String() + path(d),
				TokenFile: y.tokenFile(), Timeout: Timeout,
			}
		} else {
			src.SQL = y.query(d)
		}
		all = append(all, src)
	}
	return all
}

// query is how the institution's database is asked, by the node or by the service.
func (y *system) query(d *data.Dataset) *config.SQLSource {
	var columns []string
	for _, c := range d.Columns {
		columns = append(columns, string(c.Field))
	}
	return &config.SQLSource{
		Driver: "sqlite", DSN: y.database(), Timeout: Timeout,
		Query: fmt.Sprintf("SELECT %s\nFROM %s\nWHERE subject = :subject AND valid_from <= :until AND valid_until >= :from\nORDER BY rowid",
			strings.Join(columns, ", "), table(d)),
	}
}

// table names the table of a dataset: "wages_quarterly_v1".
func table(d *data.Dataset) string { return strings.ReplaceAll(d.FileName(), "-", "_") }

func path(d *data.Dataset) string { return "/" + d.FileName() }

// token reads the token of the institution's service, or makes one.
func (y *system) token() (string, error) {
	b, err := os.ReadFile(y.tokenFile())
	if err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	t := rand.Text()
	return t, os.WriteFile(y.tokenFile(), []byte(t+"\n"), 0o600)
}

func (y *system) open() (*service, error) {
	token, err := y.token()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return newService(y, l, token)
}
