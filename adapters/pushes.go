package adapters

import (
	"errors"
	"fmt"
	"io"

	"github.com/crossroads-mesh/crossroads/adapters/push"
	"github.com/crossroads-mesh/crossroads/node/config"
	port "github.com/crossroads-mesh/crossroads/node/inbox/push"
)

// OpenPushes opens the systems that a node sends what arrives to, by their names, all or
// none.
func OpenPushes(cfgs []config.Push) (map[string]port.Target, io.Closer, error) {
	targets := make(map[string]port.Target, len(cfgs))
	var opened closers
	for _, cfg := range cfgs {
		t, err := openPush(cfg)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("push %s: %w", cfg.Name, err), opened.Close())
		}
		opened = append(opened, t)
		targets[cfg.Name] = t
	}
	return targets, opened, nil
}

// closing is a target that holds connections.
type closing interface {
	port.Target
	io.Closer
}

func openPush(cfg config.Push) (closing, error) {
	if cfg.Broker() {
		return push.OpenBroker(cfg)
	}
	return push.Open(cfg)
}
