package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// aJournal makes the storage of a node with some entries, and gives its configuration
// file and its last checkpoint.
func aJournal(t *testing.T) (file string, checkpoint []byte) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(file, config.Example(), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := certs.NewStorageKey(cfg.Data.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := certs.NewSigner(cfg.Signing.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(cfg.Data.Dir, "journal")
	j, err := journal.Open(journal.Config{Dir: in, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for i := range 50 {
		e := &nodepb.Entry{TimeUnixMs: 1_780_000_000_000, Role: nodepb.Role_SUPPLIER, Event: nodepb.Event_SUPPLIED, Ticket: fmt.Sprint(i)}
		if _, err := j.Append(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	l, err := tlog.Open(context.Background(), tlog.Config{Journal: j, Dir: in, Origin: tlog.Origin(cfg.Mesh, cfg.Node.ID()), Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return file, l.Checkpoint()
}

func TestJournalVerifyAndRebuild(t *testing.T) {
	file, checkpoint := aJournal(t)
	dir := filepath.Join(filepath.Dir(file), "data", "journal")
	anchor := filepath.Join(t.TempDir(), "anchor")
	if err := os.WriteFile(anchor, checkpoint, 0o600); err != nil {
		t.Fatal(err)
	}
	expect := func(code int, out, errOut string, args ...string) {
		t.Helper()
		c, o, e := verb(t, "", append([]string{"journal"}, args...)...)
		if c != code || !regexp.MustCompile(out).MatchString(o) || !regexp.MustCompile(errOut).MatchString(e) {
			t.Fatalf("%v: exit code %d, want %d\n%s\n%s", args, c, code, o, e)
		}
	}
	whole := `50 entries, compared with 1 checkpoints kept here and 1 kept by others\nnothing is wrong`
	expect(exitOK, whole, `^$`, "verify", "--config", file, "--anchor", anchor)
	for _, derived := range []string{journal.IndexDir, tlog.TilesDir} {
		if err := os.RemoveAll(filepath.Join(dir, derived)); err != nil {
			t.Fatal(err)
		}
	}
	expect(exitOK, `of 50 entries are made again`, ``, "rebuild", "--config", file)
	expect(exitOK, whole, `^$`, "verify", "--config", file, "--anchor", anchor)
	if _, err := os.Stat(filepath.Join(dir, tlog.TilesDir, "level-0")); err != nil {
		t.Fatal(err)
	}

	// A checkpoint of somebody else accuses nobody.
	_, foreign := aJournal(t)
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(exitFailure, `^$`, `no checkpoint of this journal`, "verify", "--config", file, "--anchor", other)

	log := filepath.Join(dir, "log", "00000000000000000000.journal")
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	b[1000] ^= 1
	if err := os.WriteFile(log, b, 0o600); err != nil {
		t.Fatal(err)
	}
	evidence := `(?s)(DAMAGED|MISSING): .*entry 7.*culprit +the holder of this journal.*the checkpoint, as others kept it:\n.*` +
		regexp.QuoteMeta(strings.Split(string(checkpoint), "\n")[2])
	expect(exitFindings, evidence, `^$`, "verify", "--config", file, "--anchor", anchor)
	expect(exitFindings, `"kind": "(DAMAGED|MISSING)"(.|\n)*"checkpoint": "demo`, `^$`, "verify", "--config", file, "-o", "json")
}

// TestJournalVerifySector: a node of a sector has two journals, and both are reported on.
func TestJournalVerifySector(t *testing.T) {
	file, _ := aJournal(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(b, "\nsector:\n  managing_body: nic\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	c, out, errOut := verb(t, "", "journal", "verify", "--config", file)
	if c != exitFailure || !strings.Contains(errOut, "the sector's journal") {
		t.Fatalf("without it: %d %s %s", c, out, errOut)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := certs.LoadStorageKey(cfg.Data.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := certs.LoadSigner(cfg.Signing.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cfg.Data.Dir, "sector", "journal")
	j, err := journal.Open(journal.Config{Dir: dir, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), &nodepb.Entry{TimeUnixMs: 1_780_000_000_000, Role: nodepb.Role_SUPPLIER, Event: nodepb.Event_SECTOR_SUPPLIED}); err != nil {
		t.Fatal(err)
	}
	l, err := tlog.Open(t.Context(), tlog.Config{Journal: j, Dir: dir, Origin: tlog.SectorOrigin(cfg.Mesh, cfg.Node.ID()), Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	c, out, errOut = verb(t, "", "journal", "verify", "--config", file)
	if c != exitOK || strings.Count(out, "nothing is wrong") != 2 || !strings.Contains(out, "/sector/") || errOut != "" {
		t.Fatalf("%d %s %s", c, out, errOut)
	}
	log := filepath.Join(dir, "log", "00000000000000000000.journal")
	if b, err = os.ReadFile(log); err != nil {
		t.Fatal(err)
	}
	b[100] ^= 1
	if err := os.WriteFile(log, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, out, _ = verb(t, "", "journal", "verify", "--config", file); c != exitFindings || strings.Count(out, "nothing is wrong") != 1 || !strings.Contains(out, "culprit") {
		t.Fatalf("%d %s", c, out)
	}
	if c, out, _ = verb(t, "", "journal", "verify", "--config", file, "-o", "json"); c != exitFindings || !strings.Contains(out, `"sector": {`) {
		t.Fatalf("%d %s", c, out)
	}
}
