package config

import (
	"errors"
	"fmt"
	"testing"
)

// TestRetention: a retention that would erase at once, or never, is a problem on its line.
func TestRetention(t *testing.T) {
	for _, months := range []int{-1, 0, 5, 1201} {
		_, err := Load(write(t, replace(t, "retention: 120", fmt.Sprintf("retention: %d", months))))
		var ps Problems
		if !errors.As(err, &ps) || len(ps) != 1 || ps[0].Key != "journal.retention" || ps[0].Line == 0 {
			t.Errorf("%d months: %v", months, err)
		}
	}
	for _, months := range []int{6, 1200} {
		c, err := Load(write(t, replace(t, "retention: 120", fmt.Sprintf("retention: %d", months))))
		if err != nil || c.Journal.Retention != months {
			t.Errorf("%d months: %v", months, err)
		}
	}
}
