package sector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch"
	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/sector/directory"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

var _ batch.Sector = (*Manager)(nil)

// PresentedChunk is what answers presentations of chunks; batch.Supplier.Present is one.
type PresentedChunk func(context.Context, names.NodeID, *nodepb.ChunkPresentation) (*nodepb.ChunkResponse, error)

// VeilChunk is Veil for chunks.
func (m *Manager) VeilChunk(next PresentedChunk) PresentedChunk {
	return func(ctx context.Context, from names.NodeID, p *nodepb.ChunkPresentation) (*nodepb.ChunkResponse, error) {
		resp, err := next(ctx, from, p)
		var no *exchange.Refusal
		switch {
		case errors.As(err, &no):
			resp = &nodepb.ChunkResponse{Refusal: no.Reason}
		case err != nil:
			return nil, err
		default: // what is kept stays without
			resp = &nodepb.ChunkResponse{Answer: resp.GetAnswer(), Content: resp.GetContent(), Seed: resp.GetSeed()}
		}
		resp.Padding, err = veil.Padding(resp)
		return resp, err
	}
}

// chunkResolution is a chunk of a lot being resolved. Its goroutine owns it.
type chunkResolution struct {
	*Manager
	batch.SectorChunk
	lines    []*line   // a subject each, in the clearance's order
	answerBy time.Time // wall clock: when an inner answer is of use
}

// line is one subject of a chunk.
type line struct {
	number     string // as it was cleared
	filedUnder []string
	group      int // of the clearance
	shares     int // institutions that have a file
}

// share is what one institution is asked of a chunk, and what came of it.
type share struct {
	reply
	places []int              // in the clearance
	parts  [][]directory.Part // of each
	items  []content.Item     // of each; none: no answer that stands
	broken error              // the sector's journal or the outbox: the chunk has no answer
}

// ResolveChunk resolves every subject of a chunk, and asks each institution that has files,
// once about all that are its own. For each subject it gives what Resolve would: the records
// of all that have a file, and none if one of them has no answer.
func (m *Manager) ResolveChunk(ctx context.Context, c batch.SectorChunk) (batch.SectorChunkFound, error) {
	left := m.left(c.Arrived, c.Checked.ReleaseBy)
	x := &chunkResolution{Manager: m, SectorChunk: c, answerBy: m.Now().Add(left)}
	inner, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	if err := m.follow(inner, x.subjects(), record.NodeID(c.Checked.Clearance.GetClearer())); err != nil {
		return batch.SectorChunkFound{}, fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
	}
	shares := x.route()
	var all sync.WaitGroup
	for _, s := range shares {
		all.Go(func() { x.forward(inner, s) })
	}
	all.Wait()
	if slices.ContainsFunc(shares, func(s *share) bool { return s.reason == registrypb.Reason_CHUNK_TOO_LARGE }) {
		return batch.SectorChunkFound{}, batch.ErrSectorTooMuch
	}
	subjects := x.merge(shares)
	seal, err := x.conclude(ctx, shares, subjects)
	for _, s := range shares {
		err = errors.Join(err, s.broken)
	}
	if err != nil {
		return batch.SectorChunkFound{}, fmt.Errorf("%w: %w", exchange.ErrJournalUnavailable, err)
	}
	return batch.SectorChunkFound{Subjects: subjects, Seal: seal}, nil
}

// subjects gives those of the chunk, as they were cleared.
func (x *chunkResolution) subjects() (ids []subject.ID) {
	for _, g := range x.Checked.Clearance.Groups {
		for _, number := range packed.All(g.Subjects) {
			ids = append(ids, subject.Raw(subject.Scheme(x.Checked.Order.Scheme), number))
		}
	}
	return ids
}

// route looks every subject up in the sector directory, and gives each institution's share.
// A subject that cannot be looked up is in none.
func (x *chunkResolution) route() (shares []*share) {
	scheme := subject.Scheme(x.Checked.Order.Scheme)
	for i, g := range x.Checked.Clearance.Groups {
		c := x.Checked.Groups[i]
		for at, number := range packed.All(g.Subjects) {
			l := &line{number: number, filedUnder: chunk.FiledUnder(g, at), group: i}
			ids := []subject.ID{subject.Raw(scheme, number)}
			for _, n := range l.filedUnder {
				ids = append(ids, subject.Raw(scheme, n))
			}
			routes, err := x.directory.Route(ids, c.Qualities, c.Period)
			if err != nil {
				x.Log.Error("the sector directory cannot be read", "ticket", string(c.Ticket), "err", err)
			}
			for _, r := range routes {
				k := slices.IndexFunc(shares, func(s *share) bool { return s.route.Member == r.Member })
				if k < 0 {
					k, shares = len(shares), append(shares, &share{reply: reply{
						route: directory.Route{Member: r.Member}, status: nodepb.Status_NO_RESULT, reason: registrypb.Reason_SUPPLIER_UNAVAILABLE}})
				}
				shares[k].places = append(shares[k].places, len(x.lines))
				shares[k].parts = append(shares[k].parts, r.Parts)
				l.shares++
			}
			x.lines = append(x.lines, l)
		}
	}
	return shares
}

// forward asks one institution about its share.
func (x *chunkResolution) forward(ctx context.Context, s *share) {
	var err error
	if s.permission, err = x.permit(ctx, s); err != nil {
		switch {
		case errors.Is(err, batch.ErrSectorTooMuch):
			s.reason, s.detail = registrypb.Reason_CHUNK_TOO_LARGE, "the permission would be too large"
		case errors.Is(err, ErrJournal):
			s.broken, s.detail = err, "no permission could be kept or journaled, so none left"
		default:
			s.detail = "not permitted: the mesh does not list it as of this sector, in good standing"
		}
		return
	}
	message := &nodepb.ForwardLot{Permission: s.permission, Demand: x.Presentation.GetDemand(), Outline: x.Checked.Clearance.Outline}
	if message.Padding, err = veil.Padding(message); err != nil {
		s.detail = "too large"
		return
	}
	x.reach(ctx, &s.reply, x.Checked.Order.Ticket, func(to names.NodeID) error {
		resp, err := x.Peers.ForwardLot(ctx, to, message)
		if err == nil {
			s.by = to
			x.judge(s, resp)
		}
		return err
	})
}

// permit is resolution.permit for a share.
func (x *chunkResolution) permit(ctx context.Context, s *share) ([]byte, error) {
	sector, err := x.sectorOf(s.route.Member)
	if err != nil {
		return nil, err
	}
	c, hash := x.Checked.Clearance, x.Checked.Hash
	p := &nodepb.SectorLotPermission{
		Mesh: string(x.Mesh), Sector: string(sector), Manager: nodeRef(x.Self), Member: string(s.route.Member),
		Ticket: c.Ticket, RequestHash: c.RequestHash, ClearanceHash: hash, OutlineHash: sum(c.Outline),
	}
	x.name(p, s)
	what := hashLotParts(p)
	key := outbox.Key{Table: permissions, ID: string(c.RequestHash) + string(s.route.Member)}
	kept := new(nodepb.KeptPermission)
	found, err := x.load(key, kept)
	if err != nil {
		return nil, err
	}
	if found && bytes.Equal(kept.GetClearanceHash(), hash) && bytes.Equal(kept.GetPartsHash(), what) && x.Now().UnixMilli() < kept.GetAnswerByUnixMs() {
		return kept.GetPermission(), nil // journaled before it was kept
	}
	p.Id, p.PresentedUnixMs, p.IssuedUnixMs, p.AnswerByUnixMs = fresh(idSize), x.Presented.UnixMilli(), x.Now().UnixMilli(), x.answerBy.UnixMilli()
	raw, permission, err := x.sign(envelope.SectorLotPermission, p)
	if len(raw) > maxLotEnvelope {
		err = batch.ErrSectorTooMuch
	}
	if err != nil {
		return nil, err
	}
	e := x.entry(nodepb.Event_FORWARDED)
	e.Member, e.Supplier = string(s.route.Member), &registrypb.NodeRef{Institution: string(s.route.Member)}
	e.PermissionHash, e.Evidence = permission, [][]byte{raw, x.Presentation.GetDemand()}
	e.Lot.Groups = x.groups(s.places, func(int) (nodepb.Status, registrypb.Reason) { return 0, 0 })
	if err := x.journal(ctx, e); err != nil {
		return nil, err
	}
	return raw, x.keep(row(key, &nodepb.KeptPermission{
		Permission: raw, AnswerByUnixMs: p.AnswerByUnixMs, ClearanceHash: hash, PartsHash: what,
	}, x.answerBy.Add(seenMargin)))
}

// name puts into a permission whom it is about.
func (x *chunkResolution) name(p *nodepb.SectorLotPermission, s *share) {
	var numbers []string
	scheme := subject.Scheme(x.Checked.Order.Scheme)
	for i, place := range s.places {
		l := x.lines[place]
		numbers = append(numbers, l.number)
		p.Places = append(p.Places, uint32(place))
		p.Blindings = append(p.Blindings, chunk.Blinding(x.Checked.Clearance.OutlineSeed, place)...)
		c, parts := x.Checked.Groups[l.group], s.parts[i]
		plain := len(l.filedUnder) == 0 && len(parts) == 1 && parts[0].Subject == subject.Raw(scheme, l.number) && parts[0].Period == c.Period &&
			slices.Equal(sorted(parts[0].Qualities), sorted(c.Qualities))
		if !plain {
			p.Routes = append(p.Routes, &nodepb.SectorLotRoute{At: uint32(i), FiledUnder: l.filedUnder, Parts: protoParts(parts)})
		}
	}
	p.Subjects = packed.Of(scheme, numbers)
}

func sorted(q []names.Quality) []names.Quality {
	q = slices.Clone(q)
	slices.Sort(q)
	return q
}

// hashLotParts tells apart what was looked up.
func hashLotParts(p *nodepb.SectorLotPermission) []byte {
	raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(&nodepb.SectorLotPermission{Subjects: p.GetSubjects(), Places: p.GetPlaces(), Routes: p.GetRoutes()})
	return sum(raw)
}

// judge takes an answer into s if the member signed it for this very permission, and if it
// holds permitted fields only.
func (x *chunkResolution) judge(s *share, resp *nodepb.ForwardResponse) {
	a, items, err := x.verify(s, resp)
	if err != nil {
		x.Log.Warn("an answer within the sector does not verify", "peer", s.by.String(), "ticket", string(x.Checked.Order.Ticket), "err", err)
		s.reason, s.detail = registrypb.Reason_SUPPLIER_ERROR, "its answer does not verify"
		return
	}
	s.answer, s.items, s.status, s.commitment = resp.GetAnswer(), items, a.GetStatus(), a.GetCommitment()
	s.reason, s.detail = registrypb.Reason_REASON_UNSPECIFIED, ""
}

func (x *chunkResolution) verify(s *share, resp *nodepb.ForwardResponse) (*nodepb.SectorAnswer, []content.Item, error) {
	a := new(nodepb.SectorAnswer)
	if err := x.open(envelope.SectorLotAnswer, resp.GetAnswer(), s.route.Member, a); err != nil {
		return nil, nil, err
	}
	for what, wrong := range map[string]bool{
		"mesh":       a.GetMesh() != string(x.Mesh),
		"ticket":     a.GetTicket() != string(x.Checked.Order.Ticket),
		"member":     record.NodeID(a.GetMember()) != s.by,
		"permission": !bytes.Equal(a.GetPermissionHash(), sum(s.permission)),
		"content": len(resp.GetBlinding()) != blindingSize || len(a.GetCommitment()) != sha256.Size ||
			!bytes.Equal(a.GetCommitment(), exchange.Commitment(resp.GetBlinding(), resp.GetContent())),
	} {
		if wrong {
			return nil, nil, fmt.Errorf("it is for another %s", what)
		}
	}
	items, err := content.Read(resp.GetContent(), len(s.places))
	for i := 0; i < len(items) && err == nil; i++ {
		switch items[i].Code {
		case content.None, content.Failed:
		case content.Records:
			var n int
			if n, err = exchange.CheckContent(items[i].Records, x.Checked.Groups[x.lines[s.places[i]].group].Fields); err == nil && n == 0 {
				err = errors.New("data, and no record")
			}
		default:
			err = errors.New("an item that no institution of a sector gives")
		}
	}
	if err == nil && summed(items) != a.GetStatus() {
		err = fmt.Errorf("status %s with other items", a.GetStatus())
	}
	return a, items, err
}

// merge gives, for each subject, what merge of its replies gives.
func (x *chunkResolution) merge(shares []*share) []batch.SectorSubject {
	replies := make([][]*reply, len(x.lines))
	for _, s := range shares {
		for i, place := range s.places {
			r := &reply{route: s.route}
			if s.items != nil && s.items[i].Code != content.Failed {
				r.answer = s.answer
				if raw := s.items[i].Records; len(raw) > 0 {
					r.records, _, _ = exchange.ReadContent(raw, x.Checked.Groups[x.lines[place].group].Fields) // it was checked
				}
				if len(s.parts[i]) > 0 {
					r.route.Parts = s.parts[i]
				}
			}
			replies[place] = append(replies[place], r)
		}
	}
	found := make([]batch.SectorSubject, len(x.lines))
	for i, all := range replies {
		slices.SortStableFunc(all, func(a, b *reply) int { return firstDay(a) - firstDay(b) })
		records, ok := merge(all)
		found[i] = batch.SectorSubject{Records: records, Failed: !ok}
	}
	return found
}

// firstDay orders replies as Route orders what it gives for one subject.
func firstDay(r *reply) int {
	if len(r.route.Parts) == 0 {
		return 0
	}
	return int(r.route.Parts[0].Period.From)
}

// conclude journals within the sector what came of it, and gives the seal.
func (x *chunkResolution) conclude(ctx context.Context, shares []*share, found []batch.SectorSubject) ([]byte, error) {
	var entries []*nodepb.Entry
	salt := fresh(32) // it joins them
	for _, s := range shares {
		e := x.entry(nodepb.Event_SECTOR_ANSWERED)
		e.Member, e.Supplier = string(s.route.Member), &registrypb.NodeRef{Institution: string(s.route.Member), Node: string(s.by.Node)}
		e.Status, e.Reason, e.Detail, e.AnswerCommitment, e.SealSalt = s.status, s.reason, s.detail, s.commitment, salt
		if s.permission != nil {
			e.PermissionHash, e.Evidence = sum(s.permission), [][]byte{s.permission}
		}
		if s.answer != nil {
			e.Evidence = append(e.Evidence, s.answer)
		}
		e.Lot.Groups = x.groups(s.places, func(i int) (nodepb.Status, registrypb.Reason) {
			if s.items == nil {
				return nodepb.Status_NO_RESULT, s.reason
			}
			return fate(s.items[i])
		})
		entries = append(entries, e)
	}
	e := x.entry(nodepb.Event_RESOLVED)
	e.PermissionHash, e.SealSalt, e.Outcome = RestsOn(entries), salt, registrypb.Outcome_PERMIT
	every := make([]int, len(x.lines))
	var items []content.Item
	for i, f := range found {
		every[i] = i
		item := content.Item{Code: content.None}
		switch {
		case f.Failed:
			item.Code = content.Unresolved
		case len(f.Records) > 0:
			item.Code = content.Records
		}
		items = append(items, item)
	}
	e.Status = summed(items)
	e.Lot.Groups = x.groups(every, func(i int) (nodepb.Status, registrypb.Reason) { return fate(items[i]) })
	if err := x.journal(ctx, append(entries, e)...); err != nil {
		return nil, err
	}
	return Seal(e), nil
}

// entry begins an entry of the sector's journal about the chunk.
func (x *chunkResolution) entry(event nodepb.Event) *nodepb.Entry {
	c := x.Checked.Clearance
	e := lotEntry(x.Now(), nodepb.Role_MANAGING_BODY, event, x.Checked.Presented, x.From)
	e.ClearanceHash, e.Lot = x.Checked.Hash, &nodepb.LotPart{Chunk: c.Number}
	if z := x.Checked.Groups[0].Authorization; z != nil {
		e.Authorization, e.Deliberation = z.GetId(), z.GetDeliberation()
	}
	return e
}

// groups sorts subjects by how they were cleared and fared; of is called with each one's
// place in places.
func (x *chunkResolution) groups(places []int, of func(int) (nodepb.Status, registrypb.Reason)) []*nodepb.LotSubjects {
	g := &grouping{scheme: subject.Scheme(x.Checked.Order.Scheme)}
	for i, place := range places {
		l := x.lines[place]
		status, reason := of(i)
		g.add(x.Checked.Groups[l.group], l.number, status, reason)
	}
	return g.all()
}
