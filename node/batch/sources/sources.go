// Package sources asks an institution's own system about many subjects at once.
package sources

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/node/exchange"
)

// Many is a Source that can answer many questions at once, as a database can with one
// query. It may do so for some questions and not for others: see FetchMany.
type Many interface {
	exchange.Source
	// FetchMany gives the records of each query, in their order. All queries are of one
	// dataset, period and list of fields. ok is false, and nothing was done, when this
	// source cannot ask so. Otherwise as Fetch.
	FetchMany(ctx context.Context, queries []exchange.Query) (records [][]exchange.Record, ok bool, err error)
}

// atOnce is how many queries are asked beside each other where each is asked alone.
const atOnce = 8

// Fetch asks a source about many subjects: at once if it can, else one by one, some beside
// each other. The errors are the source's.
func Fetch(ctx context.Context, s exchange.Source, queries []exchange.Query) ([][]exchange.Record, error) {
	if len(queries) == 0 {
		return nil, nil
	}
	if m, can := s.(Many); can {
		if all, ok, err := m.FetchMany(ctx, queries); ok || err != nil {
			return all, err
		}
	}
	all := make([][]exchange.Record, len(queries))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, q := range queries {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			all[i], err = s.Fetch(ctx, q)
			return err
		})
	}
	return all, g.Wait()
}
