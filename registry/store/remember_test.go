package store

import (
	"fmt"
	"sync"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestRememberedIsOfTheView is TestCacheIsOfTheView for what is decoded once for all:
// many read remembered rows while a node's address changes with every index, and none
// may see another than that of the index its view stands at.
func TestRememberedIsOfTheView(t *testing.T) {
	w := recordtest.New(t, "alpha", "beta")
	s := open(t, "", w)
	id := names.NodeID{Institution: "alpha", Node: "n1"}
	look := func(v record.View) error {
		v = v.Remembering()
		index, err := v.AppliedIndex()
		if err != nil || index == 0 {
			return err
		}
		want := fmt.Sprintf("alpha.example:%d", 1000+index)
		n, err := v.Node(id)
		if err != nil {
			return err
		}
		all, err := v.NodesOf("alpha")
		if err != nil || n.GetAddress() != want || len(all) != 1 || all[0].GetAddress() != want {
			return fmt.Errorf("at index %d: %s, %v, %v", index, n.GetAddress(), all, err)
		}
		return nil
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.View(look); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := uint64(1); i <= 100; i++ {
		n := recordtest.Node("alpha", "n1")
		n.Address = fmt.Sprintf("alpha.example:%d", 1000+i)
		c := w.Draft("alpha", &registrypb.Command_SetNode{SetNode: n})
		w.Follow(c)
		if r := apply(t, s, Entry{i, w.Sign(c, "alpha")}); !r[0].Accepted {
			t.Fatal(r[0].Refusal)
		}
	}
	close(stop)
	readers.Wait()

	// Of one state it is one row, shared by those who remember and by nobody else.
	var first, second, own *registrypb.Node
	for _, into := range []**registrypb.Node{&first, &second} {
		if err := s.View(func(v record.View) (err error) { *into, err = v.Remembering().Node(id); return err }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.View(func(v record.View) (err error) { own, err = v.Node(id); return err }); err != nil {
		t.Fatal(err)
	}
	if first != second || own == first {
		t.Errorf("shared: %t, with whoever does not remember: %t", first == second, own == first)
	}
}
