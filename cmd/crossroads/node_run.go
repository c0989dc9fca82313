package main

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/adapters"
	"github.com/crossroads-mesh/crossroads/node"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/profile"
)

func newNodeRun() *cobra.Command {
	var file, profiles string
	c := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run a node until it is told to stop",
		Long: `Runs one node of one institution, in the foreground, until SIGINT or SIGTERM: then it
takes no more requests, lets exchanges under way end (limits.drain), and stops. A
second signal ends it at once. It logs to standard error.

Whether it can do its work is told by GET /readyz, and by crossroads node health.`,
		Example: "  crossroads node run --config /etc/crossroads/node.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			if profiles == "" {
				return runNode(c.Context(), cfg, c.ErrOrStderr())
			}
			g, ctx := errgroup.WithContext(c.Context())
			ctx, cancel := context.WithCancel(ctx)
			g.Go(func() error { defer cancel(); return runNode(ctx, cfg, c.ErrOrStderr()) })
			g.Go(func() error { return profile.Watch(ctx, profiles) })
			return g.Wait()
		},
	}
	addConfig(c, &file)
	c.Flags().StringVar(&profiles, "profile", "", "on SIGUSR1 begin profiles (CPU, allocations, waits), on the next end them; PATH their names begin with")
	return c
}

func runNode(ctx context.Context, cfg *config.Config, logTo io.Writer) (err error) {
	log := newLog(cfg.Log, logTo)
	sources, closer, err := adapters.OpenAll(cfg.Sources)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	n, err := node.New(cfg, node.Deps{Sources: sources, Log: log, Version: buildVersion()})
	if err != nil {
		return err
	}
	log.Info("node started", "node", cfg.Node.ID().String(), "mesh", cfg.Mesh, "api", n.APIAddr(), "version", buildVersion())
	err = n.Run(ctx)
	log.Info("node stopped", "node", cfg.Node.ID().String())
	return err
}

func newLog(cfg config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // config.Validate has checked it
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
