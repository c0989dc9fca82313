package systems

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/adapters/sql"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// maxQuestion bounds what the service reads of one question, in bytes.
const maxQuestion = 64 << 10

// service is the HTTP/JSON service of one institution over its database.
type service struct {
	listener net.Listener
	token    string
	sources  []*sql.Source
	mux      *http.ServeMux
}

func newService(y *system, l net.Listener, token string) (*service, error) {
	s := &service{listener: l, token: token, mux: http.NewServeMux()}
	for _, d := range y.datasets {
		src, err := sql.Open(*y.query(d))
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.sources = append(s.sources, src)
		s.mux.HandleFunc("POST "+path(d), func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, y, d, src) })
	}
	return s, nil
}

func (s *service) close() error {
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	for _, src := range s.sources {
		err = errors.Join(err, src.Close())
	}
	return err
}

// Run serves the institutions' HTTP services until ctx is done, and returns when
// all have ended. With none to serve it waits for ctx all the same.
func (s *Systems) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, y := range s.all {
		if y.service == nil {
			continue
		}
		server := &http.Server{
			Handler: y.service.mux, ReadHeaderTimeout: Timeout, ReadTimeout: 2 * Timeout, WriteTimeout: 4 * Timeout, IdleTimeout: time.Minute,
			MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		}
		group.Go(func() error {
			if err := server.Serve(y.service.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("service of %s: %w", y.ID, err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			last, cancel := context.WithTimeout(context.Background(), Timeout)
			defer cancel()
			if server.Shutdown(last) != nil {
				return server.Close() // questions under way took too long
			}
			return nil
		})
	}
	group.Go(func() error { <-ctx.Done(); return nil })
	return group.Wait()
}

// question is what package adapters/rest sends.
type question struct {
	Dataset names.DatasetID `json:"dataset"`
	Subject struct {
		Scheme subject.Scheme `json:"scheme"`
		Number string         `json:"number"`
	} `json:"subject"`
	Period    names.Period      `json:"period"`
	Qualities []names.Quality   `json:"qualities"`
	Fields    []names.FieldName `json:"fields"`
}

func (s *service) answer(w http.ResponseWriter, r *http.Request, y *system, d *data.Dataset, src *sql.Source) {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+s.token)) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "a bearer token is needed", http.StatusUnauthorized)
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		http.Error(w, "want application/json", http.StatusUnsupportedMediaType)
		return
	}
	var q question
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil || q.Dataset != d.ID || q.Period.Validate() != nil {
		http.Error(w, "malformed question", http.StatusBadRequest)
		return
	}
	id, err := subject.Belgian().Parse(q.Subject.Scheme, q.Subject.Number)
	if err != nil {
		http.Error(w, "malformed subject", http.StatusBadRequest)
		return
	}
	if watch := y.watch.Load(); watch != nil {
		(*watch)(y.ID, d.ID, id)
	}
	records, err := src.Fetch(r.Context(), exchange.Query{Dataset: d.ID, Subject: id, Period: q.Period})
	switch {
	case errors.Is(err, exchange.ErrSourceUnavailable):
		http.Error(w, "the database is unavailable", http.StatusServiceUnavailable)
		return
	case err != nil:
		http.Error(w, "the database failed", http.StatusInternalServerError)
		return
	}
	body, err := json.Marshal(map[string][]json.RawMessage{"records": records})
	if err != nil {
		http.Error(w, "the records cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // a reader that went away is no concern of ours
}
