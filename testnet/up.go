package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Up brings a network up, tells how to use it, shows one consultation and its
// trace, and keeps it running until ctx ends.
func Up(ctx context.Context, o Options) (err error) {
	o, err = o.withDefaults()
	if err != nil {
		return err
	}
	if err := mayWrite(o.Endpoints); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "Bringing up %d institutions, %d of them registry members, and %d invented persons (seed %d) ...\n\n",
		o.institutions(), o.Members, o.Persons, o.Seed)
	n, err := Start(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil // interrupted while starting
		}
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	endpoints := n.Endpoints()
	if err := endpoints.table(o.Out); err != nil {
		return err
	}
	if o.Endpoints != "" {
		if err := endpoints.WriteFile(o.Endpoints); err != nil {
			return err
		}
		defer os.Remove(o.Endpoints) // it names what is gone then
	}
	fmt.Fprintf(o.Out, "\nready in %.1f s\n\n", endpoints.ReadySeconds)
	if err := n.showExample(ctx, o.Out); err != nil && ctx.Err() == nil {
		return err
	}
	n.showNext(ctx)
	n.keepUp(ctx)
	fmt.Fprintln(o.Out, "\nending ...")
	return nil
}

// showNext says what to try.
func (n *Network) showNext(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	o := n.options
	kept := "removed at the end"
	if !o.temporary {
		kept = "kept"
	}
	fmt.Fprintf(o.Out, "The network lies in %s (%s).", n.layout.dir, kept)
	if o.Endpoints != "" {
		path := o.Endpoints
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		fmt.Fprintf(o.Out, " Its endpoints are in %s:\n\n", path)
		fmt.Fprintf(o.Out, "    crossroads testnet examples --endpoints %s\n", path)
		fmt.Fprintf(o.Out, "    crossroads registry authorizations --endpoints %s --as %s\n", path, n.layout.sites[0].ID)
	} else {
		fmt.Fprintln(o.Out)
	}
	fmt.Fprintln(o.Out, "\nCtrl-C ends it.")
}

// startAgainAfter is how long a node that ended by itself stays down: long enough to
// see what the others do without it.
const startAgainAfter = 10 * time.Second

// keepUp starts nodes that end by themselves again, as an operator's supervisor
// would, until ctx ends.
func (n *Network) keepUp(ctx context.Context) {
	var watching sync.WaitGroup
	for _, s := range n.layout.sites {
		watching.Go(func() {
			for n.keepNodeUp(ctx, s) {
			}
		})
	}
	watching.Wait()
}

func (n *Network) keepNodeUp(ctx context.Context, s *site) (again bool) {
	r := n.runningNode(s.ID)
	if r != nil {
		select {
		case <-ctx.Done():
			return false
		case <-r.done():
		}
		n.take(s.ID)
		fmt.Fprintf(n.options.Out, "the node of %s ended by itself: %v; it is started again in %s\n", s.ID, r.err(), startAgainAfter)
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(startAgainAfter):
	}
	if err := n.StartNode(s.ID, nil); err != nil {
		fmt.Fprintf(n.options.Out, "the node of %s did not start: %v; see %s\n", s.ID, err, s.dir)
		return true
	}
	fmt.Fprintf(n.options.Out, "the node of %s is up again\n", s.ID)
	return true
}
