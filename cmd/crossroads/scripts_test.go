package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"crossroads": func() { os.Exit(mainCode()) }})
}

// The scripts run the real binary. $NODE is the API of a stand-in for a node, which
// answers what the files under testdata/node hold.
func TestScripts(t *testing.T) {
	genesis, err := filepath.Abs("../../certs/genesis/testdata/genesis.json")
	if err != nil {
		t.Fatal(err)
	}
	node := httptest.NewServer(standIn(t))
	t.Cleanup(node.Close)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("NODE", node.URL)
			e.Setenv("GENESIS", genesis)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "judges": judges, "delaypasses": delaypasses},
	})
}

// exits runs a command and checks its exit code: exits 2 crossroads nonsense
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var e *exec.ExitError
	if errors.As(err, &e) {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// standIn answers in a node's place. Which consultation it tells depends on the purpose.
func standIn(t *testing.T) http.Handler {
	reply := func(w http.ResponseWriter, status int, file string) {
		b, err := os.ReadFile(filepath.Join("testdata/node", file))
		if err != nil {
			t.Error(err)
		}
		media := "application/json"
		if status >= 400 {
			media = "application/problem+json"
		}
		w.Header().Set("Content-Type", media)
		w.WriteHeader(status)
		_, _ = w.Write(b)
	}
	mux := http.NewServeMux()
	standInNotices(t, mux, reply)
	mux.HandleFunc("POST /v1/consultations", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		said := string(body)
		switch {
		case r.Header.Get("Authorization") != "Bearer secret":
			reply(w, http.StatusUnauthorized, "unauthenticated.json")
		case r.Header.Get("X-Crossroads-User") != "alice" || r.Header.Get("X-Crossroads-Channel") != "cli":
			t.Errorf("headers %v", r.Header)
		case !strings.Contains(said, `"number":"74071238186"`):
			t.Errorf("asked %s", said)
		default:
			for _, name := range []string{"found", "refused", "incomplete"} {
				if strings.Contains(said, `"purpose":"`+name+`"`) {
					reply(w, http.StatusOK, name+".json")
				}
			}
		}
	})
	mux.HandleFunc("GET /v1/trace/{ticket}", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, "trace-"+r.PathValue("ticket")[:1]+".json")
	})
	mux.HandleFunc("GET /v1/institutions", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, "institutions.json") })
	mux.HandleFunc("GET /v1/anchors", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, "anchors.json") })
	mux.HandleFunc("GET /v1/registry/head", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"sequence":41,"hash":"%s"}`, strings.Repeat("ab", 32))
	})
	mux.HandleFunc("POST /v1/registry/commands", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, "submitted.json") })
	return mux
}
