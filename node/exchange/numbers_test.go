package exchange

import (
	"testing"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// withoutNumbers is the state of a node that follows the public chain and its own
// directory chain: the history of numbers is not in it.
type withoutNumbers struct{ record.Getter }

func (g withoutNumbers) Get(key []byte) ([]byte, error) {
	if len(key) > 0 && key[0] == 'S' {
		return nil, nil
	}
	return g.Getter.Get(key)
}

func (g withoutNumbers) Scan(prefix, start []byte, fn func(k, v []byte) error) error {
	return g.Getter.Scan(prefix, start, func(k, v []byte) error {
		if len(k) > 0 && k[0] == 'S' {
			return nil
		}
		return fn(k, v)
	})
}

// TestFileUnderReplacedNumber asks by the new number of a person on whom the
// suppliers have files under the old one, which only members know to be the same.
func TestFileUnderReplacedNumber(t *testing.T) {
	const renewed = "03022814690"
	w := newWorld(t)
	w.signers["register"] = signer()
	w.admit("register", "population-register", "", "ssin")
	w.submit("register", &registrypb.Command{Chain: registrypb.Chain_DIRECTORY, Body: &registrypb.Command_SetNumbers{
		SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{{
			Kind: registrypb.NumberEvent_REPLACED, Subject: &registrypb.Subject{Scheme: "ssin", Number: person},
			Successor: &registrypb.Subject{Scheme: "ssin", Number: renewed}, Date: 20000,
		}}}}})
	for _, s := range []string{"office", "fund"} {
		w.node(s).follower = true
	}
	q := question()
	q.Number = renewed
	res, err := w.consult(q)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != nodepb.Status_DATA_FOUND || len(res.Suppliers) != 2 {
		t.Fatalf("%s/%s: %+v", res.Status, res.Reason, res.Suppliers)
	}
	for _, s := range []names.InstitutionID{"office", "fund"} {
		if asked := w.node(string(s)).source.last; asked.Subject.Number() != person {
			t.Errorf("the system of %s was not asked by the number under which its file stands", s)
		}
	}
}
