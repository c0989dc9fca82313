package belgium

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What was measured before an interruption is kept, and only for the same part of the
// country.
func TestStateGoesOn(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "measured.json"), New(1_000)
	s, err := readState(path, Options{Scale: 10}, c)
	if err != nil {
		t.Fatal(err)
	}
	s.Done, s.Report.Load.References = append(s.Done, "load"), 7
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	again, err := readState(path, Options{Scale: 10}, c)
	if err != nil || !slices.Equal(again.Done, s.Done) || again.Report.Load.References != 7 {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := readState(path, Options{Scale: 1}, c); err == nil {
		t.Error("a run of another part of the country goes on")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readState(path, Options{Scale: 10}, c); err == nil {
		t.Error("a damaged file is taken for a new run")
	}
}

// What cannot be measured again is refused before anything is started.
func TestAgain(t *testing.T) {
	dir := t.TempDir()
	if _, err := Run(t.Context(), Options{Dir: dir, Again: []string{"commits", "load"}}); !errors.Is(err, ErrAgain) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
