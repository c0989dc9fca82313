package node

import (
	"crypto/tls"
	"fmt"
	"reflect"
	"slices"

	"github.com/crossroads-mesh/crossroads/node/config"
)

// Reload takes up what a running node can of a configuration that was read again: the
// applications and their rights, the API's certificate (also when only its files changed)
// and, through Deps.Level, the log level. It names what it took up, and what takes a
// restart. On an error nothing was changed.
func (n *Node) Reload(cfg *config.Config) (changed, restart []string, err error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	changed, restart = config.Differ(n.loaded, cfg)
	if !reflect.DeepEqual(consumers(n.cfg.API.Applications), consumers(cfg.API.Applications)) {
		restart = append(restart, "inbox of api.applications") // what waits for whom is read at start
	}
	var pair *tls.Certificate
	switch on, was := cfg.API.TLSCert != "", n.cfg.API.TLSCert != ""; {
	case on != was: // whether there is TLS at all is for the listener
		changed = slices.DeleteFunc(changed, func(name string) bool {
			tls := name == "api.tls_cert" || name == "api.tls_key"
			if tls {
				restart = append(restart, name)
			}
			return tls
		})
	case on:
		if pair, err = loadPair(cfg); err != nil {
			return nil, nil, fmt.Errorf("api.tls_cert: %w", err)
		}
	}
	if err := n.api.SetApplications(cfg.API.Applications); err != nil {
		return nil, nil, err
	}
	if pair != nil {
		if old := n.certificate.Swap(pair); old == nil || !slices.EqualFunc(old.Certificate, pair.Certificate, slices.Equal[[]byte]) {
			changed = append(changed, "the API's certificate")
		}
	}
	if n.deps.Level != nil {
		if err := n.deps.Level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
			return nil, nil, err
		}
	}
	next := *n.loaded // what takes a restart is told again next time
	next.API.Applications, next.Log.Level = cfg.API.Applications, cfg.Log.Level
	if pair != nil {
		next.API.TLSCert, next.API.TLSKey = cfg.API.TLSCert, cfg.API.TLSKey
	}
	n.loaded = &next
	return changed, restart, nil
}

func loadPair(cfg *config.Config) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cfg.API.TLSCert, cfg.API.TLSKey)
	return &pair, err
}
