package registry_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// TestReadingThroughIsTold has members that begin to read what they keep an hour after
// their start, but for one whose tables are made anew: nobody relies on it until they are
// found to be right.
func TestReadingThroughIsTold(t *testing.T) {
	m := newMesh(t)
	later := quick
	later.VerifyAfter, later.VerifyRest = time.Hour, 4
	verifying := func(n names.NodeID) bool {
		st, err := m.at(n).Status()
		if err != nil {
			t.Fatal(err)
		}
		if !st.GetVerifying() && st.GetVerified() > 0 {
			t.Errorf("%d rows are read while none are", st.GetVerified())
		}
		return st.GetVerifying()
	}
	for _, n := range m.members {
		eventually(t, "all is read at once", func() bool { return !verifying(n) })
	}
	waits, anew := m.members[0], m.members[1]
	for _, n := range []names.NodeID{waits, anew} {
		m.tuning[n] = later
		if err := m.stop(n); err != nil {
			t.Fatal(err)
		}
	}
	mark := filepath.Join(m.config(anew).Dir, "member", "DIVERGED")
	if err := os.WriteFile(mark, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start(waits)
	m.start(anew)
	eventually(t, "tables that were made anew are read at once", func() bool { return !verifying(anew) })
	if !verifying(waits) {
		t.Error("a member that has not read what it keeps says that it is through")
	}
}
