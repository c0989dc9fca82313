package belgium

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/crossroads-mesh/crossroads/testnet"
)

// ErrNothingHeld is wrapped by the error of Open for a folder that Run has not filled.
var ErrNothingHeld = errors.New("no country is held here")

// Open brings up the network that an earlier Run keeps in o.Dir, with the references that
// its members hold. The caller closes it.
func Open(ctx context.Context, o Options) (*testnet.Network, error) {
	dir := filepath.Join(o.Dir, networkDir)
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("%w: %s; `crossroads bench registry --dir` fills a folder", ErrNothingHeld, o.Dir)
	}
	return testnet.Start(ctx, o.network(dir))
}

// Empty brings up a network like that of Run, in a temporary folder, with no references
// but those of its own persons. The caller closes it.
func Empty(ctx context.Context, o Options) (*testnet.Network, error) {
	return testnet.Start(ctx, o.network(""))
}

// Fill loads about so many references into a network that Empty made, of the national
// bodies alone, each signed by its own, and returns when all members hold them.
func Fill(ctx context.Context, n *testnet.Network, references int, out io.Writer) (held uint64, err error) {
	dir, err := os.MkdirTemp("", "crossroads-belgium-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &run{Options: Options{Dir: dir, AtOnce: 24, Within: time.Hour, Out: out}, country: National(references), net: n}
	r.report = newReport(r.Options, r.country)
	r.roles()
	for _, phase := range []func(context.Context) error{r.admit, r.load, r.settle} {
		if err := phase(ctx); err != nil {
			return r.report.References, err
		}
	}
	if r.report.Load.Incomplete {
		return r.report.References, errors.New("the references were not loaded in time")
	}
	return r.report.References, nil
}
