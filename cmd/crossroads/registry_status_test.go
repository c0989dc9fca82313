package main

import "testing"

// What a watcher does not know is not printed as a leader without a name in term 0.
func TestKnown(t *testing.T) {
	for _, c := range []struct{ got, want any }{
		{known(""), "-"}, {known(uint64(0)), "-"}, {known("nsso/a"), "nsso/a"}, {known(uint64(3)), uint64(3)},
	} {
		if c.got != c.want {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}
