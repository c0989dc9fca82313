package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExampleLoads(t *testing.T) {
	path := write(t, string(Example()))
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(path), "storage.key"); c.Data.KeyFile != want {
		t.Errorf("data.key_file = %q, want %q", c.Data.KeyFile, want)
	}
	if want := filepath.Join(filepath.Dir(path), "living-wage.token"); c.Sources[0].REST.TokenFile != want {
		t.Errorf("token_file = %q, want %q", c.Sources[0].REST.TokenFile, want)
	}
	// What the example says is the default is the default.
	d := Default()
	if c.Limits != d.Limits || c.Log != d.Log || c.Outbox != d.Outbox || c.Notify != d.Notify || c.Journal != d.Journal || c.API.Listen != d.API.Listen {
		t.Errorf("the example differs from Default:\n%+v\n%+v", c, d)
	}
}

// Every key of Config stands in the example, so that the example is the manual.
func TestExampleIsComplete(t *testing.T) {
	c, err := Load(write(t, string(Example())))
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		key, _, ok := strings.Cut(strings.TrimLeft(line, " -"), ":")
		if ok && !strings.Contains(key, " ") && !strings.Contains(string(Example()), key+":") {
			t.Errorf("the example does not say %s", key)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	c, err := Load(write(t, string(Example())))
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(write(t, string(b)))
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	b2, _ := again.YAML()
	if string(b) != string(b2) {
		t.Errorf("changed on the way:\n%s\n%s", b, b2)
	}
}

func TestDefaultsStayWhereNothingIsSaid(t *testing.T) {
	c, err := Load(write(t, replace(t, "limits:\n", "limits:\n  drain: 3s\nx:\n")))
	_ = c
	var ps Problems
	if !errors.As(err, &ps) { // the rest of the limits now stands under the unknown key x
		t.Fatal(err)
	}
	p, _ := parse("f", []byte("limits:\n  drain: 3s\n"))
	want := Default().Limits
	want.Drain = 3 * time.Second
	if p.Limits != want {
		t.Errorf("limits = %+v, want %+v", p.Limits, want)
	}
}

func replace(t *testing.T, old, text string) string {
	t.Helper()
	s := string(Example())
	if strings.Count(s, old) != 1 {
		t.Fatalf("%q stands %d times in the example", old, strings.Count(s, old))
	}
	return strings.Replace(s, old, text, 1)
}

// Each problem names the line on which the operator finds it, and what to do.
func TestProblems(t *testing.T) {
	for name, tt := range map[string]struct{ old, new, want string }{
		"unknown key":      {"  key_file: signing.key", "  kye_file: signing.key", "signing.kye_file: unknown key; did you mean key_file?"},
		"unknown, far":     {"  level: info", "  zzzzzzzzzzzz: info", "log.zzzzzzzzzzzz: unknown key; known here: format, level"},
		"type":             {"member: false", "member: maybe", "member: want true or false"},
		"duration":         {"  drain: 10s", "  drain: ten", "limits.drain: want a duration, as 10s"},
		"list":             {"      purposes: [social-inquiry]", "      purposes: {a: b}", "api.applications[0].purposes: want a list"},
		"duplicate":        {"member: false", "member: false\nmember: true", "already defined"},
		"anchor":           {"  level: info", "  level: &x info", "anchors, aliases and tags"},
		"no broker":        {"amqps://broker.example.org/cases", "https://broker.example.org/cases", "inbox.push[1].url: no broker; exchange, routing_key and credentials_file are for amqps URLs"},
		"open broker":      {"amqps://broker.example.org/cases", "amqp://broker.example.org/cases", "inbox.push[1].url: personal data would travel here without TLS"},
		"no routing key":   {"      routing_key: notifications\n", "", "inbox.push[1].routing_key: missing"},
		"broker's headers": {"      credentials_file: case-queue.credentials", "      headers_file: x", "inbox.push[1].headers_file: a broker has no headers"},
		"no mesh":          {"mesh: demo.crossroads.example", "mesh: Demo", "mesh: malformed name"},
		"hash":             {"  sha256: 000000", "  sha256: xx0000", "genesis.sha256: want 64 hexadecimal digits; run `crossroads genesis hash FILE`"},
		"wildcard":         {"advertise: node.pcsa-exampleville.example:7400", "", "listen: peers cannot reach a wildcard address; set advertise"},
		"plaintext":        {"  listen: 127.0.0.1:7480", "  listen: 0.0.0.0:7480", "api.listen: tokens would travel here without TLS"},
		"half TLS":         {"  # tls_cert: api.pem", "  tls_cert: api.pem", "api.tls_cert and api.tls_key go together"},
		"token twice":      {"token_sha256: 2222222222222222222222222222222222222222222222222222222222222222", "token_sha256: 1111111111111111111111111111111111111111111111111111111111111111", "api.applications[1].token_sha256: used twice"},
		"level":            {"      auth_level: 3", "      auth_level: 9", "api.applications[0].auth_level: out of range; want 0 to 4"},
		"dataset twice":    {"  - dataset: household/v1\n", "  - dataset: living-wage/v1\n", "sources[1].dataset: has a source already"},
		"both":             {"    rest:\n", "    sql: {driver: sqlite, dsn: x, query: y}\n    rest:\n", "sources[0]: want exactly one of rest and sql"},
		"driver":           {"      driver: postgres", "      driver: oracle", "sources[1].sql.driver: \"oracle\" is not known; want one of [sqlite postgres]"},
		"scheme":           {"url: http://127.0.0.1:9090/living-wage", "url: ftp://x/y", "sources[0].rest.url: not an http or https URL"},
		"log":              {"  level: info", "  level: loud", "log.level: \"loud\" is not known"},
		"limit":            {"  api_concurrent: 64", "  api_concurrent: -1", "limits.api_concurrent: out of range; want 1 to 100000"},
		"missing":          {"  key_file: gossip.key", "", "gossip.key_file: is missing"},
		"port":             {"listen: 0.0.0.0:7400", "listen: 0.0.0.0:74000", "listen: port out of range"},
		"bad YAML":         {"member: false", "member: [", ""},
		"second document":  {"member: false", "---\nmember: false", "want exactly one YAML document"},
		"scalar for group": {"signing:\n  key_file: signing.key", "signing: signing.key", "signing: want a group of keys"},
	} {
		t.Run(name, func(t *testing.T) {
			text := replace(t, tt.old, tt.new)
			_, err := Load(write(t, text))
			var ps Problems
			if !errors.As(err, &ps) {
				t.Fatalf("err = %v, want Problems", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("err = %v\nwant %s", err, tt.want)
			}
			if tt.new == "" || name == "second document" || name == "bad YAML" {
				return
			}
			first := 1 + strings.Count(text[:strings.Index(string(Example()), tt.old)], "\n")
			last := first + strings.Count(tt.new, "\n")
			for _, p := range ps {
				if p.Line < first-2 || p.Line > last {
					t.Errorf("told of line %d, but lines %d to %d were changed: %v", p.Line, first, last, p)
				}
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	text := strings.NewReplacer("  level: info", "  levle: info", "  drain: 10s", "  drain: -10s", "mesh: demo", "mesh: DEMO").Replace(string(Example()))
	_, err := Load(write(t, text))
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != 3 {
		t.Fatalf("want three problems, got %v", err)
	}
	if ps[0].Line >= ps[1].Line || ps[1].Line >= ps[2].Line {
		t.Errorf("not in order of line: %v", ps)
	}
}

// To YAML these are numbers; a hash must come through as it was written.
func TestTextStaysText(t *testing.T) {
	for _, s := range []string{
		"1234567890123456789012345678901234567890123456789012345678901234",
		"0000000000000000000000000000000000000000000000000000000000000017",
		"123456789012345678901234567890123456789012345678901234567890e123",
		"true", "007", "1.50", ".inf", "0x1f", "1_000",
	} {
		c, ps := parse("f", []byte("genesis:\n  sha256: "+s+"\napi:\n  applications:\n    - purposes: ["+s+"]\n"))
		if c == nil || c.Genesis.SHA256 != s || string(c.API.Applications[0].Purposes[0]) != s {
			t.Errorf("%s: read %+v, %v", s, c, ps)
		}
	}
}

func TestHostileFiles(t *testing.T) {
	for name, text := range map[string]string{
		"empty":    "",
		"comment":  "# nothing\n",
		"large":    strings.Repeat("# x\n", MaxSize),
		"brackets": "mesh: " + strings.Repeat("[", 100_000),
		"braces":   "mesh: " + strings.Repeat("{a: ", 50_000),
		"dashes":   strings.Repeat("- ", 50_000) + "x",
		"laughs":   "a: &a [x,x]\nb: &b [*a,*a]\nmesh: *b\n",
		"binary":   "\x00\xff\xfe",
		"number":   "42",
		"list":     "- a\n- b\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(write(t, text))
			var ps Problems
			if !errors.As(err, &ps) {
				t.Fatalf("err = %v, want Problems", err)
			}
			if len(err.Error()) > 4096 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestValidateWithoutFile(t *testing.T) {
	err := Default().Validate()
	var ps Problems
	if !errors.As(err, &ps) || ps[0].Line != 0 || ps[0].File != "" {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Example())
	f.Add([]byte("mesh: [a, {b: c}]"))
	f.Add([]byte("sources: [{dataset: 1, rest: null}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ps := parse("f", b); c == nil && len(ps) == 0 {
			t.Error("neither a configuration nor a problem")
		} else if c != nil {
			c.resolve("/x")
			_ = c.Validate()
		}
	})
}
