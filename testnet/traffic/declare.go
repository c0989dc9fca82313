package traffic

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// Employer is the institution that declares, and must be in a network that declares.
const Employer names.InstitutionID = "acme-works"

const (
	office      names.InstitutionID = "nsso" // decides on what is declared, and tells others
	staff       names.Quality       = "staff"
	declaredSet names.DatasetID     = "employment-relation/v1"
	rowsAtOnce                      = 1_000 // as many as the API takes
)

// declaredAbout is the time of an employment relation that is declared.
var declaredAbout = names.Period{From: data.Today + 3, Until: names.Forever}

// hire lets the employer have a file on so many who work, and gives them when every node
// knows.
func hire(ctx context.Context, n *testnet.Network, count int) (workers []*data.Person, err error) {
	for p := range n.World().Persons() {
		if len(workers) == count {
			break
		}
		if lives(p) && works(p) {
			workers = append(workers, p)
		}
	}
	if len(workers) == 0 {
		return nil, fmt.Errorf("nobody works among %d persons", n.World().Config().Persons)
	}
	var last uint64
	for first := 0; first < len(workers); first += rowsAtOnce {
		var refs []api.Reference
		for _, p := range workers[first:min(first+rowsAtOnce, len(workers))] {
			refs = append(refs, api.Reference{Subject: subjectOf(p), Quality: staff, Period: declaredAbout})
		}
		done, err := n.Client(Employer).DeclareReferences(ctx, refs)
		if err != nil {
			return nil, err
		}
		if !done.Accepted {
			return nil, fmt.Errorf("the employer's files: %s", done.Refusal)
		}
		last = done.Index
	}
	return workers, n.Endpoints().WaitApplied(ctx, last)
}

// declare declares so many employment relations, and gives how many others are to be told.
func declare(ctx context.Context, n *testnet.Network, workers []*data.Person, count, atOnce int, on names.Date) (told int64, tickets []Ticket, err error) {
	var next, toTell atomic.Int64
	some, run := newSample(Declarations), rand.Text()
	g, ctx := errgroup.WithContext(ctx)
	for range atOnce {
		g.Go(func() error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= count {
					return nil
				}
				p := workers[i%len(workers)]
				start := (data.Today + 3 + names.Date(i/len(workers))).String()
				req := api.DeclarationRequest{
					ClientTicket: names.ClientTicket(fmt.Sprintf("%.8s-%d", run, i)), Subject: subjectOf(p), Dataset: declaredSet, Purpose: "dimona", Period: &declaredAbout,
					Record: json.RawMessage(`{"employer_number":"123456778","enterprise_number":"0412345614","employer_name":"Acme Works","worker_kind":"blue-collar","start_date":"` +
						start + `","end_date":null}`),
				}
				err := insist(ctx, func() error {
					done, err := n.Client(Employer).Declare(ctx, req)
					if err == nil && done.State == "REFUSED" {
						return fmt.Errorf("declaration %s: %s %s", done.Ticket, done.State, done.Reason)
					}
					if err == nil {
						some.add(Employer, done.Ticket)
					}
					return err
				})
				if err != nil {
					return err
				}
				fields := []names.FieldName{"employer_number", "enterprise_number", "employer_name", "worker_kind", "start_date", "end_date"}
				toTell.Add(int64(len(n.World().Told(p, office, declaredSet, declaredAbout, fields, on))))
			}
			return ctx.Err()
		})
	}
	err = g.Wait()
	return toTell.Load(), some.all, err
}
