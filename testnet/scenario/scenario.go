// Package scenario plays flows of the field on a test network, as users would: through
// the nodes' interface and the command line, never behind their back. A scenario prints
// what happens, step by step, with tickets; ends with a trace in which every journal is
// there and agrees; and fails when anything comes out otherwise than the invented lives
// (package testnet/data) say.
//
//	network, err := scenario.Open(ctx, scenario.Options{Scenarios: scenario.All()})
//	result := scenario.Run(ctx, network, scenario.All()[0], os.Stdout)
//	err = network.Close()
//
// To add one: a file of its own with a function that returns a Scenario, and a line in
// All. Its Play takes a *Stage, says every step with Stage.Step, asks with Stage.Consult
// (which compares and traces) or with a client of Stage.At, and verifies with
// Stage.Trace what it asked otherwise. It may be played again, and beside others, on the
// same network: so it makes its client tickets with Stage.Ticket, and undoes what it
// changed or changes nothing that another would notice.
package scenario

import (
	"cmp"
	"context"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Scenario is one flow that can be played.
type Scenario struct {
	Name  string // as the command line knows it
	Flow  int    // its number in the list of flows worth demonstrating; 0: none of them
	Title string // one line, for people
	// Needs are the institutions that must take part.
	Needs []names.InstitutionID
	// Play returns an error that says what came out otherwise than it must.
	Play func(ctx context.Context, s *Stage) error
}

// All gives every scenario, in the order of the flows.
func All() []Scenario {
	all := []Scenario{
		increasedReimbursement(),
		energyTariff(),
		dataMatching(),
		addressMutation(),
		dimona(),
		dmfa(),
		livingWage(),
		contributionVouchers(),
		socialInquiry(),
		reductionCards(),
		preContractualMandate(),
	}
	slices.SortStableFunc(all, func(a, b Scenario) int { return cmp.Compare(a.Flow, b.Flow) })
	return all
}

// Find gives a scenario by its name.
func Find(name string) (Scenario, bool) {
	for _, s := range All() {
		if s.Name == name {
			return s, true
		}
	}
	return Scenario{}, false
}

// Needs gives the institutions that some scenarios want, each once, in order of id.
func Needs(all []Scenario) (ids []names.InstitutionID) {
	for _, s := range all {
		ids = append(ids, s.Needs...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
