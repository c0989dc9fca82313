// Package testnet brings a whole mesh up on one machine: institutions with their
// own systems, each with a node made by the real constructor from a real
// configuration file, a registry filled by signed commands through the nodes' own
// APIs. Nothing in it is a stand-in except that one program plays every operator.
//
// Up is what `crossroads testnet up` runs; Start is for tests, which may then stop,
// kill and start nodes.
package testnet

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
	"github.com/crossroads-mesh/crossroads/node"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
	"github.com/crossroads-mesh/crossroads/testnet/systems"
)

const (
	startTimeout = 3 * time.Minute // of a machine that has much else to do
	pollEvery    = 5 * time.Millisecond
)

// Network is a running test network. Its methods are safe for concurrent use,
// except that one node is not started, stopped or killed by two callers at once.
type Network struct {
	options Options
	layout  *layout
	systems *systems.Systems
	http    *http.Client
	ready   time.Duration

	stop       context.CancelFunc // of what runs beside the nodes
	background *errgroup.Group
	filling    errgroup.Group // of the institutions' databases, beside all else

	mu    sync.Mutex
	nodes map[names.InstitutionID]running
}

// Start brings a network up and returns when every node can do its work, or with
// an error and nothing left running. The caller closes it.
func Start(ctx context.Context, o Options) (_ *Network, err error) {
	begun := time.Now()
	if o, err = o.withDefaults(); err != nil {
		return nil, err
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "crossroads-testnet-"); err != nil {
			return nil, err
		}
		o.temporary = true
	}
	n := &Network{
		options: o, nodes: make(map[names.InstitutionID]running),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512}},
	}
	background, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	n.background, background = errgroup.WithContext(background)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.layout, err = openLayout(o); err != nil {
		return nil, err
	}
	if err := n.startSystems(ctx, background); err != nil {
		return nil, err
	}
	if err := n.startNodes(ctx); err != nil {
		return nil, err
	}
	if err := n.waitLeader(ctx); err != nil {
		return nil, err
	}
	if n.layout.fresh {
		if err := n.enrol(ctx); err != nil {
			return nil, err
		}
		if err := n.enrolSector(ctx); err != nil {
			return nil, err
		}
		if err := n.layout.writeNetwork(o, true); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(n.filling.Wait(), n.WaitReady(ctx)); err != nil {
		return nil, err
	}
	n.ready = time.Since(begun)
	debug.FreeOSMemory() // filling a registry leaves much behind that a running network does not need
	return n, nil
}

// startSystems opens the institutions' own systems and the identities of their
// nodes, and writes the configurations that name them.
func (n *Network) startSystems(ctx, background context.Context) (err error) {
	n.systems, err = systems.New(systems.Config{World: n.World(), Dir: filepath.Join(n.layout.dir, "systems"), Log: n.options.Log})
	if err != nil {
		return err
	}
	n.filling.Go(func() error { return n.systems.Fill(ctx) })
	n.background.Go(func() error { return n.systems.Run(background) })
	for _, s := range n.layout.sites {
		id, err := certs.NodeSPIFFE(MeshName, s.id())
		if err != nil {
			return err
		}
		renewer := authority.NewRenewer(n.layout.authority, id, s.svidDir(), 0, n.options.Log)
		if err := renewer.Renew(); err != nil {
			return err
		}
		n.background.Go(func() error { return renewer.Run(background) })
		if err := n.layout.writeConfig(s, n.systems.Sources(s.ID), n.options.Configure); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) startNodes(ctx context.Context) error {
	g, _ := errgroup.WithContext(ctx)
	for _, s := range n.layout.sites {
		g.Go(func() error { return n.StartNode(s.ID, nil) })
	}
	return g.Wait()
}

// StartNode starts an institution's node, which must not be running. adjust, which
// may be nil, changes what a node in this process is handed.
func (n *Network) StartNode(id names.InstitutionID, adjust func(*node.Deps)) (err error) {
	s := n.site(id)
	var r running
	if n.options.Processes {
		r, err = startProcess(n.options, s)
	} else {
		r, err = startInProcess(s, n.options.Log, adjust)
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[id] = r
	return nil
}

// StopNode ends a node in order.
func (n *Network) StopNode(id names.InstitutionID) error {
	if r := n.take(id); r != nil {
		return r.stop()
	}
	return nil
}

// KillNode ends a node as SIGKILL does; only with Options.Processes is it the real
// thing.
func (n *Network) KillNode(id names.InstitutionID) error {
	if r := n.take(id); r != nil {
		return r.kill()
	}
	return nil
}

func (n *Network) take(id names.InstitutionID) running {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.nodes[id]
	delete(n.nodes, id)
	return r
}

// waitLeader returns when every node answers and the registry has a leader.
func (n *Network) waitLeader(ctx context.Context) error {
	return n.poll(ctx, n.layout.sites, func(s *site) error {
		status, err := n.Client(s.ID).RegistryStatus(ctx)
		if err == nil && s.member && status.Leader == "" {
			err = errors.New("the registry has no leader")
		}
		return err
	})
}

// leader names the institution whose node leads the registry. While none does, it waits
// for an election.
func (n *Network) leader(ctx context.Context) (names.InstitutionID, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		id, err := n.leads(ctx)
		if err == nil {
			return id, nil
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return "", err
		}
	}
}

func (n *Network) leads(ctx context.Context) (names.InstitutionID, error) {
	for _, s := range n.layout.sites {
		if !s.member || n.runningNode(s.ID) == nil {
			continue
		}
		if st, err := n.Client(s.ID).RegistryStatus(ctx); err == nil && st.Leader != "" {
			id, err := names.ParseNodeID(st.Leader)
			return id.Institution, err
		}
	}
	return "", errors.New("no leader is known")
}

// WaitReady returns when every node that was started says that it is ready and
// knows of everything that had been decided before the call.
func (n *Network) WaitReady(ctx context.Context) error {
	started := slices.DeleteFunc(slices.Clone(n.layout.sites), func(s *site) bool { return n.runningNode(s.ID) == nil })
	var newest uint64
	err := n.poll(ctx, started, func(s *site) error {
		ready, err := n.Client(s.ID).Ready(ctx)
		if err == nil && !ready.Ready {
			err = fmt.Errorf("not ready: %+v", ready.Checks)
		}
		if err != nil || !s.member {
			return err
		}
		status, err := n.Client(s.ID).RegistryStatus(ctx)
		newest = max(newest, status.AppliedIndex)
		return err
	})
	if err != nil {
		return err
	}
	return n.poll(ctx, started, func(s *site) error {
		status, err := n.Client(s.ID).RegistryStatus(ctx)
		if err == nil && status.AppliedIndex < newest {
			err = fmt.Errorf("it holds index %d, not yet %d", status.AppliedIndex, newest)
		}
		return err
	})
}

// poll asks each node in turn until it has nothing to complain about.
func (n *Network) poll(ctx context.Context, sites []*site, complain func(*site) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, s := range sites {
		r := n.runningNode(s.ID)
		for {
			err := complain(s)
			if err == nil {
				break
			}
			select {
			case <-time.After(pollEvery):
			case <-r.done():
				return fmt.Errorf("node of %s ended: %w (see %s)", s.ID, r.err(), s.dir)
			case <-ctx.Done():
				return fmt.Errorf("node of %s: %w: %w", s.ID, ctx.Err(), err)
			}
		}
	}
	return nil
}

func (n *Network) runningNode(id names.InstitutionID) running {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[id]
}

// Client gives a client of an institution's node, authenticated as its
// application.
func (n *Network) Client(id names.InstitutionID) *api.Client {
	s := n.site(id)
	c := api.NewClient("http://"+s.ports.API, s.token)
	c.HTTP = n.http
	c.User = names.UserID("testnet@" + string(id))
	return c
}

// World gives the persons and papers of the network.
func (n *Network) World() *data.World { return n.layout.world }

// Dir is where the network lies.
func (n *Network) Dir() string { return n.layout.dir }

// Endpoints says how to reach the nodes.
func (n *Network) Endpoints() *Endpoints {
	e := &Endpoints{Mesh: MeshName, ReadySeconds: n.ready.Seconds(), Dir: n.layout.dir, ProviderKey: n.layout.providerFile(), Persons: n.options.Persons, Seed: n.options.Seed}
	for _, s := range n.layout.sites {
		pid := 0
		if r := n.runningNode(s.ID); r != nil {
			pid = r.pid()
		}
		e.Nodes = append(e.Nodes, Endpoint{
			Institution: s.ID, Name: s.Name, Type: string(s.Type), Role: s.role(), Node: nodeName,
			Mesh: s.ports.Mesh, API: "http://" + s.ports.API, Application: applicationName, Token: s.token, Officer: s.guard, PID: pid,
		})
	}
	return e
}

func (n *Network) site(id names.InstitutionID) *site {
	for _, s := range n.layout.sites {
		if s.ID == id {
			return s
		}
	}
	panic("no institution " + id + " in this test network")
}

// Close ends every node in order and everything beside them, and removes the
// folder unless Options named it.
func (n *Network) Close() error {
	var g errgroup.Group
	n.mu.Lock()
	for id, r := range n.nodes {
		g.Go(r.stop)
		delete(n.nodes, id)
	}
	n.mu.Unlock()
	err := errors.Join(g.Wait(), n.filling.Wait())
	n.stop()
	err = errors.Join(err, n.background.Wait())
	n.http.CloseIdleConnections()
	if n.systems != nil {
		err = errors.Join(err, n.systems.Close())
	}
	if n.layout != nil {
		err = errors.Join(err, n.layout.claims.Close())
		n.layout.claims = nil
	}
	if n.options.temporary {
		err = errors.Join(err, os.RemoveAll(n.options.Dir))
	}
	return err
}

func publicKey(s crypto.Signer) ed25519.PublicKey { return s.Public().(ed25519.PublicKey) }
