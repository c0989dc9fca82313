package belgium

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// state is how far a run got, in a file: one that was interrupted measures what is left.
type state struct {
	path string

	Scale  int      `json:"scale"`
	Done   []string `json:"done"` // phases
	Report *Report  `json:"report"`
}

func readState(path string, o Options, c *Country) (*state, error) {
	s := &state{path: path, Scale: o.Scale, Report: newReport(o, c)}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.Scale != o.Scale {
		return nil, fmt.Errorf("%s is of a run with --scale %d", path, s.Scale)
	}
	return s, nil
}

func (s *state) save() error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(s.path+".new", s.path)
}
