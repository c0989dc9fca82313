package registry

import (
	"context"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

// Files is the Disk that nodes use.
var Files Disk = files{}

// PlacesPerEntry is how many indexes one entry of the log covers.
const PlacesPerEntry = placesPerEntry

// Propose puts bytes into the log as a leader can, without anybody's check.
func (r *Registry) Propose(b []byte) (any, error) {
	f := r.member.raft().Apply(b, time.Second)
	if err := f.Error(); err != nil {
		return nil, err
	}
	if r, ok := f.Response().([]record.Result); ok && len(r) == 1 {
		return r[0], nil // of an entry that holds one command
	}
	return f.Response(), nil
}

// Voters gives the IDs in raft's configuration.
func (r *Registry) Voters() []string {
	var ids []string
	for _, s := range votersOf(r.member.raft()) {
		ids = append(ids, string(s))
	}
	return ids
}

// MajoritySays asks raft's own VerifyLeader.
func (r *Registry) MajoritySays() error { return r.member.raft().VerifyLeader().Error() }

// Bound is how long a command that takes a right away is waited for.
func (r *Registry) Bound() time.Duration { return r.revocationBound() }

// HandOver makes another member lead.
func (r *Registry) HandOver(to names.NodeID) error {
	s := server(to)
	return r.member.raft().LeadershipTransferToServer(s.ID, s.Address).Error()
}

// CatchUp returns when this replica holds all that was decided before the call.
func (r *Registry) CatchUp(ctx context.Context) error { return r.holder.Renew(ctx, r.askGrant) }

// Now gives the hash of the state.
func (r *Registry) Now() (store.Mark, error) { return r.store.Now() }

// Marks gives the marks of this replica's state.
func (r *Registry) Marks() ([]store.Mark, error) { return r.store.Marks(0) }
