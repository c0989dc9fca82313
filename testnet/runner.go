package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/crossroads-mesh/crossroads/adapters"
	"github.com/crossroads-mesh/crossroads/node"
	"github.com/crossroads-mesh/crossroads/node/config"
)

// running is one node that was started.
type running interface {
	// stop ends the node as SIGTERM does, and returns when it has ended.
	stop() error
	// kill ends it as SIGKILL does: nothing is flushed, nobody is told.
	kill() error
	// done is closed when the node has ended, for whatever reason; err says why.
	done() <-chan struct{}
	err() error
	pid() int // 0: it runs in this process
}

// inProcess runs a node in this process, through the constructor and from the
// configuration file that a process of its own would use.
type inProcess struct {
	cancel context.CancelFunc
	ended  chan struct{}
	failed error
}

func startInProcess(s *site, log *slog.Logger, adjust func(*node.Deps)) (running, error) {
	cfg, err := config.Load(s.configFile())
	if err != nil {
		return nil, err
	}
	sources, closer, err := adapters.OpenAll(cfg.Sources)
	if err != nil {
		return nil, err
	}
	pushes, pushesCloser, err := adapters.OpenPushes(cfg.Inbox.Push)
	if err != nil {
		return nil, errors.Join(err, closer.Close())
	}
	deps := node.Deps{Sources: sources, Pushes: pushes, Log: log, Version: "testnet"}
	if adjust != nil {
		adjust(&deps)
	}
	n, err := node.New(cfg, deps)
	if err != nil {
		return nil, errors.Join(err, pushesCloser.Close(), closer.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &inProcess{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.failed = errors.Join(n.Run(ctx), pushesCloser.Close(), closer.Close())
	}()
	return r, nil
}

func (r *inProcess) stop() error {
	r.cancel()
	<-r.ended
	return r.failed
}

// kill cannot be had within a process; the ordinary end is the nearest.
func (r *inProcess) kill() error           { return r.stop() }
func (r *inProcess) done() <-chan struct{} { return r.ended }
func (r *inProcess) pid() int              { return 0 }

func (r *inProcess) err() error {
	<-r.ended
	return r.failed
}

// process runs a node as production does: `crossroads node run --config FILE`.
type process struct {
	cmd   *exec.Cmd
	log   string // file
	ended chan struct{}
	why   error
}

func startProcess(o Options, s *site) (running, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	args := []string{"node", "run", "--config", s.configFile()}
	if o.Profile != "" {
		args = append(args, "--profile", filepath.Join(o.Profile, string(s.ID)))
	}
	cmd := exec.Command(o.Binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// Nodes end when this process does, however it ends, and Ctrl-C reaches this
	// process alone, which then ends them in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p := &process{cmd: cmd, log: log.Name(), ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux sends Pdeathsig when the *thread* that started the child ends.
		runtime.LockOSThread()
		defer close(p.ended)
		defer log.Close()
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start node of %s: %w", s.ID, err)
			return
		}
		started <- nil
		if err := cmd.Wait(); err != nil {
			p.why = fmt.Errorf("%w; its log ends with:\n%s", err, lastLines(p.log))
		}
	}()
	return p, <-started
}

// stopTimeout is how long a process may take to end in order: what is under way has its
// own, shorter, time.
const stopTimeout = time.Minute

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return p.why
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("process %d did not end in %s and was killed", p.pid(), stopTimeout), p.kill())
	}
}

func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	return nil
}

func (p *process) done() <-chan struct{} { return p.ended }
func (p *process) pid() int              { return p.cmd.Process.Pid }

func (p *process) err() error {
	<-p.ended
	return p.why
}

// logTail is how much of a node's log an error shows: some lines.
const logTail = 2 << 10

// lastLines gives the end of a log, so that an error says why a node ended.
func lastLines(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	from := max(0, end-logTail)
	b := make([]byte, end-from)
	if _, err := f.ReadAt(b, from); err != nil {
		return err.Error()
	}
	if from > 0 { // not half a line
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return string(bytes.TrimSpace(b))
}
