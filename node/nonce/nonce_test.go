package nonce

import (
	"errors"
	"testing"
	"time"
)

var today = time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)

func TestNonces(t *testing.T) {
	n := NewBook()
	for range mostOf {
		if _, _, err := n.Give(today, "a", nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := n.Give(today, "a", nil); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	b, until, err := n.Give(today, "b", []byte("x")) // one application does not shut out another
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Take(until, "b", b); err == nil {
		t.Error("an expired nonce served")
	}
	if _, _, err := n.Give(today.Add(life), "a", nil); err != nil || len(n.open) != 1 || n.apps["b"] != 0 {
		t.Errorf("the expired are not forgotten: %v, %d", err, len(n.open))
	}
}
