package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/agree"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// confirmation gathers, beside a submission, what the members themselves say of the
// command: the leader's answer is the word of one.
type confirmation struct {
	command agree.CommandHash
	needed  bool
	cancel  context.CancelFunc
	done    chan struct{} // closed when a majority signed, or its context ended
	states  []agree.State
	since   time.Time
	err     error
}

// confirm begins to ask the members about the command in envelope, if it may take a right
// away. What is no command is for the leader to refuse. The caller ends it.
func (r *Registry) confirm(ctx context.Context, envelope []byte) (*confirmation, error) {
	c := &confirmation{cancel: func() {}, done: make(chan struct{})}
	hash, cmd, err := commandOf(envelope)
	if err == nil && cmd != nil {
		err := r.store.View(func(v record.View) (err error) {
			c.needed, err = v.MayRemove(cmd)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	c.command = hash
	if c.needed {
		r.ask(ctx, c)
	} else {
		close(c.done)
	}
	return c, nil
}

func (r *Registry) ask(ctx context.Context, c *confirmation) {
	c.needed, c.done = true, make(chan struct{})
	ctx, c.cancel = context.WithCancel(ctx)
	go func() { // joined by end
		defer close(c.done)
		c.states, c.err = r.majority(ctx, &registrypb.StateRequest{Command: c.command[:]}, func(s agree.State) bool { return s.Command == c.command })
		c.since = time.Now()
	}()
}

func (c *confirmation) end() {
	c.cancel()
	<-c.done
}

// acknowledged passes on the leader's answer when it may be relied on. That a command
// took a right away is so only when a majority of the members signed states that hold it,
// and everybody's standing has ended since that does not.
func (r *Registry) acknowledged(ctx context.Context, c *confirmation, resp *registrypb.SubmitResponse) (*registrypb.SubmitResponse, error) {
	if !resp.Accepted || !c.needed && !resp.RemovesRight {
		return resp, nil
	}
	if !c.needed { // this node did not know that there was a right
		r.ask(ctx, c)
	}
	within := time.NewTimer(hedgeAfter)
	defer within.Stop()
	err := agree.ErrNoMajority
	select {
	case <-c.done:
		err = c.err
	case <-within.C:
	}
	if err != nil {
		return nil, fmt.Errorf("a member that leads says that the command is accepted, and most of the others do not: that is no acknowledgement: %w", err)
	}
	said := c.states[0]
	resp.Index, resp.RemovesRight, resp.States = said.CommandIndex, said.RemovesRight, nil
	for _, s := range c.states {
		resp.States = append(resp.States, s.Raw)
	}
	if !resp.RemovesRight {
		return resp, nil
	}
	wait := time.NewTimer(time.Until(c.since.Add(r.revocationBound())))
	defer wait.Stop()
	select {
	case <-wait.C:
		return resp, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the command is accepted, and somebody may still rely on the right: %w", ctx.Err())
	}
}
