package belgium

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// sent is how far each institution got, in a file. It may be behind what the registry
// holds: the same command sent again is known by its bytes, and changes nothing.
type sent struct {
	path string

	mu sync.Mutex
	to map[names.InstitutionID]place
}

// place is after Next commands, of which the last has the hash Previous.
type place struct {
	Next     int    `json:"next"`
	Previous []byte `json:"previous"`
}

func readSent(path string) (*sent, error) {
	s := &sent{path: path, to: make(map[names.InstitutionID]place)}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &s.to); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func (s *sent) of(id names.InstitutionID) (next int, previous []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to[id].Next, s.to[id].Previous
}

func (s *sent) note(id names.InstitutionID, next int, previous []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to[id] = place{next, previous}
}

func (s *sent) save() error {
	s.mu.Lock()
	b, err := json.Marshal(s.to)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(s.path+".new", s.path)
}
