package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Up brings a network up, tells how to use it, shows one consultation and its
// trace, and keeps it running until ctx ends.
func Up(ctx context.Context, o Options) (err error) {
	o, err = o.withDefaults()
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "Bringing up %d institutions, %d of them registry members, and %d invented persons (seed %d) ...\n\n",
		o.Nodes, o.Members, o.Persons, o.Seed)
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
	select {
	case <-ctx.Done():
		fmt.Fprintln(o.Out, "\nending ...")
		return nil
	case err := <-n.failure(ctx):
		return err
	}
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

// failure gives the error of the first node that ends by itself.
func (n *Network) failure(ctx context.Context) <-chan error {
	failed := make(chan error, len(n.layout.sites))
	for _, s := range n.layout.sites {
		r := n.runningNode(s.ID)
		go func() {
			select {
			case <-r.done():
				failed <- fmt.Errorf("node of %s ended by itself: %w (see %s)", s.ID, r.err(), s.dir)
			case <-ctx.Done():
			}
		}()
	}
	return failed
}
