package operate

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/crossroads-mesh/crossroads/node/config"
)

// debug writes an archive for whoever looks for a fault. What goes in is chosen piece by
// piece, rather than taken out of what there is: so there is no number of a subject in it,
// no key, no token or hash of one, no user, no path. The log stays where it is.
func (s *Service) debug(ctx context.Context, w io.Writer) error {
	zip := gzip.NewWriter(w)
	tape := tar.NewWriter(zip)
	now := time.Now()
	for _, part := range []struct {
		name string
		make func() ([]byte, error)
	}{
		{"version.txt", func() ([]byte, error) { return []byte(s.cfg.Version + "\n" + buildInfo()), nil }},
		{"settings.json", func() ([]byte, error) { return asJSON(harmless(s.cfg.Settings), nil) }},
		{"ready.json", func() ([]byte, error) { return asJSON(s.cfg.Ready(), nil) }},
		{"health.json", func() ([]byte, error) { h, err := s.Health(ctx); return asJSON(h, err) }},
		{"autopilot.json", func() ([]byte, error) { a, err := s.Autopilot(); return asJSON(a, err) }},
		{"state-hash.txt", s.stateHash},
		{"metrics.txt", func() ([]byte, error) { return s.cfg.Metrics(ctx) }},
		{"goroutines.txt", goroutines},
	} {
		b, err := part.make()
		if err != nil { // the rest is worth having
			b = []byte("not to be had: " + err.Error() + "\n")
		}
		if err := tape.WriteHeader(&tar.Header{Name: "crossroads-debug/" + part.name, Mode: 0o600, Size: int64(len(b)), ModTime: now}); err != nil {
			return err
		}
		if _, err := tape.Write(b); err != nil {
			return err
		}
	}
	return errors.Join(tape.Close(), zip.Close())
}

// stateHash tells how this replica's tables compare with what the members signed.
func (s *Service) stateHash() ([]byte, error) {
	now, err := s.cfg.Registry.StateNow()
	a := s.cfg.Registry.Agreement()
	return fmt.Appendf(nil, "now %d %x\ncompared at %d: same %v, differ %v, silent %v, diverged %v\n", now.Index, now.Root, a.Mark.Index, a.Same, a.Differ, a.Silent, a.Diverged), err
}

func asJSON(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(v, "", "  ")
}

// goroutines counts the stacks of this process; it holds no values.
func goroutines() ([]byte, error) {
	var b bytes.Buffer
	err := pprof.Lookup("goroutine").WriteTo(&b, 1)
	return b.Bytes(), err
}

// buildInfo names modules and versions; the build's settings hold paths.
func buildInfo() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	text := info.GoVersion + "\n"
	for _, d := range info.Deps {
		text += fmt.Sprintln(d.Path, d.Version)
	}
	return text
}

// settings are those of a node that tell nobody anything worth having.
type settings struct {
	Mesh         string           `json:"mesh"`
	Node         string           `json:"node"`
	Member       bool             `json:"member"`
	Join         bool             `json:"join"`
	Gossip       bool             `json:"gossip"`
	TLS          bool             `json:"api_tls"`
	Applications map[string]int   `json:"applications"` // how many have which right
	Sources      []map[string]any `json:"sources"`
	Log          config.Log       `json:"log"`
	Limits       config.Limits    `json:"limits"`
	Outbox       config.Outbox    `json:"outbox"`
	Journal      config.Journal   `json:"journal"`
}

func harmless(c *config.Config) settings {
	s := settings{
		Mesh: string(c.Mesh), Node: c.Node.ID().String(), Member: c.Member, Join: c.Join, Gossip: c.Gossip.Enabled, TLS: c.API.TLSCert != "",
		Applications: map[string]int{}, Sources: []map[string]any{}, Log: c.Log, Limits: c.Limits, Outbox: c.Outbox, Journal: c.Journal,
	}
	for _, a := range c.API.Applications {
		for right, has := range map[string]bool{"any": true, "admin": a.Admin, "officer": a.Officer, "operator": a.Operator, "users_asserted": a.UsersAsserted} {
			if has {
				s.Applications[right]++
			}
		}
	}
	for _, src := range c.Sources {
		s.Sources = append(s.Sources, map[string]any{"dataset": src.Dataset, "rest": src.REST != nil, "sql": src.SQL != nil})
	}
	return s
}
