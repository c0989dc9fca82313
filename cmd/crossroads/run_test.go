package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/config"
)

// verb carries out one command line in this process.
func verb(t *testing.T, in string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(in), &o, &e)
	return code, o.String(), e.String()
}

// Scripts tell a refusal from a failure, and both from their own mistakes, by the code.
func TestExitCodes(t *testing.T) {
	t.Setenv("CROSSROADS_API", "")
	t.Setenv("CROSSROADS_TOKEN", "")
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := filepath.Base(r.URL.Path) + ".json"
		if r.Method == http.MethodPost {
			name = r.Header.Get("X-Crossroads-User") + ".json" // the user names the outcome
		}
		b, err := os.ReadFile(filepath.Join("testdata/node", strings.Replace(name, "0123456789abcdefghjkmnpqrs", "trace-0", 1)))
		if err != nil {
			b, _ = os.ReadFile("testdata/node/trace-1.json")
		}
		w.Header().Set("Content-Type", "application/json")
		if name == "unauthenticated.json" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = w.Write(b)
	}))
	defer node.Close()
	consult := []string{"consult", "--api", node.URL, "--dataset", "wages/v1", "--purpose", "p", "--subject", "-", "--as-user"}
	for name, tt := range map[string]struct {
		args     []string
		code     int
		out, err string // regular expressions
	}{
		"nothing":         {nil, exitOK, `3  refused by the network`, ``},
		"no verb":         {[]string{"tracee"}, exitUsage, ``, `(?s)unknown command.*trace`},
		"no such listing": {[]string{"registry", "offering"}, exitUsage, ``, `did you mean offerings\?`},
		"no such flag":    {[]string{"testnet", "up", "--node", "3"}, exitUsage, ``, `unknown flag: --node`},
		"impossible":      {[]string{"testnet", "up", "--nodes", "2"}, exitUsage, ``, `impossible test network`},
		"missing flags":   {[]string{"consult"}, exitUsage, ``, `"dataset", "purpose", "subject" not set`},
		"no node":         {[]string{"registry", "status"}, exitUsage, ``, `which node\?`},
		"no number":       {append(consult[:len(consult)-3:len(consult)-3], "--subject", ""), exitUsage, ``, `--subject is empty`},
		"no node there":   {[]string{"registry", "status", "--api", "http://127.0.0.1:1"}, exitFailure, ``, `refused`},
		"found":           {append(consult, "found"), exitOK, `nsso: DATA_FOUND; withheld name\nEMPLOYER +GROSS +QUARTER\n +3000 +2026-1\n`, `^$`},
		"refused":         {append(consult, "refused"), exitRefused, `REASON +NOT_INTEGRATED\n +No file\. \[31m\n`, `^$`},
		"incomplete":      {append(consult, "incomplete"), exitIncomplete, `neo: NO_RESULT, SUPPLIER_UNAVAILABLE: The supplier`, `^$`},
		"unauthenticated": {append(consult, "unauthenticated"), exitFailure, `^$`, `not known by this token\. Authorization: .*\(request R1\)`},
		"consistent":      {[]string{"trace", "0123456789abcdefghjkmnpqrs", "--api", node.URL}, exitOK, `CONSISTENT`, `^$`},
		"findings":        {[]string{"trace", "1123456789abcdefghjkmnpqrs", "--api", node.URL}, exitFindings, `not what was committed to`, `^$`},
		"no ticket":       {[]string{"trace", "74071238186"}, exitUsage, ``, `ticket`},
		"version":         {[]string{"version"}, exitOK, `^crossroads dev`, `^$`},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errOut := verb(t, "74071238186\n", tt.args...)
			if code != tt.code || !regexp.MustCompile(tt.out).MatchString(out) || !regexp.MustCompile(tt.err).MatchString(errOut) {
				t.Errorf("exit code %d, want %d\n%s\n%s", code, tt.code, out, errOut)
			}
			if len(tt.args) > 0 && tt.args[0] == "consult" && strings.Contains(out+errOut, "74071238186") {
				t.Error("the subject's number was printed")
			}
		})
	}
}

// Whatever becomes of the answer, one knows under which ticket to ask again.
func TestConsultNamesItsTicket(t *testing.T) {
	var mu sync.Mutex // of sent
	var sent []string
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			ClientTicket string `json:"client_ticket"`
		}
		_ = json.NewDecoder(r.Body).Decode(&q)
		mu.Lock()
		sent = append(sent, q.ClientTicket)
		mu.Unlock()
		panic(http.ErrAbortHandler) // the connection breaks
	}))
	defer node.Close()
	args := []string{"consult", "--api", node.URL, "--dataset", "wages/v1", "--purpose", "p", "--subject", "-", "--as-user", "alice"}
	t.Setenv("CROSSROADS_TOKEN", "secret")
	for _, args := range [][]string{args, append(args, "--client-ticket", "file 12/3")} {
		mu.Lock()
		sent = nil
		mu.Unlock()
		code, _, errOut := verb(t, "74071238186\n", args...)
		mu.Lock()
		if code != exitFailure || len(sent) == 0 || sent[0] == "" || !strings.Contains(errOut, "--client-ticket "+sent[0]) {
			t.Errorf("exit code %d, sent %q: %s", code, sent, errOut)
		}
		mu.Unlock()
	}
}

func TestConfigVerbs(t *testing.T) {
	code, out, _ := verb(t, "", "config", "example")
	if code != exitOK || out != string(config.Example()) {
		t.Fatal(code)
	}
	good, bad := filepath.Join(t.TempDir(), "node.yaml"), filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(good, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := verb(t, "", "config", "validate", good); code != exitOK || !strings.Contains(out, "good: node pcsa-exampleville/n1") {
		t.Errorf("%d %s%s", code, out, errOut)
	}
	mistaken := strings.NewReplacer("signing:\n", "sining:\n", "drain: 10s", "drain: 1h").Replace(out)
	if err := os.WriteFile(bad, []byte(mistaken), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"config", "validate", bad}, {"node", "run", "--config", bad}} {
		code, _, errOut := verb(t, "", args...)
		for _, want := range []string{
			`bad\.yaml:\d+:1: sining: unknown key; did you mean signing\?`,
			`bad\.yaml:\d+:3: limits\.drain: out of range; want 0s to 10m0s`,
			`bad\.yaml: signing\.key_file: is missing; make one with`,
		} {
			if code != exitFailure || !regexp.MustCompile(want).MatchString(errOut) {
				t.Errorf("%v: exit code %d, want %s in\n%s", args, code, want, errOut)
			}
		}
	}
}

func TestTable(t *testing.T) {
	tb := newTable("A", "B", "C")
	tb.add("1", "", "")
	tb.add("long one", "\x1b[31mred\n", "x")
	var b bytes.Buffer
	if err := tb.write(&b); err != nil {
		t.Fatal(err)
	}
	if want := "A         B          C\n1\nlong one   [31mred   x\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
