package testnet

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// Options say what test network to bring up. The zero value of each field takes
// the default that is named with it.
type Options struct {
	Nodes int // institutions, one node each, in the order they join; default 7
	// Also are institutions that take part beside those, whatever their place in that order.
	Also    []names.InstitutionID
	Members int // of them registry members: 1, 3, 5 or 7; default 3
	Persons int // invented persons; default 10,000
	// Careers has every institution keep a record of some 1 KB on everybody, which every
	// other may ask for: load for measuring; see data.Config.
	Careers   bool
	Seed      uint64 // same seed: same persons, references and answers; default 1
	Processes bool   // each node in an OS process of its own
	Dir       string // where to keep the network; empty: a temporary folder, removed at the end
	Endpoints string // file to write the endpoints to; empty: none
	Out       io.Writer
	Log       *slog.Logger // of the nodes when they run in this process; default: discarded
	// Binary is the crossroads binary that node processes run; default: this one.
	Binary string
	// Profile is a folder for profiles of node processes, which package node/profile
	// takes on its signal; default: none are taken.
	Profile string

	// Configure changes the configuration of a node before it is written; nil: none is.
	Configure func(names.InstitutionID, *config.Config)

	temporary bool // Dir is ours to remove
}

// ErrOptions is wrapped by the error of a set of options that cannot be.
var ErrOptions = errors.New("impossible test network")

// world is what the institutions and persons are made from.
func (o Options) world() data.Config {
	return data.Config{Seed: o.Seed, Persons: o.Persons, Institutions: o.Nodes, Careers: o.Careers}
}

// institutions counts those that take part.
func (o Options) institutions() int {
	world, err := data.New(o.world(), o.Also...)
	if err != nil {
		return o.Nodes
	}
	return len(world.Institutions())
}

func (o Options) withDefaults() (Options, error) {
	if o.Nodes == 0 {
		o.Nodes = 7
	}
	if o.Members == 0 {
		o.Members = min(3, o.Nodes)
	}
	if o.Persons == 0 {
		o.Persons = 10_000
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return o, err
		}
		o.Binary = self
	}
	switch {
	case len(o.Also) > data.MaxInstitutions:
		return o, fmt.Errorf("%w: %d institutions asked for by name", ErrOptions, len(o.Also))
	case o.Nodes < 3 || o.Nodes > 50:
		return o, fmt.Errorf("%w: %d nodes; an exchange needs three, and one machine carries some 50", ErrOptions, o.Nodes)
	case o.Members != 1 && o.Members != 3 && o.Members != 5 && o.Members != 7:
		return o, fmt.Errorf("%w: %d members; a registry has 1, 3, 5 or 7", ErrOptions, o.Members)
	case o.Members > o.Nodes:
		return o, fmt.Errorf("%w: %d members of %d nodes", ErrOptions, o.Members, o.Nodes)
	case o.Persons < 100 || o.Persons > 2_000_000:
		return o, fmt.Errorf("%w: %d persons; want 100 to 2,000,000", ErrOptions, o.Persons)
	}
	return o, nil
}
