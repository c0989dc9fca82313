package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

// MaxStateRows is the largest answer of MethodStateRows, in bytes: a few thousand rows.
const MaxStateRows = 4 << 20

// HandleStateRows answers MethodStateRows on a member, for another: the digests of its
// buckets at a mark, or of the parts of a bucket, or the hashes of the rows in one part.
// It reads the whole state for the last two, so it is for when states differ.
func (r *Registry) HandleStateRows(ctx context.Context, from names.NodeID, req *registrypb.StateRowsRequest) (*registrypb.StateRowsResponse, error) {
	if r.member == nil {
		return nil, ErrNotMember
	}
	if !r.isVoter(from) { // the hash of a key tells whoever guesses it that there is such a row
		return nil, ErrNotAdmitted
	}
	_, leave, err := r.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	switch {
	case req.GetIndex() > 0:
		digests, err := r.store.Digests(req.Index)
		resp := &registrypb.StateRowsResponse{Index: req.Index}
		for _, d := range digests {
			resp.Parts = append(resp.Parts, d[:])
		}
		return resp, err
	case req.GetBucket() >= statehash.Buckets || req.GetPart() > 256:
		return nil, fmt.Errorf("%w: bucket %d, part %d", ErrMalformed, req.GetBucket(), req.GetPart())
	case req.GetPart() == 0:
		parts, index, err := r.store.Parts(ctx, int(req.Bucket))
		return &registrypb.StateRowsResponse{Index: index, Parts: parts}, err
	}
	rows, index, err := r.store.PartRows(ctx, int(req.Bucket), int(req.Part)-1)
	resp := &registrypb.StateRowsResponse{Index: index}
	for i, row := range rows {
		if i == MaxStateRows/128 {
			break
		}
		resp.Rows = append(resp.Rows, &registrypb.StateRow{Key: row.Key[:], Row: row.Row[:], Table: uint32(row.Table)})
	}
	return resp, err
}

// findDifference names the first record that this replica and the member m hold
// differently. Both may have moved on since the mark; what differs stays.
func (r *Registry) findDifference(ctx context.Context, m names.NodeID, mark uint64) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), differenceWithin)
	defer cancel()
	ask := func(req *registrypb.StateRowsRequest) (*registrypb.StateRowsResponse, error) {
		resp := new(registrypb.StateRowsResponse)
		return resp, r.cfg.Peers.Call(ctx, m, MethodStateRows, req, resp)
	}
	there, err := ask(&registrypb.StateRowsRequest{Index: mark})
	if err != nil {
		return "", err
	}
	here, err := r.store.Digests(mark)
	if err != nil {
		return "", err
	}
	if len(there.Parts) != len(here) || len(here) == 0 {
		return "", errors.New("the digests of that mark are not kept any more")
	}
	for b := range here {
		if string(there.Parts[b]) == string(here[b][:]) {
			continue
		}
		where, err := r.differenceIn(ctx, uint32(b), ask)
		if err != nil || where != "" {
			return where, err
		}
	}
	return "", errors.New("no row differs any more: the hash itself was damaged")
}

func (r *Registry) differenceIn(ctx context.Context, bucket uint32, ask func(*registrypb.StateRowsRequest) (*registrypb.StateRowsResponse, error)) (string, error) {
	there, err := ask(&registrypb.StateRowsRequest{Bucket: bucket})
	if err != nil {
		return "", err
	}
	here, _, err := r.store.Parts(ctx, int(bucket))
	if err != nil {
		return "", err
	}
	for p := range here {
		if p >= len(there.Parts) || string(there.Parts[p]) == string(here[p]) {
			continue
		}
		theirs, err := ask(&registrypb.StateRowsRequest{Bucket: bucket, Part: uint32(p) + 1})
		if err != nil {
			return "", err
		}
		mine, _, err := r.store.PartRows(ctx, int(bucket), p)
		if err != nil {
			return "", err
		}
		known := make(map[string]*registrypb.StateRow, len(theirs.Rows))
		for _, row := range theirs.Rows {
			known[string(row.Key)] = row
		}
		for _, row := range mine {
			other := known[string(row.Key[:])]
			switch {
			case other == nil:
				return fmt.Sprintf("%s is here and not there (bucket %d)", row.Name, bucket), nil
			case string(other.Row) != string(row.Row[:]):
				return fmt.Sprintf("%s has another value there (bucket %d)", row.Name, bucket), nil
			}
			delete(known, string(row.Key[:]))
		}
		for _, row := range theirs.Rows {
			if known[string(row.Key)] != nil {
				return fmt.Sprintf("a row of table %q, whose key has the SHA-256 %x, is there and not here (bucket %d)", rune(row.Table), row.Key, bucket), nil
			}
		}
	}
	return "", nil
}
