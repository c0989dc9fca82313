package testnet

import (
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const (
	rowsPerCommand = 2_500 // references in one command: small enough to share the log with others
	lotsInFlight   = 4     // lots of one institution made but not yet sent
)

// apiSubmitter hands commands to the registry through a node's local API, as an
// author's own tools would.
type apiSubmitter struct{ client *api.Client }

var _ registry.Submitter = apiSubmitter{}

// Submit submits again what the node could not have decided in time, as it is told to.
func (s apiSubmitter) Submit(ctx context.Context, env []byte) (*registrypb.SubmitResponse, error) {
	var r api.Submitted
	err := patiently(ctx, func(ctx context.Context) (err error) { r, err = s.client.Submit(ctx, env); return err })
	if err != nil {
		return nil, err
	}
	return &registrypb.SubmitResponse{Index: r.Index, Accepted: r.Accepted, Refusal: r.Refusal, Repeated: r.Repeated}, nil
}

func (s apiSubmitter) Head(ctx context.Context, author string, chain registrypb.Chain, index uint64) (uint64, []byte, error) {
	word := "public"
	if chain == registrypb.Chain_DIRECTORY {
		word = "directory"
	}
	var head api.ChainHead
	err := patiently(ctx, func(ctx context.Context) (err error) {
		head, err = s.client.RegistryHead(ctx, author, word, index)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	hash, err := hex.DecodeString(head.Hash)
	return head.Sequence, hash, err
}

// patiently calls a node until it has an answer, or startTimeout has passed: of a machine
// with much else to do, it may say meanwhile that there is none in time.
func patiently(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := call(ctx)
		if err == nil || !api.IsProblem(err, api.CodeDeadline) && !api.IsProblem(err, api.CodeUnavailable) {
			return err
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return err
		}
	}
}

// Operators gives the author whose commands admit and suspend institutions: as
// many of the operators' keys as the threshold wants, each read from its own file.
func (n *Network) Operators(ctx context.Context) (*registry.Author, error) {
	return n.group(ctx, record.Operators, genesis.Operator, n.layout.genesis.Operators.Threshold)
}

// Committee gives the author whose commands grant and revoke authorizations.
func (n *Network) Committee(ctx context.Context) (*registry.Author, error) {
	return n.group(ctx, record.Committee, genesis.Committee, n.layout.genesis.Committee.Threshold)
}

func (n *Network) group(ctx context.Context, author string, role genesis.Role, m int) (*registry.Author, error) {
	signers, err := genesis.LoadKeys(filepath.Dir(n.layout.genesisFile()), role)
	if err != nil {
		return nil, err
	}
	if len(signers) < m {
		return nil, fmt.Errorf("%d %s keys found, %d must sign", len(signers), role, m)
	}
	// Any node would do; the leader's knows of a command first, and these go one by one.
	through, err := n.leader(ctx)
	if err != nil {
		return nil, err
	}
	return registry.NewAuthor(apiSubmitter{n.Client(through)}, MeshName, author, signers[:m]...), nil
}

// Institution gives the author of an institution's own commands, through its own
// node.
func (n *Network) Institution(id names.InstitutionID) *registry.Author {
	s := n.site(id)
	return registry.NewAuthor(apiSubmitter{n.Client(id)}, MeshName, string(id), s.signer)
}

// enrol fills the registry as its authors would: operators admit and describe,
// the committee authorizes, each institution says what it offers and on whom it
// has files.
func (n *Network) enrol(ctx context.Context) error {
	if err := n.admit(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.authorize(ctx) })
	g.Go(func() error { return n.declare(ctx) })
	return g.Wait()
}

func (n *Network) admit(ctx context.Context) error {
	operators, err := n.Operators(ctx)
	if err != nil {
		return err
	}
	for _, s := range n.layout.sites {
		if s.member {
			continue // the genesis file admitted it
		}
		inst := s.Proto()
		pub := publicKey(s.signer)
		inst.FirstKey = &registrypb.Key{Institution: inst.Id, Id: string(envelope.KeyID(pub)), PublicKey: pub}
		if err := do(ctx, operators, &registrypb.Command{Body: &registrypb.Command_SetInstitution{SetInstitution: inst}}); err != nil {
			return fmt.Errorf("admit %s: %w", s.ID, err)
		}
	}
	if err := n.enrolProvider(ctx, operators); err != nil {
		return err
	}
	for _, d := range n.World().Datasets() {
		if err := do(ctx, operators, &registrypb.Command{Body: &registrypb.Command_SetDataset{SetDataset: d.Proto()}}); err != nil {
			return fmt.Errorf("describe %s: %w", d.ID, err)
		}
	}
	return nil
}

func (n *Network) authorize(ctx context.Context) error {
	committee, err := n.Committee(ctx)
	if err != nil {
		return err
	}
	for _, a := range n.World().Authorizations() {
		if err := do(ctx, committee, &registrypb.Command{Body: &registrypb.Command_SetAuthorization{SetAuthorization: a}}); err != nil {
			return fmt.Errorf("authorize %s: %w", a.Id, err)
		}
	}
	return nil
}

// declare sends every institution's offerings and references, all institutions at
// the same time.
func (n *Network) declare(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	lots := make(map[names.InstitutionID]chan *registrypb.Command)
	for _, s := range n.layout.sites {
		lot := make(chan *registrypb.Command, lotsInFlight)
		lots[s.ID] = lot
		author := n.Institution(s.ID)
		g.Go(func() error {
			for cmd := range lot {
				if err := do(ctx, author, cmd); err != nil {
					return fmt.Errorf("declare for %s: %w", s.ID, err)
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer func() {
			for _, lot := range lots {
				close(lot)
			}
		}()
		return n.lots(func(id names.InstitutionID, cmd *registrypb.Command) error {
			select {
			case lots[id] <- cmd:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	return g.Wait()
}

// lots makes the commands of declare, in the order in which they must be sent.
func (n *Network) lots(send func(names.InstitutionID, *registrypb.Command) error) error {
	for _, o := range n.World().Offerings() {
		if err := send(names.InstitutionID(o.Institution), &registrypb.Command{Body: &registrypb.Command_SetOffering{SetOffering: o}}); err != nil {
			return err
		}
	}
	for _, r := range n.World().Subscriptions() {
		if err := send(names.InstitutionID(r.Institution), &registrypb.Command{Body: &registrypb.Command_SetSubscription{SetSubscription: r}}); err != nil {
			return err
		}
	}
	for b := range n.World().ReferenceBatches(rowsPerCommand) {
		err := send(b.Institution, &registrypb.Command{
			Chain: registrypb.Chain_DIRECTORY,
			Body:  &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: b.References}},
		})
		if err != nil {
			return err
		}
	}
	var events []*registrypb.NumberEvent
	for e := range n.World().NumberEvents() {
		events = append(events, e)
	}
	for len(events) > 0 {
		lot := events[:min(len(events), rowsPerCommand)]
		events = events[len(lot):]
		err := send(n.layout.sites[0].ID, &registrypb.Command{
			Chain: registrypb.Chain_DIRECTORY,
			Body:  &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: lot}},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// do has a command decided, and makes a refusal an error.
func do(ctx context.Context, a *registry.Author, cmd *registrypb.Command) error {
	resp, err := a.Do(ctx, cmd)
	switch {
	case err != nil:
		return err
	case !resp.Accepted:
		return fmt.Errorf("the registry refuses: %s", resp.Refusal)
	}
	return nil
}
