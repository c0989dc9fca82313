package systems

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/crossroads-mesh/crossroads/adapters"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start stands the systems of a world up, filled and serving until the test ends.
func start(t testing.TB, cfg data.Config) (*data.World, *Systems) {
	t.Helper()
	w, err := data.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{World: w, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := s.Fill(ctx); err != nil {
		t.Fatal(err)
	}
	return w, s
}

func open(t testing.TB, c config.Source) exchange.Source {
	t.Helper()
	src, closer, err := adapters.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closer.Close() })
	return src
}

// TestAdaptersTellTheLives asks every system, through the adapter that its node
// would use, about every person, and compares with the lives.
func TestAdaptersTellTheLives(t *testing.T) {
	w, s := start(t, data.Config{Seed: 7, Persons: 400, Institutions: 24})
	periods := []names.Period{
		{From: names.Always, Until: names.Forever},
		{From: data.Today - 364, Until: data.Today},
		{From: data.Today - 4000, Until: data.Today - 4000},
	}
	rest, found := 0, 0
	for _, i := range w.Institutions() {
		sources := s.Sources(i.ID)
		if len(sources) != len(w.Supplies(i)) {
			t.Fatalf("%s: %d sources for %d datasets", i.ID, len(sources), len(w.Supplies(i)))
		}
		for _, c := range sources {
			if c.REST != nil {
				rest++
			}
			src := open(t, c)
			d, _ := w.Dataset(c.Dataset)
			for p := range w.Persons() {
				for _, period := range periods {
					got, err := src.Fetch(t.Context(), exchange.Query{Dataset: d.ID, Subject: p.SSIN, Period: period})
					if err != nil {
						t.Fatalf("%s %s: %v", i.ID, d.ID, err)
					}
					var want []json.RawMessage
					for _, r := range d.Records(i, p) {
						if r.Period.Overlaps(period) {
							want = append(want, d.JSON(r))
						}
					}
					found += len(want)
					if a, b := bytes.Join(raw(got), []byte("\n")), bytes.Join(raw(want), []byte("\n")); !bytes.Equal(a, b) {
						t.Fatalf("%s %s person %d: got\n%s\nwant\n%s", i.ID, d.ID, p.Index, a, b)
					}
				}
			}
		}
	}
	if rest < 4 || found < 1000 {
		t.Errorf("only %d REST sources, %d records compared", rest, found)
	}
}

func raw(in []json.RawMessage) (out [][]byte) {
	for _, r := range in {
		out = append(out, r)
	}
	return out
}

func TestServiceInsistsOnItsToken(t *testing.T) {
	_, s := start(t, data.Config{Seed: 1, Persons: 10, Institutions: 7})
	for _, c := range s.Sources("nic") {
		for _, header := range []string{"", "Bearer", "Bearer wrong", "Basic abc"} {
			req, _ := http.NewRequest(http.MethodPost, c.REST.URL, strings.NewReader("{}"))
			req.Header.Set("Authorization", header)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%q: status %d", header, resp.StatusCode)
			}
		}
		info, err := os.Stat(c.REST.TokenFile)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("token file: %v, %v", info.Mode(), err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestServiceRefusesMalformedQuestions(t *testing.T) {
	_, s := start(t, data.Config{Seed: 1, Persons: 10, Institutions: 7})
	c := s.Sources("nic")[0]
	token, err := os.ReadFile(c.REST.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{
		``, `{}`, `[]`, `{"dataset":"insurability/v1"}`, strings.Repeat("[", 100_000), strings.Repeat(" ", maxQuestion+1) + "{}",
		`{"dataset":"insurability/v1","subject":{"scheme":"ssin","number":"74071238187"},"period":{"from":"2025-01-01","until":"2025-01-02"}}`,
		`{"dataset":"insurability/v1","subject":{"scheme":"ssin","number":"74071238186"},"period":{"from":"2025-01-02","until":"2025-01-01"}}`,
		`{"dataset":"wages-quarterly/v1","subject":{"scheme":"ssin","number":"74071238186"},"period":{"from":"2025-01-01","until":"2025-01-02"}}`,
	} {
		req, _ := http.NewRequest(http.MethodPost, c.REST.URL, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.60q: status %d", body, resp.StatusCode)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestBeforeItIsFilled: a system that is not there yet is unavailable, not empty.
func TestBeforeItIsFilled(t *testing.T) {
	w, err := data.New(data.Config{Seed: 1, Persons: 10, Institutions: 7})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{World: w, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	}()
	for _, id := range []names.InstitutionID{"nic", "nsso"} {
		src := open(t, s.Sources(id)[0])
		q := exchange.Query{Dataset: s.Sources(id)[0].Dataset, Subject: w.Person(0).SSIN, Period: names.Period{From: names.Always, Until: names.Forever}}
		if _, err := src.Fetch(ctx, q); !errors.Is(err, exchange.ErrSourceUnavailable) {
			t.Errorf("%s: %v", id, err)
		}
		if id == "nic" {
			continue
		}
		if err := s.Fill(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := src.Fetch(ctx, q); err != nil {
			t.Errorf("%s, filled: %v", id, err)
		}
	}
}

// TestFillIsKept: what was filled from the same world is not made again, and
// another world's is.
func TestFillIsKept(t *testing.T) {
	dir := t.TempDir()
	fill := func(seed uint64) (modified time.Time, subject string) {
		w, err := data.New(data.Config{Seed: seed, Persons: 100, Institutions: 7})
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{World: w, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Fill(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(s.Sources("nsso")[0].SQL.DSN)
		if err != nil {
			t.Fatal(err)
		}
		src := open(t, s.Sources("national-register")[0])
		records, err := src.Fetch(t.Context(), exchange.Query{Subject: w.Person(0).SSIN, Period: names.Period{From: names.Always, Until: names.Forever}})
		if err != nil || len(records) != 1 {
			t.Fatalf("%d records, %v", len(records), err)
		}
		return info.ModTime(), string(records[0])
	}
	at, first := fill(1)
	again, same := fill(1)
	if !at.Equal(again) || first != same {
		t.Error("the same world was filled again")
	}
	if _, other := fill(2); other == first {
		t.Error("another world was not filled")
	}
}

// TestFillStops: a cancelled Fill ends, says so and leaves no half database.
func TestFillStops(t *testing.T) {
	w, err := data.New(data.Config{Seed: 1, Persons: 50_000, Institutions: 7})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s, err := New(Config{World: w, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Fill(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Fill: %v", err)
	}
	for _, y := range s.all {
		if _, err := os.Stat(y.database()); err == nil {
			t.Errorf("%s has a database", y.ID)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	w, err := data.New(data.Config{Seed: 1, Persons: 10_000, Institutions: 7})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := New(Config{World: w, Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(s.Fill(b.Context()), s.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
