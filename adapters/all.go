package adapters

import (
	"errors"
	"io"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// OpenAll opens the sources of a node, all or none.
func OpenAll(cfgs []config.Source) (map[names.DatasetID]exchange.Source, io.Closer, error) {
	sources := make(map[names.DatasetID]exchange.Source, len(cfgs))
	var opened closers
	for _, cfg := range cfgs {
		source, closer, err := Open(cfg)
		if err != nil {
			return nil, nil, errors.Join(err, opened.Close())
		}
		opened = append(opened, closer)
		sources[cfg.Dataset] = source
	}
	return sources, opened, nil
}

type closers []io.Closer

func (cs closers) Close() (err error) {
	for _, c := range cs {
		err = errors.Join(err, c.Close())
	}
	return err
}
