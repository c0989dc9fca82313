package api

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// maxReferences is how many references one request may change; a bulk load is a signed
// command of up to 10,000.
const maxReferences = 1000

// findReferences lists what this institution itself has declared of a subject; what
// others have declared is not told here. The look-up is journaled.
func (s *Server) findReferences(q *request) (response, error) {
	in, err := decode[SubjectQuery](q.body)
	if err != nil {
		return nil, err
	}
	id, err := s.subject(in.Subject)
	if err != nil {
		return nil, err
	}
	if err := s.readingOf(q, "", id, "own references"); err != nil {
		return nil, err
	}
	out := References{References: []Reference{}}
	err = s.cfg.Registry.View(func(v record.View) error {
		rows, err := v.References(id)
		for _, r := range rows {
			if r.Institution == s.cfg.Self.Institution {
				out.References = append(out.References, Reference{
					Subject: Subject{Scheme: string(id.Scheme()), Number: id.Number()}, Quality: r.Quality, Period: r.Period,
				})
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Server) declareReferences(q *request) (response, error) {
	return s.changeReferences(q, nodepb.Event_DECLARED)
}

func (s *Server) withdrawReferences(q *request) (response, error) {
	return s.changeReferences(q, nodepb.Event_WITHDRAWN)
}

// changeReferences journals every row before the command leaves, and what the registry
// made of it after: a declaration gives rights, and its subject may ask who made it.
func (s *Server) changeReferences(q *request, event nodepb.Event) (response, error) {
	if d := s.cfg.Sector; d != nil && d.Member != nil {
		return nil, problem(CodeForbidden, "", "This institution is behind a managing body: the directory of the mesh must not say who is with it. The managing body declares for the sector.")
	}
	in, err := decode[References](q.body)
	if err != nil {
		return nil, err
	}
	if len(in.References) == 0 || len(in.References) > maxReferences {
		return nil, problem(CodeMalformed, "references", fmt.Sprintf("Send 1 to %d.", maxReferences))
	}
	var rows []*registrypb.Reference
	var entries []*nodepb.Entry
	for i, r := range in.References {
		id, err := s.checkReference(fmt.Sprintf("references[%d]", i), r)
		if err != nil {
			return nil, err
		}
		period := &registrypb.Period{From: int32(r.Period.From), Until: int32(r.Period.Until)}
		rows = append(rows, &registrypb.Reference{
			Subject: &registrypb.Subject{Scheme: string(id.Scheme()), Number: id.Number()},
			Quality: string(r.Quality), Period: period, Withdrawn: event == nodepb.Event_WITHDRAWN,
		})
		e := s.entry(q, nodepb.Role_DECLARER, event, id)
		e.Ticket = string(names.TicketOf(fresh())) // joins the two entries of a row
		e.Period, e.Detail = period, "reference, quality "+string(r.Quality)
		entries = append(entries, e)
	}
	if err := s.journalAll(q.Context(), entries); err != nil {
		return nil, err
	}
	done, trouble := s.cfg.Author.Do(q.Context(), &registrypb.Command{
		Chain: registrypb.Chain_DIRECTORY,
		Body:  &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: rows}},
	})
	if trouble != nil {
		done = nil
	}
	if err := s.journalOutcome(q, entries, done); err != nil {
		return nil, err
	}
	if trouble != nil {
		return nil, registryTrouble(trouble)
	}
	return s.decided(q, done), nil
}

func (s *Server) journalAll(ctx context.Context, entries []*nodepb.Entry) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(64) // they share syncs
	for _, e := range entries {
		g.Go(func() error {
			_, err := s.cfg.Journal.Append(ctx, e)
			return unavailable(err)
		})
	}
	return g.Wait()
}

// journalOutcome says of rows that were journaled what the registry made of them; done
// is nil when that is not known. Nobody need be waiting any more.
func (s *Server) journalOutcome(q *request, entries []*nodepb.Entry, done *registrypb.SubmitResponse) error {
	outcomes := make([]*nodepb.Entry, len(entries))
	for i, e := range entries {
		e = proto.CloneOf(e)
		e.TimeUnixMs, e.RegistryIndex = s.cfg.Now().UnixMilli(), done.GetIndex()
		switch {
		case done == nil:
			e.Detail = "no answer by the registry: whether it stands there is not known"
		case done.GetAccepted():
			e.Outcome, e.Detail = registrypb.Outcome_PERMIT, "accepted by the registry"
		default: // its words may name what the journal must not hold
			e.Outcome, e.Detail = registrypb.Outcome_DENY, "refused by the registry: nothing was changed"
		}
		outcomes[i] = e
	}
	return s.journalAll(context.WithoutCancel(q.Context()), outcomes)
}

func (s *Server) checkReference(where string, r Reference) (subject.ID, error) {
	id, err := s.subject(r.Subject)
	if err != nil {
		return id, problem(CodeMalformed, where+".subject", "Send a scheme this mesh knows and a number that passes its check digits.")
	}
	if err := form(where+".quality", r.Quality.Validate(), labelForm); err != nil {
		return id, err
	}
	return id, form(where+".period", r.Period.Validate(), "Let from be no later than until.")
}

// submit hands on a command that was signed elsewhere. The registry judges it.
func (s *Server) submit(q *request) (response, error) {
	if len(q.body) == 0 {
		return nil, problem(CodeMalformed, "body", "Send the signed envelope of a command.")
	}
	done, err := s.cfg.Registry.Submit(q.Context(), q.body)
	if err != nil {
		return nil, registryTrouble(err)
	}
	return s.decided(q, done), nil
}

// registryTrouble says what of the registry's errors is the caller's, and that the
// rest passes.
func registryTrouble(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, registry.ErrMalformed):
		return fmt.Errorf("%w: %w", problem(CodeMalformed, "body", "Send the signed envelope of one command, of at most 4 MiB."), err)
	}
	return fmt.Errorf("%w: %w", problem(CodeUnavailable, "", "The registry cannot be reached; see GET /readyz. Submitting the same command again is safe."), err)
}

// decided answers with what became of a command, once this node's own view shows it,
// so that whoever asks next finds it. Its verdict stands whether or not that is in time.
func (s *Server) decided(q *request, r *registrypb.SubmitResponse) Submitted {
	_ = s.cfg.Registry.WaitApplied(q.Context(), r.GetIndex())
	return Submitted{Index: r.GetIndex(), Accepted: r.GetAccepted(), Refusal: r.GetRefusal(), Repeated: r.GetRepeated()}
}

func (s *Server) registryStatus(*request) (response, error) {
	st, err := s.cfg.Registry.Status()
	if err != nil {
		return nil, err
	}
	return RegistryStatus{
		Node: refOf(st.GetNode()), Leader: refOf(st.GetLeader()), State: st.GetState(), Term: st.GetTerm(),
		AppliedIndex: st.GetAppliedIndex(), CommitIndex: st.GetCommitIndex(), GrantValid: st.GetGrantValid(),
		Subjects: st.GetSubjects(), References: st.GetReferences(), StateHash: stateHash(st),
		Verifying: st.GetVerifying(), Verified: st.GetVerified(),
	}, nil
}

func stateHash(st *registrypb.StatusResponse) *RegistryState {
	if st.GetStateIndex() == 0 && st.GetDiverged() == "" {
		return nil
	}
	refs := func(nodes []*registrypb.NodeRef) []string {
		list := []string{}
		for _, n := range nodes {
			list = append(list, refOf(n))
		}
		return list
	}
	return &RegistryState{
		Index: st.GetStateIndex(), Root: hex.EncodeToString(st.GetStateRoot()), Same: refs(st.GetStateSame()),
		Differ: refs(st.GetStateDiffer()), Silent: refs(st.GetStateSilent()), Diverged: st.GetDiverged(),
	}
}

// registryHead tells where an author's chain ends: what the author's next command
// must be numbered after.
func (s *Server) registryHead(q *request) (response, error) {
	v := q.URL.Query()
	chain, ok := map[string]registrypb.Chain{"": registrypb.Chain_PUBLIC, "public": registrypb.Chain_PUBLIC, "directory": registrypb.Chain_DIRECTORY}[v.Get("chain")]
	if !ok {
		return nil, problem(CodeMalformed, "chain", "Want public or directory.")
	}
	author := v.Get("author")
	if author == "" || len(author) > 64 {
		return nil, problem(CodeMalformed, "author", "Want an institution, @operators or @committee.")
	}
	if chain == registrypb.Chain_DIRECTORY && author != string(s.cfg.Self.Institution) {
		return nil, problem(CodeForbidden, "author", "A directory chain is told of to its own institution only, by its own node.")
	}
	var index uint64
	if at := v.Get("index"); at != "" {
		var err error
		if index, err = strconv.ParseUint(at, 10, 64); err != nil {
			return nil, problem(CodeMalformed, "index", "Want the index of a command, as its submission gave it.")
		}
	}
	sequence, hash, err := s.cfg.Registry.Head(q.Context(), author, chain, index)
	if err != nil {
		return nil, registryTrouble(err)
	}
	return ChainHead{Sequence: sequence, Hash: hex.EncodeToString(hash)}, nil
}
