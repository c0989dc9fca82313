package scenario

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// A scenario that cannot fail shows nothing: each way in which one must.
func TestRunFails(t *testing.T) {
	n, err := Open(t.Context(), Options{Persons: 500})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	play := func(needs []names.InstitutionID, fn func(context.Context, *Stage) error) Result {
		return Run(t.Context(), n, Scenario{Name: "test", Title: "A test", Needs: needs, Play: fn}, io.Discard)
	}

	if r := play(nil, func(context.Context, *Stage) error { return errors.New("otherwise") }); r.Failed != "otherwise" {
		t.Errorf("its error: failed %q", r.Failed)
	}
	if r := play(nil, func(context.Context, *Stage) error { return nil }); r.Failed != errUntraced.Error() {
		t.Errorf("without a trace: failed %q", r.Failed)
	}
	if r := play([]names.InstitutionID{"muni-ghent"}, func(context.Context, *Stage) error { panic("played") }); len(r.Lacks) != 1 {
		t.Errorf("lacks %v", r.Lacks)
	}
	if r := play(nil, func(ctx context.Context, s *Stage) error {
		_, err := s.Command(ctx, "nsso", 0, "registry", "institutions")
		return err
	}); !strings.Contains(r.Failed, "command line") {
		t.Errorf("without a command line: failed %q", r.Failed)
	}
	if r := play(nil, func(_ context.Context, s *Stage) error {
		_, err := s.Person(func(*data.Person) bool { return false })
		return err
	}); !strings.Contains(r.Failed, "500 invented persons") {
		t.Errorf("nobody fits: failed %q", r.Failed)
	}
	// The network answers by the lives of its own world: held against another's, it
	// must be found to differ.
	e := example(t, n.world)
	if r := play(nil, func(ctx context.Context, s *Stage) error { _, err := s.Consult(ctx, e); return err }); r.Failed != "" || len(r.Traced) != 1 {
		t.Errorf("as the lives say: failed %q, traced %v", r.Failed, r.Traced)
	}
	if r := play(nil, func(ctx context.Context, s *Stage) error {
		s.World = other(t)
		_, err := s.Consult(ctx, e)
		return err
	}); !strings.Contains(r.Failed, "want NO_RESULT") {
		t.Errorf("other lives: failed %q", r.Failed)
	}
}

func example(t *testing.T, w *data.World) data.Consultation {
	t.Helper()
	for _, e := range w.Examples(data.Today) {
		if len(e.Answer.Suppliers) > 0 {
			return e.Consultation
		}
	}
	t.Fatal("no example brings data")
	return data.Consultation{}
}

func other(t *testing.T) *data.World {
	t.Helper()
	w, err := data.New(data.Config{Seed: 99, Persons: 500, Institutions: 7})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Every scenario can be named, listed and stood up.
func TestAll(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range All() {
		if seen[s.Name] || s.Name == "all" || names.Purpose(s.Name).Validate() != nil {
			t.Errorf("%q: no name, or twice", s.Name)
		}
		seen[s.Name] = true
		if s.Title == "" || s.Play == nil || len(s.Needs) == 0 {
			t.Errorf("%s says too little of itself", s.Name)
		}
	}
	if _, err := data.New(data.Config{Seed: 1, Persons: 1, Institutions: data.MinInstitutions}, Needs(All())...); err != nil {
		t.Errorf("what they need: %v", err)
	}
}
