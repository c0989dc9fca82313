package config

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// The ranges within which a setting makes sense.
const (
	maxAuthLevel  = 4
	maxOutboxLife = 30 * 24 * time.Hour
	maxKeep       = 14 * 24 * time.Hour // recipients know for so long what they have received
	maxSQLQuery   = 16 << 10
	minRetention  = 6 // months: a subject sees who consulted its data in the last six
	maxRetention  = 1200
)

// Validate reports everything that keeps c from being used, as Problems; nil: it can
// be. It looks at the values only, not at the files that they name.
func (c *Config) Validate() error {
	if ps := c.problems(); len(ps) > 0 {
		return ps.sorted()
	}
	return nil
}

func (c *Config) problems() Problems {
	v := &checker{source: c.source}
	v.name("mesh", c.Mesh.Validate(), "name the mesh as its genesis file does")
	v.text("genesis.file", c.Genesis.File, "name the genesis file that the mesh's operators published")
	v.hash("genesis.sha256", c.Genesis.SHA256, "run `crossroads genesis hash FILE` and compare it with what the operators published")
	v.name("node.institution", c.Node.Institution.Validate(), "use the institution's ID in the registry")
	v.name("node.name", c.Node.Name.Validate(), "choose a name for this node, as n1")
	v.listen("listen", c.Listen)
	if c.Advertise != "" {
		v.reachable("advertise", c.Advertise, "name the host and port under which peers reach this node")
	} else if c.Listen != "" {
		v.reachable("listen", c.Listen, "set advertise to the host and port under which peers reach this node")
	}
	v.text("data.dir", c.Data.Dir, "name the folder that is this node's own")
	v.text("data.key_file", c.Data.KeyFile, "make one with `crossroads certs keygen storage FILE`")
	v.text("identity.dir", c.Identity.Dir, "name the folder that holds svid.pem, key.pem and bundle.pem")
	v.text("signing.key_file", c.Signing.KeyFile, "make one with `crossroads certs keygen signing FILE`")
	if c.Gossip.Enabled {
		v.text("gossip.key_file", c.Gossip.KeyFile, "make one with `crossroads certs keygen gossip FILE`, or set gossip.enabled: false")
	}
	c.API.check(v)
	seen := map[names.DatasetID]bool{}
	for i, s := range c.Sources {
		key := fmt.Sprintf("sources[%d]", i)
		s.check(v, key)
		if seen[s.Dataset] {
			v.add(key+".dataset", "has a source already", "give every dataset one source")
		}
		seen[s.Dataset] = true
	}
	c.Sector.check(v)
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
	c.Limits.check(v)
	within(v, "outbox.life", c.Outbox.Life, time.Minute, maxOutboxLife)
	within(v, "notify.keep", c.Notify.Keep, time.Hour, maxKeep)
	c.Inbox.check(v, c.API.Applications)
	c.Lots.check(v)
	within(v, "journal.retention", c.Journal.Retention, minRetention, maxRetention)
	return v.found
}

func (a API) check(v *checker) {
	v.listen("api.listen", a.Listen)
	if (a.TLSCert == "") != (a.TLSKey == "") {
		v.add("api.tls_cert", "api.tls_cert and api.tls_key go together", "name both files, or neither")
	}
	if host, _, err := net.SplitHostPort(a.Listen); err == nil && a.TLSCert == "" && !a.Plaintext && !isLoopback(host) {
		v.add("api.listen", "tokens would travel here without TLS",
			"set api.tls_cert and api.tls_key, or listen on 127.0.0.1, or set api.plaintext: true behind a proxy that ends TLS")
	}
	called, hashes := map[string]bool{}, map[string]bool{}
	for i, app := range a.Applications {
		key := fmt.Sprintf("api.applications[%d]", i)
		v.name(key+".name", names.NodeName(app.Name).Validate(), "use lower case letters, digits and dashes")
		if called[app.Name] {
			v.add(key+".name", "used twice", "give every application its own name")
		}
		v.hash(key+".token_sha256", app.TokenSHA256, "`crossroads certs keygen token` makes a token and its hash")
		if app.TokenSHA256 != "" && hashes[app.TokenSHA256] {
			v.add(key+".token_sha256", "used twice", "give every application a token of its own")
		}
		called[app.Name], hashes[app.TokenSHA256] = true, true
		if app.AuthLevel > maxAuthLevel {
			v.add(key+".auth_level", "out of range", fmt.Sprintf("want 0 to %d", maxAuthLevel))
		}
		if len(app.Oversees) > 0 && !app.Officer {
			v.add(key+".oversees", "the application is no officer's", "set officer: true, or leave oversees out")
		}
		for j, u := range app.Oversees {
			v.name(fmt.Sprintf("%s.oversees[%d]", key, j), names.UserID(u).Validate(), "name a user, or write how users begin and end it with *")
		}
		for j, p := range app.Purposes {
			v.name(fmt.Sprintf("%s.purposes[%d]", key, j), p.Validate(), "use a purpose as an authorization names it")
		}
		for j, d := range app.Datasets {
			v.name(fmt.Sprintf("%s.datasets[%d]", key, j), d.Validate(), "use a dataset as the registry names it")
		}
	}
}

func (s Source) check(v *checker, key string) {
	v.name(key+".dataset", s.Dataset.Validate(), "use a dataset as the registry names it")
	if (s.REST == nil) == (s.SQL == nil) {
		v.add(key, "want exactly one of rest and sql", "say where the dataset's records are kept")
	}
	if s.REST != nil {
		if u, err := url.Parse(s.REST.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			v.add(key+".rest.url", "not an http or https URL", "write it as https://host/path")
		}
		within(v, key+".rest.timeout", s.REST.Timeout, 0, time.Minute)
		within(v, key+".rest.max_bytes", s.REST.MaxBytes, 0, 64<<20)
	}
	if s.SQL != nil {
		v.oneOf(key+".sql.driver", s.SQL.Driver, "sqlite", "postgres")
		if (s.SQL.DSN == "") == (s.SQL.DSNFile == "") {
			v.add(key+".sql.dsn", "want exactly one of dsn and dsn_file", "a DSN with a password belongs in dsn_file")
		}
		v.text(key+".sql.query", s.SQL.Query, "write the one statement that fetches the records")
		if len(s.SQL.Query) > maxSQLQuery {
			v.add(key+".sql.query", "too long", "make it a view or a function of the database")
		}
		within(v, key+".sql.max_rows", s.SQL.MaxRows, 0, 100_000)
		within(v, key+".sql.timeout", s.SQL.Timeout, 0, time.Minute)
	}
}

func (s *Sector) check(v *checker) {
	if s == nil {
		return
	}
	if s.ManagingBody != "" {
		v.name("sector.managing_body", s.ManagingBody.Validate(), "use the managing body's ID in the registry")
		if len(s.Datasets) > 0 || s.Prompt != 0 || s.Late != 0 {
			v.add("sector.managing_body", "datasets, prompt and late are the managing body's to set", "set managing_body at a cooperating institution, the others at the managing body")
		}
		return
	}
	for i, d := range s.Datasets {
		v.name(fmt.Sprintf("sector.datasets[%d]", i), d.Validate(), "use a dataset as the registry names it")
	}
	if s.Prompt == 0 && s.Late == 0 {
		return // as they are by default
	}
	within(v, "sector.prompt", s.Prompt, 10*time.Millisecond, 10*time.Second)
	if s.Late != s.Prompt { // one class for everything
		within(v, "sector.late", s.Late, 2*s.Prompt, time.Minute)
	}
}

func (l Limits) check(v *checker) {
	within(v, "limits.api_body", l.APIBody, 1<<10, 16<<20)
	within(v, "limits.api_concurrent", l.APIConcurrent, 1, 100_000)
	within(v, "limits.peer_streams", l.PeerStreams, 1, 100_000)
	within(v, "limits.peer_per_second", l.PeerPerSecond, 0.1, 1e6)
	within(v, "limits.peer_burst", l.PeerBurst, 1, 1_000_000)
	within(v, "limits.message", l.Message, 64<<10, 64<<20)
	within(v, "limits.drain", l.Drain, 0, 10*time.Minute)
	within(v, "limits.examine_every", l.ExamineEvery, 0, 24*time.Hour)
}

// checker collects problems.
type checker struct {
	source source
	found  Problems
}

func (v *checker) add(key, what, mend string) {
	p := v.source.find(key)
	v.found = append(v.found, Problem{File: v.source.file, Line: p.line, Column: p.column, Key: key, What: what, Mend: mend})
}

func (v *checker) name(key string, err error, mend string) {
	if err != nil {
		v.add(key, err.Error(), mend)
	}
}

func (v *checker) text(key, s, mend string) {
	if s == "" {
		v.add(key, "is missing", mend)
	}
}

func (v *checker) hash(key, s, mend string) {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 {
		v.add(key, "want 64 hexadecimal digits", mend)
	}
}

func (v *checker) oneOf(key, s string, allowed ...string) {
	for _, a := range allowed {
		if s == a {
			return
		}
	}
	v.add(key, fmt.Sprintf("%q is not known", clip(s)), fmt.Sprintf("want one of %v", allowed))
}

// within is a function because methods have no type parameters.
func within[T int | int64 | float64 | time.Duration](v *checker, key string, x, least, most T) {
	if x < least || x > most {
		v.add(key, "out of range", fmt.Sprintf("want %v to %v", least, most))
	}
}

func (v *checker) listen(key, addr string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		v.add(key, "not an address", "write it as host:port, an IPv6 host in brackets")
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		v.add(key, "port out of range", "want a number from 0 to 65535; 0: any free port")
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		v.add(key, "the host is not an IP address of this machine", "write an IP address, or leave the host out for all")
	}
}

// reachable refuses what no peer could dial.
func (v *checker) reachable(key, addr, mend string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		if key == "advertise" {
			v.add(key, "not an address", mend)
		}
		return // listen has been told already
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		v.add(key, "peers cannot reach a wildcard address", mend)
	}
	if n, err := strconv.ParseUint(port, 10, 16); key == "advertise" && (err != nil || n == 0) {
		v.add(key, "port out of range", "want a number from 1 to 65535")
	}
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
