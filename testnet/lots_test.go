package testnet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// A lot over a whole network brings what the lives say, line by line, and its trace is
// consistent.
func TestLotOverNetwork(t *testing.T) {
	n := start(t, Options{Persons: 600, Also: data.FundIDs()})
	c := n.Client("fps-economy")
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
}
