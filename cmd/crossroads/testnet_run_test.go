package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
	"github.com/crossroads-mesh/crossroads/testnet/scenario"
)

// One network for everything that takes one: all scenarios, and the scripts of the verbs
// that speak to nodes.
func TestNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: a network of its own")
	}
	n, err := testnet.Start(t.Context(), testnet.Options{Persons: scenario.DefaultPersons, Also: scenario.Needs(scenario.All())})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	endpoints := filepath.Join(n.Dir(), "endpoints.json")
	if err := n.Endpoints().WriteFile(endpoints); err != nil {
		t.Fatal(err)
	}
	t.Run("Scenarios", func(t *testing.T) { runAll(t, endpoints) })
	t.Run("Scripts", func(t *testing.T) { networkScripts(t, n, endpoints) })
}

// runAll: every scenario comes out as the lives say, by the command that users play it with.
func runAll(t *testing.T, endpoints string) {
	var out, told bytes.Buffer
	if code := run(t.Context(), []string{"testnet", "run", "all", "--endpoints", endpoints, "-o", "json"}, strings.NewReader(""), &out, &told); code != exitOK {
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

// networkScripts plays testdata/network with the real binary. $NET is the endpoints' file;
// $PERSON had wages of which pcsa-ghent may know, and is with a fund; acme-works and nsso
// have a file on $WORKER from March 2031 on.
func networkScripts(t *testing.T, n *testnet.Network, endpoints string) {
	w := n.World()
	var found []string
	for p := range w.Persons() {
		c := data.Consultation{Requester: "pcsa-ghent", Purpose: "social-inquiry", Dataset: "wages-quarterly/v1", Scheme: subject.SSIN, Number: p.SSIN.Number(),
			Period: names.Period{From: data.Today - 364, Until: data.Today}}
		if p.Former == nil && p.Death == names.Forever && p.Cancelled == names.Forever && len(w.Affiliations(p)) > 0 &&
			w.Expected(c, names.DateOf(time.Now().UTC())).Status == nodepb.Status_DATA_FOUND {
			found = append(found, p.SSIN.Number())
		}
	}
	if len(found) < 20 {
		t.Fatalf("%d persons are fit for it", len(found))
	}
	person, worker := found[len(found)-1], found[len(found)-2] // no scenario takes the last
	var index uint64
	for id, quality := range map[names.InstitutionID]names.Quality{"acme-works": "staff", "nsso": "employee"} {
		done, err := n.Client(id).DeclareReferences(t.Context(), []api.Reference{{Subject: api.Subject{Scheme: "ssin", Number: worker}, Quality: quality,
			Period: names.Period{From: data.Today + 1880, Until: names.Forever}}})
		if err != nil || !done.Accepted {
			t.Fatalf("%s declares: %+v, %v", id, done, err)
		}
		index = max(index, done.Index)
	}
	for _, e := range n.Endpoints().Nodes { // a clearing peer may rely on a view that is a lease old
		for st := (api.RegistryStatus{}); st.AppliedIndex < index; {
			var err error
			if st, err = n.Client(e.Institution).RegistryStatus(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/network",
		Setup: func(e *testscript.Env) error {
			e.Setenv("NET", endpoints)
			e.Setenv("PERSON", person)
			e.Setenv("WORKER", worker)
			e.Setenv("FROM", (data.Today - 364).String())
			e.Setenv("UNTIL", data.Today.String())
			e.Setenv("LATER", (data.Today + 1881).String())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "keep": keep},
	})
}

// keep sets a variable to what a regular expression finds in the last standard output: keep TICKET 'TICKET +(\S+)'
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep VARIABLE regexp")
	}
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("standard output has no %s", args[1])
	}
	ts.Setenv(args[0], m[1])
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
