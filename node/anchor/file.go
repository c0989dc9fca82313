package anchor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
)

// fileName of the last anchored checkpoint. Losing it loses nothing: members hold the
// same, and the next round makes it anew.
const fileName = "anchored.json"

type stored struct {
	Time time.Time `json:"time"`
	Note string    `json:"note"`
}

func load(dir, origin string) (*Anchored, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, fileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%s is damaged: remove it, it is made anew: %w", path, err)
	}
	n, err := checkpoint.Parse([]byte(s.Note))
	if err != nil || n.Origin != origin {
		return nil, fmt.Errorf("%s is damaged or of another journal: remove it, it is made anew: %w", path, err)
	}
	return &Anchored{Note: []byte(s.Note), Size: n.Size, Root: n.Root, Epoch: n.Epoch, Time: s.Time}, nil
}

// save replaces the file: after a crash it is the old one or the new one, whole.
func save(dir string, a *Anchored) error {
	b, err := json.Marshal(stored{a.Time, string(a.Note)})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fileName)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
