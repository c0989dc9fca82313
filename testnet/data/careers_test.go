package data

import (
	"testing"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// TestCareers: every institution may ask every other about everybody, one supplier each
// time; the records are near 1 KB, and no two alike.
func TestCareers(t *testing.T) {
	w := world(t, Config{Seed: 3, Persons: 60, Institutions: 7, Careers: true})
	matchSchemas(t, w, w.Datasets()[len(catalogue):])
	seen := map[string]bool{}
	for p := range w.Persons() {
		if p.Cancelled != names.Forever || p.Death != names.Forever {
			continue
		}
		for _, supplier := range w.Institutions() {
			for _, requester := range w.Institutions() {
				if requester.ID == supplier.ID {
					continue
				}
				a := w.Expected(Consultation{
					Requester: requester.ID, Purpose: CareerPurpose, Dataset: CareerDataset(supplier.ID), Scheme: subject.SSIN, Number: p.SSIN.Number(), Period: lately,
				}, Today)
				if a.Status != nodepb.Status_DATA_FOUND || len(a.Suppliers) != 1 || a.Suppliers[0].Supplier != supplier.ID || len(a.Suppliers[0].Records) != 1 {
					t.Fatalf("%s asks %s about person %d: %+v", requester.ID, supplier.ID, p.Index, a)
				}
				if len(a.Withheld) > 0 {
					t.Fatalf("withheld: %v", a.Withheld)
				}
				if n := len(a.Suppliers[0].Records[0]); n < 950 || n > 1100 {
					t.Fatalf("%d bytes: %s", n, a.Suppliers[0].Records[0])
				}
				seen[string(a.Suppliers[0].Records[0])] = true
			}
		}
	}
	if len(seen) < 7*45 || len(seen)%7 != 0 {
		t.Errorf("%d different records", len(seen))
	}
	if plain := world(t, Config{Seed: 3, Persons: 60, Institutions: 7}); len(plain.Datasets()) != len(catalogue) || len(plain.Authorizations()) == len(w.Authorizations()) {
		t.Error("another world has careers too")
	}
}
