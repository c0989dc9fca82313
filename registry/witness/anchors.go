package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// MaxAnchorNotes is how many notes one call hands over.
const MaxAnchorNotes = record.MaxAnchors

// MaxAnchorBytes bounds the bytes of one call that hands over notes.
const MaxAnchorBytes = MaxAnchorNotes * (checkpoint.MaxNote + record.MaxDeclaration)

// maxAnchorBytes keeps a command below what the registry accepts, see record.MaxWrite.
const maxAnchorBytes = 1 << 20

// pending are the anchors that wait to be written: of each journal the largest. There
// are never more than journals. The zero value is ready.
type pending struct {
	mu    sync.Mutex
	notes map[string]waiting // by origin
}

type waiting struct {
	note *checkpoint.Note
	// declaration of the epoch that the note begins, if it does.
	declaration []byte
	since       time.Time
}

func (p *pending) put(n *checkpoint.Note, declaration []byte, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.notes == nil {
		p.notes = make(map[string]waiting)
	}
	have, ok := p.notes[n.Origin]
	if ok && !n.After(have.note) && !(n.Same(have.note) && !bytes.Equal(declaration, have.declaration)) {
		return false
	}
	if ok {
		now = have.since // a journal that grows goes on waiting in its place
	}
	p.notes[n.Origin] = waiting{n, declaration, now}
	return true
}

// first gives those that wait longest, within the limits of one command.
func (p *pending) first() (some []waiting) {
	p.mu.Lock()
	all := make([]waiting, 0, len(p.notes))
	for _, w := range p.notes {
		all = append(all, w)
	}
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b waiting) int { return a.since.Compare(b.since) })
	size := 0
	for _, w := range all {
		size += len(w.note.Bytes()) + len(w.declaration)
		if len(some) == record.MaxAnchors || size > maxAnchorBytes {
			break
		}
		some = append(some, w)
	}
	return some
}

// done drops what was written, unless a larger one came meanwhile.
func (p *pending) done(some []waiting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range some {
		if have, ok := p.notes[w.note.Origin]; ok && !have.note.After(w.note) && bytes.Equal(have.declaration, w.declaration) {
			delete(p.notes, w.note.Origin)
		}
	}
}

// HandleAnchor answers MethodAnchor: it takes what a majority cosigned. A node hands
// over its own journal's, a member anybody's; the rest, and what is not in order or
// does not grow, is left aside.
func (w *Witness) HandleAnchor(_ context.Context, from names.NodeID, req *registrypb.AnchorRequest) (*registrypb.AnchorResponse, error) {
	if n := len(req.GetNotes()); n > MaxAnchorNotes {
		return nil, fmt.Errorf("%w: %d notes, at most %d", checkpoint.ErrMalformed, n, MaxAnchorNotes)
	}
	if len(req.Declarations) > len(req.Notes) {
		return nil, fmt.Errorf("%w: more declarations than notes", checkpoint.ErrMalformed)
	}
	declarations := record.DeclarationsOf(req.Declarations)
	resp := new(registrypb.AnchorResponse)
	return resp, w.view(func(v record.View) error {
		member, err := v.IsMember(from)
		if err != nil {
			return err
		}
		for _, raw := range req.GetNotes() {
			took, err := w.take(v, from, member, raw, declarations)
			if err != nil {
				return err
			}
			if took {
				resp.Taken++
			}
		}
		return nil
	})
}

func (w *Witness) take(v record.View, from names.NodeID, member bool, raw []byte, declarations map[names.NodeID][]byte) (bool, error) {
	n, err := checkpoint.Parse(raw)
	if err != nil || !member && n.Node != from {
		return false, nil
	}
	was, err := v.Anchor(n.Node)
	if err != nil || was != nil && !n.After(was.Checkpoint) {
		return false, err
	}
	var declaration []byte
	begins, err := v.BeginsEpoch(n)
	if begins && err == nil {
		declaration = declarations[n.Node]
		_, err = v.CheckDeclared(w.cfg.Mesh, n, declaration)
	}
	if err == nil {
		n, err = Trim(v, w.cfg.Mesh, n)
	}
	if errors.Is(err, record.ErrNotAnchored) {
		return false, nil
	}
	return err == nil && w.pending.put(n, declaration, w.cfg.Now()), err
}

// Trim gives n with the journal's signature and a bare majority of good cosignatures:
// what the registry needs, at the least weight. The error is that of
// record.View.CheckAnchor.
func Trim(v record.View, mesh names.MeshID, n *checkpoint.Note) (*checkpoint.Note, error) {
	if _, err := v.CheckAnchor(mesh, n.Bytes()); err != nil {
		return nil, err
	}
	members, err := v.Members()
	if err != nil {
		return nil, err
	}
	var failed error
	seen := make(map[names.NodeID]bool)
	trimmed := n.Only(len(members)/2+1, func(m names.NodeID) bool {
		if seen[m] {
			return false
		}
		ok, err := v.Cosigned(n, m)
		seen[m], failed = ok, errors.Join(failed, err)
		return ok
	})
	if failed == nil { // several keys of one member may have left a line that does not count
		_, failed = v.CheckAnchor(mesh, trimmed.Bytes())
	}
	return trimmed, failed
}

// Flush writes the anchors that wait, if this member leads the registry, and else
// hands them to the one that does. What fails waits on.
func (w *Witness) Flush(ctx context.Context) {
	some := w.pending.first()
	leader, ok := w.cfg.Registry.Leader()
	if len(some) == 0 || !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	req := new(registrypb.AnchorRequest)
	for _, s := range some {
		req.Notes = append(req.Notes, s.note.Bytes())
		if s.declaration != nil {
			req.Declarations = append(req.Declarations, s.declaration)
		}
	}
	var err error
	if leader == w.cfg.Self {
		err = w.propose(ctx, req)
	} else {
		err = w.cfg.Peers.Call(ctx, leader, MethodAnchor, req, new(registrypb.AnchorResponse))
	}
	if err != nil {
		w.cfg.Log.Debug("anchors not written yet", "anchors", len(some), "leader", leader.String(), "error", err)
		return
	}
	w.pending.done(some)
}

func (w *Witness) propose(ctx context.Context, req *registrypb.AnchorRequest) error {
	set := &registrypb.Anchors{Notes: req.Notes, Declarations: req.Declarations}
	if err := w.view(func(v record.View) error {
		level, err := v.FeatureLevel()
		if level < 2 { // members that know of none would refuse the command
			set.Declarations = nil
		}
		return err
	}); err != nil {
		return err
	}
	payload, err := proto.Marshal(&registrypb.Command{
		Mesh: string(w.cfg.Mesh), Author: string(w.cfg.Self.Institution), Chain: registrypb.Chain_ANCHORS,
		TimeUnixMs: w.cfg.Now().UnixMilli(), Body: &registrypb.Command_SetAnchors{SetAnchors: set},
	})
	if err != nil {
		return err
	}
	raw, err := envelope.Sign(envelope.Command, payload, w.cfg.Signer)
	if err != nil {
		return err
	}
	resp, err := w.cfg.Registry.Submit(ctx, raw)
	if err == nil && !resp.GetAccepted() { // they fell behind the tables; the next ones will not
		w.cfg.Log.Warn("the registry refuses anchors", "why", resp.GetRefusal())
	}
	return err
}

// HandleAnchors answers MethodAnchors with what stands in the registry.
func (w *Witness) HandleAnchors(_ context.Context, _ names.NodeID, req *registrypb.AnchorsRequest) (*registrypb.AnchorsResponse, error) {
	var after, only names.NodeID
	for s, to := range map[string]*names.NodeID{req.GetAfter(): &after, req.GetJournal(): &only} {
		if s == "" {
			continue
		}
		var err error
		if *to, err = names.ParseNodeID(s); err != nil {
			return nil, fmt.Errorf("%w: %w", checkpoint.ErrMalformed, err)
		}
	}
	resp := new(registrypb.AnchorsResponse)
	return resp, w.view(func(v record.View) error {
		if req.GetJournal() != "" {
			a, err := v.Anchor(only)
			if a != nil {
				resp.Notes = [][]byte{a.Checkpoint.Bytes()}
			}
			return err
		}
		return v.Anchors(after, func(a *record.Anchor) error {
			if len(resp.Notes) == pageSize {
				resp.Next = after.String()
				return record.ErrStop
			}
			resp.Notes = append(resp.Notes, a.Checkpoint.Bytes())
			after = a.Checkpoint.Node
			return nil
		})
	})
}

// maxPages bounds what FetchAnchors reads: 4,096 journals.
const maxPages = 64

// FetchAnchors asks a member for all anchors, for a node that holds none itself; or for
// that of one journal, if journal names one. It verifies each in its own view, so the
// member can hold back, and not invent.
func FetchAnchors(ctx context.Context, peers Peers, member, journal names.NodeID, mesh names.MeshID, view func(func(record.View) error) error) (notes []*checkpoint.Note, err error) {
	req := new(registrypb.AnchorsRequest)
	if journal != (names.NodeID{}) {
		req.Journal = journal.String()
	}
	for range maxPages {
		resp := new(registrypb.AnchorsResponse)
		if err := peers.Call(ctx, member, MethodAnchors, req, resp); err != nil {
			return nil, err
		}
		err := view(func(v record.View) error {
			for _, raw := range resp.GetNotes() {
				n, err := v.CheckAnchor(mesh, raw)
				switch {
				case errors.Is(err, record.ErrNotAnchored): // a key was retired since
				case err != nil:
					return fmt.Errorf("%s: %w", member, err)
				default:
					notes = append(notes, n)
				}
			}
			return nil
		})
		if err != nil || resp.GetNext() == "" {
			return notes, err
		}
		req.After = resp.Next
	}
	return notes, nil
}
