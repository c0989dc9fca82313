package testnet

import (
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/receipt"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// checkReceipt wants the receipt of a ticket to hold with the genesis file alone, and to
// be anchored before long.
func checkReceipt(t testing.TB, n *Network, at names.InstitutionID, ticket names.Ticket) {
	t.Helper()
	var page strings.Builder
	for ctx := within(t); ctx.Err() == nil; waitUntil(ctx, pollEvery) {
		r, err := n.Client(at).Receipt(ctx, ticket)
		if err != nil {
			t.Errorf("receipt %s: %v", ticket, err)
			return
		}
		b, err := r.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if r, err = receipt.Parse(b); err != nil {
			t.Fatal(err)
		}
		rep := receipt.Verify(r, n.layout.genesis)
		page.Reset()
		if err := rep.Write(&page); err != nil {
			t.Fatal(err)
		}
		if !rep.Holds || rep.Story.Verdict == trace.Contradicted {
			t.Errorf("receipt at %s:\n%s", at, &page)
			return
		}
		if j := rep.Story.Journals[0]; j.Anchored == j.Entries {
			t.Log(&page)
			return
		}
	}
	t.Errorf("a receipt of %s is never anchored:\n%s", at, &page)
}
