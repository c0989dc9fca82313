// Package profile writes down where a process spends its time: samples of the
// processor, allocations, and who waits for what. It is off until somebody asks.
package profile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"syscall"
)

// Signal tells a process that Watch serves to begin, and the next time to end.
const Signal = syscall.SIGUSR1

// Last is what the name of the last file of a run ends with: when it is there, all are.
const Last = ".mutex.pb.gz"

// How seldom waits are sampled: one in so many nanoseconds blocked, one in so many
// contended locks. Sampling all costs more than it tells.
const (
	blockRate     = 100_000
	mutexFraction = 100
)

// Running is a profile being taken.
type Running struct {
	prefix string
	cpu    *os.File
}

// Start begins a profile whose files are named prefix.cpu.pb.gz and so on. One at a
// time can be taken in a process.
func Start(prefix string) (*Running, error) {
	if err := os.MkdirAll(filepath.Dir(prefix), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(prefix + Last); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := os.Create(prefix + ".cpu.pb.gz")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	runtime.SetBlockProfileRate(blockRate)
	runtime.SetMutexProfileFraction(mutexFraction)
	return &Running{prefix, f}, nil
}

// Stop ends the profile and writes its files.
func (r *Running) Stop() error {
	pprof.StopCPUProfile()
	runtime.SetBlockProfileRate(0)
	runtime.SetMutexProfileFraction(0)
	err := r.cpu.Close()
	for _, name := range []string{"allocs", "block", "mutex"} {
		err = errors.Join(err, r.write(name))
	}
	return err
}

func (r *Running) write(name string) error {
	path := r.prefix + "." + name + ".pb.gz"
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	err = errors.Join(pprof.Lookup(name).WriteTo(f, 0), f.Close())
	if err != nil {
		return fmt.Errorf("profile %s: %w", name, err)
	}
	return os.Rename(path+".new", path)
}

// Watch serves Signal until ctx ends: the first begins a profile, the next ends it.
func Watch(ctx context.Context, prefix string) (err error) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, Signal)
	defer signal.Stop(asked)
	var running *Running
	defer func() {
		if running != nil {
			err = errors.Join(err, running.Stop())
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-asked:
		}
		if running == nil {
			running, err = Start(prefix)
		} else {
			running, err = nil, running.Stop()
		}
		if err != nil {
			return err
		}
	}
}
