package anchor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/witness"
)

// round shows one checkpoint to all members that are not still busy with another, and
// makes it the anchored one when a majority has cosigned it.
func (a *Anchorer) round(ctx context.Context, note *checkpoint.Note) error {
	began := time.Now()
	members, err := a.voters()
	if err != nil {
		return err
	}
	answers := make(chan []byte, len(members))
	declaration, err := a.declaration(ctx, note)
	if err != nil {
		return err
	}
	bare := note.Only(0, nil) // what is shown: cosignatures are added to note meanwhile
	asked := 0
	for _, m := range members {
		if !a.take(m) {
			continue
		}
		asked++
		a.asking.Go(func() {
			defer a.free(m)
			asking, cancel := context.WithTimeout(ctx, a.cfg.AskFor)
			defer cancel()
			line, err := a.ask(asking, m, bare, declaration)
			if err != nil && ctx.Err() == nil {
				a.cfg.Logger.Debug("no cosignature", "member", m.String(), "size", note.Size, "err", err)
			}
			answers <- line
		})
	}
	need, have, lag := len(members)/2+1, 0, time.Duration(0)
	var grace <-chan time.Time
gather:
	for range asked {
		select {
		case line := <-answers:
			if line == nil || note.Add(line) != nil {
				continue
			}
			if have++; have == need {
				lag = time.Since(began)
				grace = time.After(a.cfg.Grace)
			}
		case <-grace:
			break gather
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if have < need {
		return fmt.Errorf("%w: %d of %d", errNoMajority, have, len(members))
	}
	return a.anchored(note, lag)
}

// declaration gives what must come with a checkpoint whose epoch the registry does not know.
func (a *Anchorer) declaration(ctx context.Context, note *checkpoint.Note) ([]byte, error) {
	if note.Epoch <= 1 || a.knownEpoch() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.AskFor)
	defer cancel()
	raw, err := a.cfg.Declaration(ctx)
	if err != nil {
		return nil, fmt.Errorf("declare the journal's epoch: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settled = raw == nil
	return raw, nil
}

func (a *Anchorer) knownEpoch() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settled
}

func (a *Anchorer) voters() (members []names.NodeID, err error) {
	err = a.cfg.Registry.View(func(v record.View) error {
		members, err = v.Members()
		return err
	})
	if err == nil && len(members) == 0 {
		err = errors.New("the registry names no members yet")
	}
	return members, err
}

// take reports whether m may be asked now, and marks it busy.
func (a *Anchorer) take(m names.NodeID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.members[m]
	if v == nil {
		v = new(memberView)
		a.members[m] = v
	}
	if v.busy {
		return false
	}
	v.busy = true
	return true
}

func (a *Anchorer) free(m names.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members[m].busy = false
}

func (a *Anchorer) knows(m names.NodeID) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.members[m].size
}

func (a *Anchorer) learn(m names.NodeID, size int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members[m].size = size
}

// ask gives the line by which m cosigns bare, verified.
func (a *Anchorer) ask(ctx context.Context, m names.NodeID, bare *checkpoint.Note, declaration []byte) ([]byte, error) {
	for range 3 {
		old := a.knows(m)
		if old > bare.Size {
			return nil, fmt.Errorf("it has cosigned size %d already", old)
		}
		body, err := a.request(old, bare)
		if err != nil {
			return nil, err
		}
		resp, err := a.add(ctx, m, &registrypb.AddCheckpointRequest{Body: body, Declaration: declaration})
		if err != nil {
			return nil, err
		}
		switch resp.GetStatus() {
		case http.StatusOK:
			return a.accept(m, bare, resp.GetBody())
		case http.StatusConflict:
			size, err := strconv.ParseInt(strings.TrimSuffix(string(resp.GetBody()), "\n"), 10, 64)
			if err != nil || size < 0 {
				return nil, errors.New("it answers a conflict and no size")
			}
			if size == old {
				a.cfg.Logger.Error("a member holds another history of this journal: was this disk restored from a backup, or is it lying?",
					"member", m.String(), "size", size)
				return nil, errors.New("it holds another history")
			}
			a.learn(m, size)
		default:
			a.cfg.Logger.Warn("a member refuses a checkpoint of this journal", "member", m.String(), "size", bare.Size,
				"status", resp.GetStatus(), "says", clip(resp.GetBody()))
			return nil, fmt.Errorf("it answers %d", resp.GetStatus())
		}
	}
	return nil, errors.New("it keeps answering a conflict")
}

func (a *Anchorer) request(old int64, note *checkpoint.Note) ([]byte, error) {
	r := &checkpoint.AddRequest{Old: old, Note: note.Bytes()}
	if old > 0 && old < note.Size {
		proof, err := a.cfg.Log.ConsistencyProof(old, note.Size)
		if err != nil {
			return nil, err
		}
		for _, h := range proof {
			r.Proof = append(r.Proof, checkpoint.Hash(h))
		}
	}
	return r.Bytes(), nil
}

func (a *Anchorer) add(ctx context.Context, m names.NodeID, req *registrypb.AddCheckpointRequest) (*registrypb.AddCheckpointResponse, error) {
	if m == a.cfg.Self && a.cfg.Local != nil {
		return a.cfg.Local.HandleAddCheckpoint(ctx, a.cfg.Self, req)
	}
	resp := new(registrypb.AddCheckpointResponse)
	return resp, a.cfg.Peers.Call(ctx, m, witness.MethodAddCheckpoint, req, resp)
}

// accept takes a line that m's key in force made over this very checkpoint.
func (a *Anchorer) accept(m names.NodeID, bare *checkpoint.Note, line []byte) ([]byte, error) {
	with := bare.Only(0, nil)
	if err := with.Add(line); err != nil {
		return nil, err
	}
	ok := false
	err := a.cfg.Registry.View(func(v record.View) (err error) {
		ok, err = v.Cosigned(with, m)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !ok:
		a.cfg.Logger.Warn("a member's cosignature does not verify", "member", m.String())
		return nil, errors.New("its cosignature does not verify")
	}
	a.learn(m, bare.Size)
	return line, nil
}

func clip(b []byte) string { return string(b[:min(len(b), 200)]) }

// handAgain is how long what a member took is taken for written: it may have crashed.
const handAgain = 30 * time.Second

// handOver gives the registry what was anchored, once every HandOver, through one
// member after another until one takes it.
func (a *Anchorer) handOver(ctx context.Context) error {
	tick := time.NewTicker(a.cfg.HandOver)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			last, ok := a.Anchored()
			if !ok || last.Size <= a.handed && time.Since(a.handedAt) < handAgain && (last.Epoch <= 1 || a.knownEpoch()) {
				continue
			}
			if err := a.hand(ctx, last); err != nil {
				a.turn++
				a.cfg.Logger.Debug("anchored checkpoint not handed over yet", "size", last.Size, "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *Anchorer) hand(ctx context.Context, last Anchored) error {
	members, err := a.voters()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.AskFor)
	defer cancel()
	req, resp := &registrypb.AnchorRequest{Notes: [][]byte{last.Note}}, new(registrypb.AnchorResponse)
	note, err := checkpoint.Parse(last.Note)
	if err != nil {
		return err
	}
	declaration, err := a.declaration(ctx, note)
	if err != nil {
		return err
	}
	if declaration != nil {
		req.Declarations = [][]byte{declaration}
	}
	if a.cfg.Local != nil {
		if _, err := a.cfg.Local.HandleAnchor(ctx, a.cfg.Self, req); err != nil {
			return err
		}
	} else if err := a.cfg.Peers.Call(ctx, members[a.turn%len(members)], witness.MethodAnchor, req, resp); err != nil {
		return err
	}
	a.handed, a.handedAt = last.Size, time.Now()
	return nil
}

// ErrNoProof means that the proof asked for cannot be made: a size is out of range.
var ErrNoProof = errors.New("no consistency proof between those sizes")

// HandleConsistency answers witness.MethodConsistency: how this journal's tree grew from
// one size to another. It tells nothing of any entry.
func (a *Anchorer) HandleConsistency(_ context.Context, _ names.NodeID, req *registrypb.ConsistencyRequest) (*registrypb.ConsistencyResponse, error) {
	if req.GetOldSize() <= 0 || req.GetNewSize() < req.GetOldSize() {
		return nil, ErrNoProof
	}
	proof, err := a.cfg.Log.ConsistencyProof(req.GetOldSize(), req.GetNewSize())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoProof, err)
	}
	resp := new(registrypb.ConsistencyResponse)
	for _, h := range proof {
		resp.Proof = append(resp.Proof, h[:])
	}
	return resp, nil
}
