package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

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

On SIGHUP it reads its configuration again and takes up the log level, the applications
and the API's certificate; its log says what changed, and what takes a restart.

Whether it can do its work is told by GET /readyz, and by crossroads node health.`,
		Example: "  crossroads node run --config /etc/crossroads/node.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			if profiles == "" {
				return runNode(c.Context(), file, cfg, c.ErrOrStderr())
			}
			g, ctx := errgroup.WithContext(c.Context())
			ctx, cancel := context.WithCancel(ctx)
			g.Go(func() error { defer cancel(); return runNode(ctx, file, cfg, c.ErrOrStderr()) })
			g.Go(func() error { return profile.Watch(ctx, profiles) })
			return g.Wait()
		},
	}
	addConfig(c, &file)
	c.Flags().StringVar(&profiles, "profile", "", "on SIGUSR1 begin profiles (CPU, allocations, waits), on the next end them; PATH their names begin with")
	return c
}

func runNode(ctx context.Context, file string, cfg *config.Config, logTo io.Writer) (err error) {
	level := new(slog.LevelVar)
	log := newLog(cfg.Log, logTo, level)
	sources, closer, err := adapters.OpenAll(cfg.Sources)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	pushes, pushesCloser, err := adapters.OpenPushes(cfg.Inbox.Push)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pushesCloser.Close()) }()
	n, err := node.New(cfg, node.Deps{Sources: sources, Pushes: pushes, Log: log, Level: level, Version: buildVersion()})
	if err != nil {
		return err
	}
	log.Info("node started", "node", cfg.Node.ID().String(), "mesh", cfg.Mesh, "api", n.APIAddr(), "version", buildVersion())
	stop := onHangup(func() { reload(n, file, log) })
	err = n.Run(ctx)
	stop()
	log.Info("node stopped", "node", cfg.Node.ID().String())
	return err
}

// onHangup calls fn on every SIGHUP until stop is called, which waits for it.
func onHangup(fn func()) (stop func()) {
	hangups, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hangups {
			fn()
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}

// reload reads the configuration again, and says what came of it.
func reload(n *node.Node, file string, log *slog.Logger) {
	cfg, err := config.Load(file)
	if err == nil {
		var changed, restart []string
		if changed, restart, err = n.Reload(cfg); err == nil {
			log.Warn("configuration read again", "changed", changed, "needs_restart", restart)
			return
		}
	}
	log.Error("configuration not taken up: nothing changed", "err", err)
}

func newLog(cfg config.Log, w io.Writer, level *slog.LevelVar) *slog.Logger {
	_ = level.UnmarshalText([]byte(cfg.Level)) // config.Validate has checked it
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
