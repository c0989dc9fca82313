package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// Endpoints says how to reach a running test network. It is what --endpoints
// writes and what the command line reads with --endpoints.
type Endpoints struct {
	Mesh         names.MeshID `json:"mesh"`
	ReadySeconds float64      `json:"ready_seconds"`
	Dir          string       `json:"dir"`
	Persons      int          `json:"persons"`
	Seed         uint64       `json:"seed"`
	// ProviderKey is the file of the test identity provider's key.
	ProviderKey string     `json:"provider_key"`
	Nodes       []Endpoint `json:"nodes"`
}

// Endpoint is one node of a test network, and how an application of its
// institution authenticates.
type Endpoint struct {
	Institution names.InstitutionID `json:"institution"`
	Name        string              `json:"name"`
	Type        string              `json:"type"`
	Role        string              `json:"role"` // member or node
	Node        names.NodeName      `json:"node"`
	Mesh        string              `json:"mesh_address"`
	API         string              `json:"api"`
	Application string              `json:"application"`
	Token       string              `json:"token"`
	Officer     string              `json:"officer_token"` // of the security officer's application
	PID         int                 `json:"pid,omitempty"` // with --processes
}

// Of gives the endpoint of an institution.
func (e *Endpoints) Of(id names.InstitutionID) (Endpoint, bool) {
	for _, n := range e.Nodes {
		if n.Institution == id {
			return n, true
		}
	}
	return Endpoint{}, false
}

// WaitApplied waits until every node knows of what the registry decided at an index: a
// clearing peer may rely on a view that is a lease old.
func (e *Endpoints) WaitApplied(ctx context.Context, index uint64) error {
	for _, n := range e.Nodes {
		client := api.NewClient(n.API, n.Token)
		for {
			st, err := client.RegistryStatus(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", n.Institution, err)
			}
			if st.AppliedIndex >= index {
				break
			}
			select {
			case <-time.After(pollEvery):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// World makes the invented country of the network again.
func (e *Endpoints) World() (*data.World, error) {
	all := make([]names.InstitutionID, len(e.Nodes))
	for i, n := range e.Nodes {
		all[i] = n.Institution
	}
	return data.New(data.Config{Seed: e.Seed, Persons: e.Persons, Institutions: data.MinInstitutions}, all...)
}

// mayWrite refuses to put endpoints in the place of a file that is none of ours.
func mayWrite(path string) error {
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && json.Unmarshal(b, &Endpoints{}) != nil {
		err = fmt.Errorf("%w: %s exists and is no endpoints file; name another", ErrOptions, path)
	}
	return err
}

// ReadEndpoints reads what WriteFile wrote.
func ReadEndpoints(path string) (*Endpoints, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: `testnet up --endpoints` writes it, and removes it when the network ends", err)
	}
	if err != nil {
		return nil, err
	}
	e := new(Endpoints)
	if err := json.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("%s: not an endpoints file: %w", path, err)
	}
	return e, nil
}

// WriteFile writes the endpoints as JSON. The file holds tokens and is readable by
// its owner alone; it appears whole or not at all.
func (e *Endpoints) WriteFile(path string) error {
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	next := path + ".new"
	if err := os.WriteFile(next, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write endpoints: %w", err)
	}
	return os.Rename(next, path)
}

// table prints the nodes for people.
func (e *Endpoints) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "INSTITUTION\tROLE\tAPI\tAUTHENTICATE WITH")
	for _, n := range e.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\tAuthorization: Bearer %s\n", n.Institution, n.Role, n.API, n.Token)
	}
	return t.Flush()
}
