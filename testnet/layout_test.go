package testnet

import (
	"errors"
	"testing"
)

// TestLayoutIsKept: a folder gives the network that it was made for, with whoever was made
// a member since, and no other.
func TestLayoutIsKept(t *testing.T) {
	o, err := Options{Nodes: 4, Members: 3, Persons: 100, Dir: t.TempDir()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	made, err := openLayout(o)
	if err != nil {
		t.Fatal(err)
	}
	made.sites[3].member = true
	if err := made.writeNetwork(o, true); err != nil {
		t.Fatal(err)
	}
	kept, err := openLayout(o)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range kept.sites {
		if !s.member || s.token != made.sites[i].token || s.ports != made.sites[i].ports {
			t.Errorf("%s came back otherwise: %+v", s.ID, s)
		}
	}
	o.Careers = true
	if _, err := openLayout(o); !errors.Is(err, ErrOptions) {
		t.Errorf("with other records: %v", err)
	}
}
