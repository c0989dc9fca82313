package node

import (
	"context"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/mesh"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func (n *Node) openReading() error {
	n.reading = reading.New(reading.Config{
		Mesh: n.cfg.Mesh, Self: n.self, Registry: n.registry, Journal: n.journal, Peers: readers{n.peers},
		Committee: n.committee, Schemes: subject.Belgian(), Story: tracer{n}.judge, Prove: n.prove,
		Skew: n.keys.genesis.Bounds.Skew, Now: n.deps.Now, Log: n.log,
	})
	return nil
}

// committee gives the committee's keys as they now stand.
func (n *Node) committee() (g genesis.Group, err error) {
	err = n.registry.View(func(v record.View) error {
		now, _, err := v.Group(n.registry.Rules(), record.Committee)
		g = genesis.Group{Threshold: now.M, Keys: now.Keys}
		return err
	})
	return g, err
}

// judgeTimeout bounds what is asked of members about one ticket.
const judgeTimeout = 3 * time.Second

// judge makes a story of what the journals of several nodes show.
func (t tracer) judge(ctx context.Context, ticket names.Ticket, segments map[names.NodeID]trace.Segment) *trace.Story {
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	story := trace.Build(ticket, segments, t.means(t.known(ctx, trace.Unproved(segments))))
	story.Add(t.n.examine(ctx, trace.Rulings(segments))...)
	return story
}

// readers carries the questions of those who may read journals.
type readers struct{ *peers }

var _ reading.Peers = readers{}

func (r readers) Subject(ctx context.Context, to names.NodeID, req *nodepb.SubjectRequest) (*nodepb.SubjectResponse, error) {
	resp := new(nodepb.SubjectResponse)
	return resp, rightless(r.Call(ctx, to, methodSubject, req, resp))
}

func (r readers) Inspect(ctx context.Context, to names.NodeID, req *nodepb.InspectRequest) (*nodepb.InspectResponse, error) {
	resp := new(nodepb.InspectResponse)
	return resp, rightless(r.Call(ctx, to, methodInspect, req, resp))
}

// rightless knows a peer's refusal again.
func rightless(err error) error {
	if err != nil && mesh.CodeOf(err) == mesh.PermissionDenied {
		return fmt.Errorf("%w: %w", reading.ErrNoRight, err)
	}
	return err
}
