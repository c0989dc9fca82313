package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/testnet/scenario"
)

// Every scenario comes out as the lives say, by the command that users play it with.
func TestRunAll(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole network")
	}
	var out, told bytes.Buffer
	if code := run(t.Context(), []string{"testnet", "run", "all", "-o", "json"}, strings.NewReader(""), &out, &told); code != exitOK {
		t.Fatalf("exit code %d: %s\n%s", code, told.String(), out.String())
	}
	var results []scenario.Result
	if err := json.Unmarshal(out.Bytes(), &results); err != nil {
		t.Fatal(err)
	}
	if len(results) != len(scenario.All()) {
		t.Errorf("%d results of %d scenarios", len(results), len(scenario.All()))
	}
	for _, r := range results {
		if r.Failed != "" || len(r.Lacks) > 0 || len(r.Traced) == 0 || len(r.Steps) == 0 {
			t.Errorf("%s: failed %q, lacks %v, traced %v", r.Scenario, r.Failed, r.Lacks, r.Traced)
		}
	}
}

func TestRunKnowsItsScenarios(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"testnet", "run", "nonsense"}, strings.NewReader(""), &out, &out); code != exitUsage || !strings.Contains(out.String(), `no scenario "nonsense"`) {
		t.Errorf("exit code %d: %s", code, out.String())
	}
	out.Reset()
	if code := run(t.Context(), []string{"testnet", "run"}, strings.NewReader(""), &out, &out); code != exitOK || !strings.Contains(out.String(), "increased-reimbursement") {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}
