package testnet

import (
	"testing"

	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// TestSeveralSuppliers asks one question that several institutions answer, and again
// with one of them down: the others' data come, and the answer says what is missing.
func TestSeveralSuppliers(t *testing.T) {
	t.Parallel()
	n := start(t, Options{Persons: 10_000})
	ctx := within(t)
	var several *data.Example
	for _, e := range answered(n, "") {
		if len(e.Answer.Suppliers) > 1 {
			several = &e
		}
	}
	if several == nil {
		t.Fatal("no example has several suppliers")
	}
	got, err := n.expect(ctx, several.Consultation, several.Answer)
	if err != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	checkTrace(t, n, several.Requester, got.Ticket)

	down := several.Answer.Suppliers[0].Supplier
	if err := n.StopNode(down); err != nil {
		t.Fatal(err)
	}
	got, err = n.Consult(ctx, several.Consultation, "")
	if err != nil || got.Status != "INCOMPLETE_DATA" || got.Reason != "SUPPLIER_UNAVAILABLE" {
		t.Fatalf("with %s down: %+v, %v", down, got, err)
	}
	for _, s := range got.Suppliers {
		if (s.Supplier == down) != (s.Status == "NO_RESULT") || s.Supplier == down && len(s.Records) > 0 {
			t.Errorf("with %s down: %+v", down, s)
		}
	}
}
