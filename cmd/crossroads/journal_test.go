package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// ownNode makes the folder of a node with a journal of two months, of which the first is
// long past its retention, and gives the configuration file and the public key.
func ownNode(t *testing.T) (cfg journal.Config, file, key string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(file, config.Example(), 0o600); err != nil {
		t.Fatal(err)
	}
	storage, err := certs.NewStorageKey(filepath.Join(dir, "storage.key"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := certs.NewSigner(filepath.Join(dir, "signing.key"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg = journal.Config{
		Dir: filepath.Join(dir, "data", "journal"), Key: storage,
		Signing: &journal.Signing{Mesh: c.Mesh, Node: c.Node.ID(), Signer: signer},
	}
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{time.Date(2010, 3, 5, 0, 0, 0, 0, time.UTC), time.Now().AddDate(0, -2, 0)} {
		_, err := j.Append(context.Background(), &nodepb.Entry{
			TimeUnixMs: at.UnixMilli(), Role: nodepb.Role_CONSULTANT, Event: nodepb.Event_REQUESTED, User: "alice",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg, file, base64.StdEncoding.EncodeToString(signer.Public().(ed25519.PublicKey))
}

// The verbs of a journal on disk do what they say, and say what they do not.
func TestOwnJournal(t *testing.T) {
	cfg, file, key := ownNode(t)
	dir := t.TempDir()
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	recent := time.Now().AddDate(0, -2, 0).UTC().Format("2006-01")
	for _, step := range []struct {
		args     []string
		code     int
		out, err string
	}{
		{[]string{"export", "--out", before}, 0, ``, `entries 0 to 4, 4 in all`},
		{[]string{"export", "--out", before}, exitFailure, ``, `exists`},
		{[]string{"export", "--out", "-", "-o", "json", "--from", "2010-01-01", "--until", "2011-01-01"}, 0, `(?s)^\{"sequence":1,"entry":.*alice.*\n$`, ``},
		{[]string{"export", "--out", "-", "-o", "xml"}, exitUsage, ``, `archive or json`},
		{[]string{"erase", "--period", recent}, exitFailure, ``, `is kept until .*--early`},
		{[]string{"erase", "--period", recent, "--early"}, exitUsage, ``, `takes --reason`},
		{[]string{"erase", "--period", "last year"}, exitUsage, ``, `want a month`},
		{[]string{"erase", "--period", "2010-04"}, exitFailure, ``, `no entries of that month`},
		{[]string{"erase", "--period", "2010-03"}, 0, `2010-03 was erased on .* under journal.retention of 120 months by operator`, ``},
		{[]string{"erase", "--period", recent, "--early", "--reason", "order of the court"}, 0, `order of the court`, ``},
		{[]string{"export", "--out", after}, 0, ``, `in all`},
		{[]string{"restore-declared"}, exitUsage, ``, `"reason" not set`},
		{[]string{"restore-declared", "--reason", "disk replaced"}, 0, `epoch 2 began`, ``},
	} {
		code, out, errOut := verb(t, "", append([]string{"journal", step.args[0], "--config", file}, step.args[1:]...)...)
		if code != step.code || !regexp.MustCompile(step.out).MatchString(out) || !regexp.MustCompile(step.err).MatchString(errOut) {
			t.Errorf("%v: %d\n%s%s", step.args, code, out, errOut)
		}
	}
	for archive, want := range map[string]string{before: `(?s)^good: 4 entries.*sealed on`, after: `(?s)^good: .*2 of them are erased.*2010-03.*order of the court`} {
		code, out, errOut := verb(t, "", "journal", "archive", "verify", archive, "--key", key)
		if code != 0 || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("verify: %d\n%s%s", code, out, errOut)
		}
	}
	b, err := os.ReadFile(before)
	if err != nil {
		t.Fatal(err)
	}
	code, out, _ := verb(t, string(b), "journal", "archive", "verify", "-", "--key", key, "-o", "json")
	if code != 0 || strings.Count(out, "\n") != 4 || !strings.Contains(out, "alice") {
		t.Errorf("as JSON: %d\n%s", code, out)
	}
	b = bytes.Replace(b, []byte("alice"), []byte("bobby"), 1)
	for _, key := range []string{key, "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="} {
		if code, out, errOut := verb(t, string(b), "journal", "archive", "verify", "-", "--key", key); code != exitFindings || out != "" || !strings.Contains(errOut, "does not verify") {
			t.Errorf("altered: %d\n%s%s", code, out, errOut)
		}
	}

	// While the node has the journal open, it is not touched, and can yet be exported.
	j, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if e := j.Epoch(); e.Number != 2 || e.Reason != "disk replaced" {
		t.Errorf("epoch %+v", e)
	}
	for _, args := range [][]string{{"erase", "--period", "2010-03"}, {"restore-declared", "--reason", "x"}} {
		if code, _, errOut := verb(t, "", append([]string{"journal", args[0], "--config", file}, args[1:]...)...); code != exitFailure || !strings.Contains(errOut, "stop the node first") {
			t.Errorf("%v beside a node: %d %s", args, code, errOut)
		}
	}
	live := filepath.Join(dir, "live")
	if code, _, errOut := verb(t, "", "journal", "export", "--config", file, "--out", live); code != 0 || !strings.Contains(errOut, "not journaled") {
		t.Errorf("export beside a node: %d %s", code, errOut)
	}
	if code, out, errOut := verb(t, "", "journal", "archive", "verify", live, "--key", key); code != 0 {
		t.Errorf("verify: %d\n%s%s", code, out, errOut)
	}
}
