package batch

import (
	"context"
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/node/batch/spool"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Results gives one result for every line of the file, in order, once the lot has ended. It
// may be asked for again until it is acknowledged. The errors wrap ErrNotFound, ErrState (it
// has not ended) or ErrUnavailable, or are fn's.
func (c *Consultant) Results(ctx context.Context, application string, voucher names.Ticket, fn func(Line) error) error {
	c.mu.Lock()
	l, err := c.of(application, voucher)
	if err == nil && l.kept.EndedUnixMs == 0 {
		err = fmt.Errorf("%w: it is %s", ErrState, StateName(l.kept.State))
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	f, err := c.open(l)
	if err != nil {
		return err
	}
	if !f.begin() {
		return ErrNotFound
	}
	defer f.done()
	line := uint64(0)
	for i := range int(l.kept.Chunks) {
		in, err := f.block(i)
		if err != nil {
			return err
		}
		out, err := c.result(l, i, len(in.Lines))
		if err != nil {
			return err
		}
		for at, r := range out.Lines {
			line++
			err := fn(Line{Line: line, Number: in.Lines[at].Number, Reference: in.Lines[at].Reference, ResultLine: r})
			if err = errors.Join(err, ctx.Err()); err != nil {
				return err
			}
		}
	}
	return nil
}

// result gives what came of a chunk; of one that a cancelled lot never came to, that.
func (c *Consultant) result(l *lot, i, lines int) (*nodepb.ResultBlock, error) {
	out := new(nodepb.ResultBlock)
	if !l.done(i) {
		for range lines {
			out.Lines = append(out.Lines, &nodepb.ResultLine{Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_LOT_CANCELLED})
		}
		return out, nil
	}
	raw, err := c.cfg.Spool.Get(resultName(l.kept.Files, i))
	if err == nil {
		err = unmarshal(raw, out)
	}
	if err == nil && len(out.Lines) != lines {
		err = spool.ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return out, nil
}
