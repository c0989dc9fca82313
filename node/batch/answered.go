package batch

import (
	"context"
	"slices"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// journal writes the outcomes down: an entry for each supplier that replied, and, once the
// part is at its end, one for those whom no supplier was asked about. What stands in the
// journal already, from before a crash, is not written again.
func (p *part) journal(ctx context.Context, replies []*reply, last bool) error {
	var entries []*nodepb.Entry
	for _, r := range replies {
		entries = append(entries, p.answered(r))
	}
	if last {
		for _, d := range p.refused {
			entries = append(entries, p.refusedEntry(d))
		}
		if p.left.Any() {
			entries = append(entries, p.undecided())
		}
	}
	errs := make(chan error, len(entries))
	for _, e := range entries { // at the same time, so that they share a sync
		go func() { errs <- p.journalOnce(ctx, e) }()
	}
	var first error
	for range entries {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// journalOnce appends an outcome unless the journal holds it.
func (p *part) journalOnce(ctx context.Context, e *nodepb.Entry) error {
	if p.again {
		there, err := p.journaled(ctx, nodepb.Event_ANSWERED, func(f *nodepb.Entry) bool {
			return f.Supplier.GetInstitution() == e.Supplier.GetInstitution() && slices.Equal(f.AnswerCommitment, e.AnswerCommitment) &&
				f.Status == e.Status && f.Reason == e.Reason && sameClearer(f, e)
		})
		if there || err != nil {
			return err
		}
	}
	return appendEntry(ctx, p.cfg.Journal, e)
}

// sameClearer tells the refusals of two clearing peers apart. An answer is the same
// whatever clearance it came under.
func sameClearer(a, b *nodepb.Entry) bool {
	return a.Supplier != nil || a.Clearer.GetInstitution() == b.Clearer.GetInstitution()
}

func (p *part) entry() *nodepb.Entry {
	e := orderEntry(p.cfg.Now(), nodepb.Role_CONSULTANT, nodepb.Event_ANSWERED, p.l.Order)
	e.RequestHash = p.request.Hash
	e.Lot = &nodepb.LotPart{Chunk: uint32(p.chunk)}
	return e
}

func (p *part) answered(r *reply) *nodepb.Entry {
	e := p.entry()
	addClearance(e, r.permit.ChunkClearance, r.permit.hash)
	e.Detail, e.Evidence = r.detail, [][]byte{r.permit.envelope}
	if r.by.Institution != "" {
		e.Supplier = nodeRef(r.by)
	}
	if r.resp != nil {
		e.Status, e.AnswerCommitment = statusOver(r.items), rootOf(r.resp.Answer)
		e.Evidence = append(e.Evidence, r.resp.Answer)
		e.Lot.Groups = fared(r.permit.ChunkClearance, r.items)
	} else {
		e.Status, e.Reason = nodepb.Status_NO_RESULT, r.reason
		for _, g := range r.permit.Groups {
			k := groupOf(g)
			k.Status, k.Reason = nodepb.Status_NO_RESULT, r.reason
			e.Lot.Groups = append(e.Lot.Groups, k)
		}
	}
	deliberations(p.cfg.Registry, e)
	return e
}

func (p *part) refusedEntry(d *decision) *nodepb.Entry {
	e := p.entry()
	e.Clearer, e.RegistryIndex, e.Evidence, e.Status = d.Clearer, d.RegistryIndex, [][]byte{d.envelope}, nodepb.Status_NO_RESULT
	for _, g := range d.Groups {
		k := refusedGroup(g)
		k.Status = nodepb.Status_NO_RESULT
		e.Lot.Groups = append(e.Lot.Groups, k)
	}
	if len(d.Groups) == 1 {
		e.Outcome, e.Reason = d.Groups[0].Outcome, d.Groups[0].Reason
	}
	deliberations(p.cfg.Registry, e)
	return e
}

// undecided is of those on whom nobody decided.
func (p *part) undecided() *nodepb.Entry {
	e := p.entry()
	e.Status, e.Reason = nodepb.Status_NO_RESULT, p.why
	var numbers []string
	for i, n := range packed.All(p.request.Subjects) {
		if p.left.Has(i) {
			numbers = append(numbers, n)
		}
	}
	e.Lot.Groups = []*nodepb.LotSubjects{{
		Subjects: packed.Of(subject.Scheme(p.l.Scheme), numbers), Outcome: registrypb.Outcome_DENY, Status: nodepb.Status_NO_RESULT, Reason: p.why,
	}}
	return e
}
