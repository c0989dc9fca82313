package scenario

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// DefaultPersons is how many invented persons a network of Open has: enough that
// every scenario finds the lives that it needs.
const DefaultPersons = 4000

// Options say on which network to play.
type Options struct {
	// Endpoints is the file of a running network. Empty: one is started, with the
	// institutions that Scenarios need, and ended by Close.
	Endpoints string
	Scenarios []Scenario
	Persons   int    // of a network that is started; 0: DefaultPersons
	Seed      uint64 // likewise; 0: 1
	// Command runs the command line with arguments and gives its output and exit code,
	// for what users do there.
	Command func(ctx context.Context, args ...string) (out string, code int)
}

// Network is a running test network, and what is known of it.
type Network struct {
	endpoints *testnet.Endpoints
	path      string // of the endpoints
	world     *data.World
	command   func(ctx context.Context, args ...string) (string, int)
	own       *testnet.Network // nil: somebody else's
}

// Open finds the network that the options tell of, or starts one. The caller closes it.
func Open(ctx context.Context, o Options) (_ *Network, err error) {
	n := &Network{path: o.Endpoints, command: o.Command}
	if o.Endpoints == "" {
		if o.Persons == 0 {
			o.Persons = DefaultPersons
		}
		if n.own, err = testnet.Start(ctx, testnet.Options{Persons: o.Persons, Seed: o.Seed, Also: Needs(o.Scenarios)}); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				_ = n.own.Close()
			}
		}()
		n.endpoints = n.own.Endpoints()
		n.path = filepath.Join(n.own.Dir(), "endpoints.json")
		if err := n.endpoints.WriteFile(n.path); err != nil {
			return nil, err
		}
	} else if n.endpoints, err = testnet.ReadEndpoints(o.Endpoints); err != nil {
		return nil, err
	}
	n.world, err = n.endpoints.World()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.path, err)
	}
	return n, nil
}

// Lacks gives the institutions that a scenario needs and the network does not have.
func (n *Network) Lacks(s Scenario) (missing []names.InstitutionID) {
	for _, id := range s.Needs {
		if _, ok := n.endpoints.Of(id); !ok {
			missing = append(missing, id)
		}
	}
	return missing
}

// Close ends the network if Open started it.
func (n *Network) Close() error {
	if n.own == nil {
		return nil
	}
	return n.own.Close()
}
