package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/crossroads-mesh/crossroads/adapters/sourcetest"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var anna = exchange.Query{
	Dataset: "fixture/v1", Subject: subject.Raw(subject.SSIN, sourcetest.Anna),
	Period: names.Period{From: 19723, Until: 19753}, Qualities: []names.Quality{"employee"}, Fields: []names.FieldName{"label"},
}

func tokenFile(t *testing.T, content string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(f, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// serve opens a source on a service of one handler.
func serve(t *testing.T, cfg config.RESTSource, h http.HandlerFunc) *Source {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	cfg.URL = server.URL + "/records"
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func answer(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
	}
}

func TestConformance(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.System {
		var broken, hung atomic.Bool
		over := make(chan struct{})
		s := serve(t, config.RESTSource{Timeout: time.Second, TokenFile: tokenFile(t, "secret\n")}, func(w http.ResponseWriter, r *http.Request) {
			if hung.Load() {
				<-over
			}
			if broken.Load() {
				panic(http.ErrAbortHandler) // the connection breaks
			}
			if r.Header.Get("Authorization") != "Bearer secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fixture(w, r)
		})
		t.Cleanup(func() { close(over) })
		return sourcetest.System{
			Source: s, Close: s.Close,
			Break: func() { broken.Store(true) }, Mend: func() { broken.Store(false) }, Hang: func() { hung.Store(true) },
		}
	})
}

// fixture is a service with the fixture's records, as an institution might write it.
func fixture(w http.ResponseWriter, r *http.Request) {
	var q question
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	parts := []string{}
	for _, row := range sourcetest.Fixture() {
		if row.Subject == q.Subject.Number && row.From <= q.Period.Until.String() && row.Until >= q.Period.From.String() {
			parts = append(parts, string(row.JSON()))
		}
	}
	answer("application/json; charset=utf-8", `{"records":[`+strings.Join(parts, ",\n")+`]}`)(w, r)
}

// TestTheQuestion: the number is in the body and nowhere else.
func TestTheQuestion(t *testing.T) {
	s := serve(t, config.RESTSource{TokenFile: tokenFile(t, " abc.DEF-123 \n")}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.String() != "/records" {
			t.Errorf("asked by %s %s", r.Method, r.URL)
		}
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), sourcetest.Anna) {
				t.Errorf("header %s holds the number", name)
			}
		}
		if got := r.Header.Get("Authorization"); got != "Bearer abc.DEF-123" {
			t.Errorf("authorization %q", got)
		}
		body, _ := io.ReadAll(r.Body)
		want := `{"dataset":"fixture/v1","subject":{"scheme":"ssin","number":"74071238186"},"period":{"from":"2024-01-01","until":"2024-01-31"},"qualities":["employee"],"fields":["label"]}`
		if string(body) != want {
			t.Errorf("body\n%s\nwant\n%s", body, want)
		}
		answer("application/json", `{"records":[]}`)(w, r)
	})
	if _, err := s.Fetch(t.Context(), anna); err != nil {
		t.Fatal(err)
	}
}

// TestBytesAreKept: what a number or a string looks like is the source's affair.
func TestBytesAreKept(t *testing.T) {
	const r = `{ "a":1.50e+1,"b" : "\u00e9é\/", "a2":-0, "n":{"x":[1, 2]} }`
	s := serve(t, config.RESTSource{}, answer("application/json", `{"records": [ `+r+` ] }`))
	got, err := s.Fetch(t.Context(), anna)
	if err != nil || len(got) != 1 || string(got[0]) != r {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestAnswersRefused(t *testing.T) {
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	for name, h := range map[string]http.HandlerFunc{
		"no content type":    answer("", `{"records":[]}`),
		"text":               answer("text/plain", `{"records":[]}`),
		"another charset":    answer("application/json; charset=latin-1", `{"records":[]}`),
		"a relative of JSON": answer("application/problem+json", `{"records":[]}`),
		"nothing":            answer("application/json", ``),
		"null":               answer("application/json", `null`),
		"an array":           answer("application/json", `[]`),
		"an empty object":    answer("application/json", `{}`),
		"null records":       answer("application/json", `{"records":null}`),
		"another case":       answer("application/json", `{"Records":[]}`),
		"a page":             answer("application/json", `{"records":[{"a":1}],"next":"/2"}`),
		"records twice":      answer("application/json", `{"records":[{"a":1}],"records":[]}`),
		"a number":           answer("application/json", `{"records":[1]}`),
		"a null record":      answer("application/json", `{"records":[null]}`),
		"cut short":          answer("application/json", `{"records":[{"a":1}`),
		"more after it":      answer("application/json", `{"records":[]} {}`),
		"not UTF-8":          answer("application/json", "{\"records\":[{\"a\":\"\xff\"}]}"),
		"very deep":          answer("application/json", `{"records":[{"a":`+deep+`}]}`),
		"too large":          answer("application/json", `{"records":[]}`+strings.Repeat(" ", 70_000)),
		"endless":            endless,
		"packed":             packed,
		"404":                status(404, ""),
		"401":                status(401, ""),
		"204":                status(204, ""),
		"redirect":           status(307, "http://127.0.0.1:1/elsewhere"),
		"see other":          status(303, "/records"),
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, config.RESTSource{MaxBytes: 64 << 10}, h)
			got, err := s.Fetch(t.Context(), anna)
			if !errors.Is(err, ErrAnswer) || errors.Is(err, exchange.ErrSourceUnavailable) {
				t.Errorf("got %d records, %v", len(got), err)
			}
		})
	}
}

func status(code int, location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if location != "" {
			w.Header().Set("Location", location)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
	}
}

// endless never stops sending: the source must stop reading.
func endless(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"records":[`)
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, strings.Repeat(`{"a":1},`, 1000)); err != nil {
			return
		}
	}
}

func packed(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Encoding", "gzip")
	_, _ = w.Write([]byte{0x1f, 0x8b, 0, 0})
}

// TestRedirectsAreNotFollowed: the number and the token must not go elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	asked := atomic.Bool{}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer elsewhere.Close()
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := serve(t, config.RESTSource{}, status(code, elsewhere.URL))
		if _, err := s.Fetch(t.Context(), anna); !errors.Is(err, ErrAnswer) {
			t.Errorf("%d: %v", code, err)
		}
	}
	if asked.Load() {
		t.Error("a redirect was followed")
	}
}

func TestUnavailable(t *testing.T) {
	for _, code := range []int{429, 500, 502, 503, 504} {
		s := serve(t, config.RESTSource{}, status(code, ""))
		if _, err := s.Fetch(t.Context(), anna); !errors.Is(err, exchange.ErrSourceUnavailable) {
			t.Errorf("%d: %v", code, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s, err := Open(config.RESTSource{URL: "http://" + addr})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), anna); !errors.Is(err, exchange.ErrSourceUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestTokenChanges: a new token is used at once, and a lost one stops questions.
func TestTokenChanges(t *testing.T) {
	file := tokenFile(t, "one")
	var got atomic.Value
	s := serve(t, config.RESTSource{TokenFile: file}, func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization"))
		answer("application/json", `{"records":[]}`)(w, r)
	})
	for _, token := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Fetch(t.Context(), anna); err != nil || got.Load() != "Bearer "+token {
			t.Errorf("%s: sent %v, %v", token, got.Load(), err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	got.Store("")
	if _, err := s.Fetch(t.Context(), anna); !errors.Is(err, exchange.ErrSourceUnavailable) || got.Load() != "" {
		t.Errorf("without a token: asked with %v, %v", got.Load(), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	good := tokenFile(t, "t")
	for name, cfg := range map[string]config.RESTSource{
		"no url":             {},
		"plain http":         {URL: "http://records.example/x"},
		"another scheme":     {URL: "ftp://127.0.0.1/x"},
		"password in url":    {URL: "https://u:p@records.example/x"},
		"fragment":           {URL: "https://records.example/x#y"},
		"looks like here":    {URL: "http://127.0.0.1.example/x"},
		"no such token file": {URL: "https://records.example/x", TokenFile: "/does/not/exist"},
		"empty token":        {URL: "https://records.example/x", TokenFile: tokenFile(t, " \n")},
		"two tokens":         {URL: "https://records.example/x", TokenFile: tokenFile(t, "a\nb")},
		"header injection":   {URL: "https://records.example/x", TokenFile: tokenFile(t, "a\r\nX: y")},
		"endless token":      {URL: "https://records.example/x", TokenFile: tokenFile(t, strings.Repeat("a", maxToken+1))},
		"negative timeout":   {URL: "https://records.example/x", TokenFile: good, Timeout: -1},
		"negative size":      {URL: "https://records.example/x", TokenFile: good, MaxBytes: -1},
	} {
		if _, err := Open(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, u := range []string{"https://records.example/x", "http://localhost:1/x", "http://127.0.0.1/x", "http://[::1]:8080/x"} {
		if _, err := Open(config.RESTSource{URL: u, TokenFile: good}); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// TestSlowBody: a service that sends a byte now and then is not waited for.
func TestSlowBody(t *testing.T) {
	s := serve(t, config.RESTSource{Timeout: 200 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			w.(http.Flusher).Flush()
			select {
			case <-time.After(20 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
	})
	_, err := s.Fetch(t.Context(), anna)
	if !errors.Is(err, exchange.ErrSourceUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"records":[{"a":1},{"b":[{}]}]}`))
	f.Add([]byte(`{"records":[]}`))
	f.Add([]byte(`{"records":[{"records":[]}]} `))
	f.Add([]byte(`{"records":[{}],"x":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		records, err := decode(body)
		if err != nil {
			if !errors.Is(err, ErrAnswer) {
				t.Fatal(err)
			}
			return
		}
		var plain struct {
			Records []map[string]any `json:"records"`
		}
		if err := json.Unmarshal(body, &plain); err != nil || len(plain.Records) != len(records) {
			t.Fatalf("decode took what is not an answer: %v", err)
		}
		for _, r := range records {
			if !json.Valid(r) || !strings.Contains(string(body), string(r)) {
				t.Fatal(fmt.Sprint("record changed: ", string(r)))
			}
		}
	})
}
