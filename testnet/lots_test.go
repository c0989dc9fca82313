package testnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// A lot over a whole network brings what the lives say, line by line, and its trace is
// consistent. On the same network: a folder to drop files in, a lot that is paused, resumed
// and cancelled, and what is refused.
func TestLotOverNetwork(t *testing.T) {
	t.Parallel()
	drop := filepath.Join(t.TempDir(), "drop")
	n := start(t, Options{Persons: 600, Also: data.FundIDs(), Configure: func(id names.InstitutionID, c *config.Config) {
		if id == "fps-economy" {
			c.Lots.MaxLines = 700
			c.Lots.Drops = []config.Drop{{
				Dir: drop, Application: "night", User: "clerk-1", AuthLevel: 3, Purpose: "social-energy-tariff",
				Dataset: "increased-reimbursement/v1", Days: 364, Number: "number",
			}}
		}
		if id == "pcsa-ghent" { // never, but for a minute that is not this one
			at := time.Now().UTC().Add(12 * time.Hour)
			c.Lots.Window = at.Format("15:04") + "-" + at.Add(time.Minute).Format("15:04")
		}
	}})
	dropped := []byte("number\n")
	for p := range n.World().Persons() {
		if p.Index < 150 {
			dropped = fmt.Appendln(dropped, p.SSIN.Number())
		}
	}
	if err := os.WriteFile(filepath.Join(drop, "customers.csv"), dropped, 0o600); err != nil {
		t.Fatal(err)
	}
	c := n.Client("fps-economy")
	t.Run("refused", func(t *testing.T) { lotsRefused(t, n) })
	t.Run("paused", func(t *testing.T) { lotPaused(t, n) })
	var in strings.Builder
	in.WriteString("number\n")
	var people []*data.Person
	for p := range n.World().Persons() {
		people = append(people, p)
		fmt.Fprintln(&in, p.SSIN.Number())
	}
	period := names.Period{From: data.Today - 364, Until: data.Today}
	l, err := c.SubmitLot(t.Context(), api.LotRequest{
		Purpose: "social-energy-tariff", Dataset: "increased-reimbursement/v1", Period: period,
	}, strings.NewReader(in.String()))
	if err != nil {
		t.Fatal(err)
	}
	for l.Ended == nil {
		time.Sleep(20 * time.Millisecond)
		if l, err = c.Lot(t.Context(), l.Voucher); err != nil {
			t.Fatal(err)
		}
		if t.Context().Err() != nil {
			t.Fatalf("does not end: %+v", l)
		}
	}
	var out bytes.Buffer
	if err := c.LotResults(t.Context(), l.Voucher, "jsonl", &out); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", l)
	i := 0
	for s := bufio.NewScanner(&out); s.Scan(); i++ {
		var got batch.ResultJSON
		if err := json.Unmarshal(s.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		want := n.World().Expected(data.Consultation{
			Requester: "fps-economy", Purpose: "social-energy-tariff", Dataset: "increased-reimbursement/v1", Scheme: "ssin",
			Number: people[i].SSIN.Number(), Period: period,
		}, names.DateOf(time.Now().UTC()))
		reason := ""
		if want.Reason != 0 {
			reason = want.Reason.String()
		}
		if got.Status != want.Status.String() || got.Reason != reason {
			t.Fatalf("line %d: %s, want %s %s", i+1, s.Bytes(), want.Status, reason)
		}
		yes := false
		for _, s := range want.Suppliers {
			for _, r := range s.Records {
				yes = yes || strings.Contains(string(r), "true")
			}
		}
		if yes != (got.Answer == "yes") {
			t.Fatalf("line %d: %s, want yes %v", i+1, s.Bytes(), yes)
		}
	}
	if i != len(people) {
		t.Fatalf("%d results of %d", i, len(people))
	}
	story, err := c.Trace(t.Context(), l.Voucher)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := story.Write(&text); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text.String())
	if story.Verdict != trace.Consistent || story.Lot == nil || story.Lot.Asked != len(people) || !strings.Contains(text.String(), "decided again") {
		t.Errorf("the trace is %s: %s", story.Verdict, story.Summary)
	}
	for _, p := range people {
		if strings.Contains(text.String(), p.SSIN.Number()) {
			t.Fatal("the trace of a lot names a subject")
		}
	}
	// Outside, the sector answered; within, its segments agree on who did.
	if strings.Contains(text.String(), "fund-") {
		t.Error("the trace outside names a fund")
	}
	within, err := n.Client("nic").SectorTrace(t.Context(), l.Voucher)
	if err != nil || !within.Consistent || !strings.Contains(within.Text, "fund-") {
		t.Fatalf("trace within: %+v, %v", within, err)
	}
	// A supplier sees its own part alone.
	theirs, err := n.Client("nic").Trace(t.Context(), l.Voucher)
	if err != nil {
		t.Fatal(err)
	}
	if theirs.Lot == nil || theirs.Lot.Asked != 0 || len(theirs.Lot.Suppliers) != 1 || theirs.Verdict != trace.Consistent {
		t.Errorf("the supplier's trace: %s %+v %+v", theirs.Verdict, theirs.Lot, theirs.Findings)
	}
	t.Run("dropped", func(t *testing.T) { lotDropped(t, drop, 150) })
}

// lotsRefused: what is too long, empty, or of another application.
func lotsRefused(t *testing.T, n *Network) {
	c := n.Client("fps-economy")
	q := api.LotRequest{Purpose: "social-energy-tariff", Dataset: "increased-reimbursement/v1", Period: names.Period{From: data.Today - 364, Until: data.Today}}
	for name, file := range map[string]string{"too long": "number\n" + strings.Repeat("74071238186\n", 701), "empty": "number\n", "no such column": "name\nx\n"} {
		var p *api.Problem
		if l, err := c.SubmitLot(t.Context(), q, strings.NewReader(file)); !errors.As(err, &p) || p.Status < 400 || p.Status >= 500 {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	if _, err := c.Lot(t.Context(), "00000000000000000000000000"); err == nil {
		t.Error("a lot that there is not")
	}
}

// lotPaused: where lots do not run now, one waits; it can be paused, resumed and cancelled,
// and then every line says so and nobody was asked.
func lotPaused(t *testing.T, n *Network) {
	c := n.Client("pcsa-ghent")
	c.AuthLevel = "3"
	ctx := t.Context()
	l, err := c.SubmitLot(ctx, api.LotRequest{Purpose: "social-inquiry", Dataset: "increased-reimbursement/v1",
		Period: names.Period{From: data.Today - 364, Until: data.Today}}, strings.NewReader("number\n74071238186\n03022814690\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		do    func(context.Context, names.Ticket) (api.Lot, error)
		state string
	}{{c.Lot, "running"}, {c.PauseLot, "paused"}, {c.PauseLot, "paused"}, {c.ResumeLot, "running"}, {c.PauseLot, "paused"}, {c.CancelLot, "cancelled"}} {
		if l, err = step.do(ctx, l.Voucher); err != nil || l.State != step.state || l.State == "running" && l.Waits == "" {
			t.Fatalf("%+v, %v, want %s", l, err, step.state)
		}
	}
	for l.Ended == nil && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		if l, err = c.Lot(ctx, l.Voucher); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := c.LotResults(ctx, l.Voucher, "jsonl", &out); err != nil || strings.Count(out.String(), "LOT_CANCELLED") != 2 {
		t.Errorf("%s, %v", out.String(), err)
	}
	if _, err := c.ResumeLot(ctx, l.Voucher); err == nil {
		t.Error("a cancelled lot is resumed")
	}
	if err := c.AcknowledgeLot(ctx, l.Voucher); err != nil {
		t.Error(err)
	}
	if err := c.LotResults(ctx, l.Voucher, "jsonl", &out); err == nil {
		t.Error("results after they were acknowledged")
	}
}

// lotDropped waits for the result of a file that was dropped.
func lotDropped(t *testing.T, dir string, lines int) {
	for t.Context().Err() == nil {
		found, err := filepath.Glob(filepath.Join(dir, "results", "*.csv"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 1 {
			text, err := os.ReadFile(found[0])
			if err != nil || bytes.Count(text, []byte("\n")) != lines+1 || !bytes.Contains(text, []byte("DATA_FOUND")) {
				t.Errorf("%d lines of results of %d: %v", bytes.Count(text, []byte("\n"))-1, lines, err)
			}
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	taken, err := filepath.Glob(filepath.Join(dir, "taken", "*-customers.csv"))
	if left, _ := filepath.Glob(filepath.Join(dir, "*.csv")); err != nil || len(taken) != 1 || len(left) != 0 {
		t.Errorf("taken %v, left %v, %v", taken, left, err)
	}
}
