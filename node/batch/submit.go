package batch

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch/lines"
	"github.com/crossroads-mesh/crossroads/node/batch/spool"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Submit reads the file to its end, keeps it, and gives the lot with its voucher. Handing in
// the same file with the same question under one client ticket is handing it in once.
//
// The error wraps exchange.ErrBadQuestion, lines.ErrFormat, ErrEmpty, ErrTooLarge,
// ErrTooMany, ErrTicketReused or ErrUnavailable, or is the reader's; nothing is kept then.
func (c *Consultant) Submit(ctx context.Context, q Question, file io.Reader) (*Lot, error) {
	if q.ClientTicket == "" {
		q.ClientTicket = names.ClientTicket(rand.Text())
	}
	if err := q.check(c.cfg.Schemes); err != nil {
		return nil, err
	}
	release, err := c.naming.acquire(ctx, q.Application+"\x00"+string(q.ClientTicket))
	if err != nil {
		return nil, err
	}
	defer release()
	before, err := c.cfg.Outbox.Get(nameKey(q.Application, string(q.ClientTicket)))
	switch {
	case err == nil:
		return c.sameAgain(q, names.Ticket(before), file)
	case !errors.Is(err, outbox.ErrNotFound):
		return nil, fmt.Errorf("%w: outbox: %w", ErrUnavailable, err)
	}
	if n := len(c.List(q.Application)); n >= c.cfg.MaxOpen {
		return nil, fmt.Errorf("%w: %d that are not acknowledged", ErrTooMany, n)
	}
	id := make([]byte, 16)
	rand.Read(id)
	in := &intake{c: c, q: q, files: hex.EncodeToString(id), blinding: fresh(), chunkLines: c.cfg.ChunkLines}
	in.hash = sha256.New()
	in.hash.Write(in.blinding)
	if err := in.spool(ctx, file); err != nil {
		return nil, err
	}
	l, err := c.order(ctx, in)
	if err != nil {
		_ = c.cfg.Spool.Remove(in.files + ".") // else a stray at the next start
	}
	return l, err
}

func fresh() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}

// check insists on the form of everything but the file.
func (q *Question) check(schemes subject.Schemes) error {
	q.Fields, q.Suppliers = slices.Clone(q.Fields), slices.Clone(q.Suppliers)
	slices.Sort(q.Fields)
	slices.Sort(q.Suppliers)
	q.Fields, q.Suppliers = slices.Compact(q.Fields), slices.Compact(q.Suppliers)
	type part struct {
		field string
		err   error
	}
	parts := []part{
		{"application", names.Purpose(q.Application).Validate()}, {"user", q.User.Validate()}, {"channel", names.Purpose(q.Channel).Validate()},
		{"purpose", q.Purpose.Validate()}, {"dataset", q.Dataset.Validate()}, {"period", q.Period.Validate()}, {"client_ticket", q.ClientTicket.Validate()},
	}
	for _, f := range q.Fields {
		parts = append(parts, part{"fields", f.Validate()})
	}
	for _, s := range q.Suppliers {
		parts = append(parts, part{"suppliers", s.Validate()})
	}
	if len(q.Fields) > maxFields || len(q.Suppliers) > maxSuppliers {
		parts = append(parts, part{"fields", errors.New("too many fields or suppliers")})
	}
	if _, ok := schemes[q.Scheme]; !ok {
		parts = append(parts, part{"scheme", errors.New("want one this mesh knows, as ssin, cbe or nsso")})
	}
	for _, p := range parts {
		if p.err != nil {
			return &exchange.QuestionError{Field: p.field, Remedy: p.err.Error()}
		}
	}
	return nil
}

const (
	maxFields    = 256
	maxSuppliers = 64
)

// intake is a file being read in. Its goroutine owns it.
type intake struct {
	c        *Consultant
	q        Question
	files    string
	blinding []byte
	hash     hash.Hash

	chunkLines int

	lines    uint64
	subjects uint64
	chunks   int
}

// read gives the lines of a file by the block, numbers in canonical form.
func (in *intake) read(ctx context.Context, file io.Reader, block func(*nodepb.InputBlock) error) error {
	r, err := lines.NewReader(file, in.q.Format)
	if err != nil {
		return err
	}
	b := new(nodepb.InputBlock)
	flush := func() error {
		in.hash.Write(marshalled(b))
		err := block(b)
		b = new(nodepb.InputBlock)
		return err
	}
	for {
		l, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if in.lines++; in.lines > in.c.cfg.MaxLines {
			return fmt.Errorf("%w: more than %d lines", ErrTooLarge, in.c.cfg.MaxLines)
		}
		k := &nodepb.InputLine{Reference: l.Reference}
		if id, err := in.c.cfg.Schemes.Parse(in.q.Scheme, l.Number); err == nil && !l.Bad {
			k.Number = id.Number()
		}
		if b.Lines = append(b.Lines, k); len(b.Lines) == in.chunkLines {
			if err := errors.Join(ctx.Err(), flush()); err != nil {
				return err
			}
		}
	}
	if in.lines == 0 {
		return ErrEmpty
	}
	if len(b.Lines) > 0 {
		return flush()
	}
	return nil
}

// spool writes the file and finds its twins.
func (in *intake) spool(ctx context.Context, file io.Reader) (err error) {
	w, err := in.c.cfg.Spool.Create(inputName(in.files))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	twins := in.c.cfg.Spool.Twins(in.files + ".twins")
	defer func() {
		if cerr := twins.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("%w: %w", ErrUnavailable, cerr)
		}
		if err != nil {
			w.Abort()
		}
	}()
	line := uint32(0)
	err = in.read(ctx, file, func(b *nodepb.InputBlock) error {
		for _, l := range b.Lines {
			if l.Number != "" {
				in.subjects++
				if err := twins.Add(line, l.Number); err != nil {
					return fmt.Errorf("%w: %w", ErrUnavailable, err)
				}
			}
			line++
		}
		in.chunks++
		if err := w.Frame(marshalled(b)); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return in.c.cfg.Gate.Pass(ctx)
	})
	if err != nil {
		return err
	}
	all, err := twins.All()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	in.subjects -= uint64(len(all))
	t := new(nodepb.Twins)
	for _, twin := range all {
		t.Lines, t.First = append(t.Lines, twin.Line), append(t.First, twin.First)
	}
	if err := w.Frame(marshalled(t)); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := w.Commit(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// order signs the order, keeps and journals the lot, and only then gives the voucher.
func (c *Consultant) order(ctx context.Context, in *intake) (*Lot, error) {
	now := c.cfg.Now()
	nonce := make([]byte, 16)
	rand.Read(nonce)
	q := in.q
	payload, err := proto.Marshal(&registrypb.LotOrder{
		Mesh: string(c.cfg.Mesh), Nonce: nonce, Requester: nodeRef(c.cfg.Self), ClientTicket: string(q.ClientTicket), User: string(q.User),
		Application: q.Application, AuthLevel: q.AuthLevel, Channel: q.Channel, Purpose: string(q.Purpose), Dataset: string(q.Dataset),
		Fields: texts(q.Fields), Period: &registrypb.Period{From: int32(q.Period.From), Until: int32(q.Period.Until)}, Suppliers: texts(q.Suppliers),
		Scheme: string(q.Scheme), TimeUnixMs: now.UnixMilli(), Lines: in.lines, LinesCommitment: in.hash.Sum(nil),
	})
	if err != nil {
		return nil, err
	}
	signed, err := envelope.Sign(envelope.LotOrder, payload, c.cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("sign the order: %w", err)
	}
	l, err := c.take(&nodepb.KeptLot{
		Order: signed, QuestionHash: q.hash(), State: nodepb.LotState_LOT_RUNNING, Subjects: in.subjects, Chunks: uint32(in.chunks),
		Done: make([]byte, (in.chunks+7)/8), Files: in.files, Blinding: in.blinding, ChunkLines: uint32(c.cfg.ChunkLines),
	})
	if err != nil {
		return nil, err
	}
	e := orderEntry(now, nodepb.Role_CONSULTANT, nodepb.Event_LOT_SUBMITTED, l.Order)
	e.Evidence = [][]byte{signed}
	e.Lot = &nodepb.LotPart{Lines: in.lines, Subjects: in.subjects}
	if err := appendEntry(ctx, c.cfg.Journal, e); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	name := outbox.Change{Key: nameKey(l.Application, l.ClientTicket), Value: []byte(l.Ticket)}
	if err := c.keep(l, name); err != nil {
		return nil, err
	}
	c.lots[l.Ticket], c.turn = l, append(c.turn, l.Ticket)
	c.nudge()
	return c.show(l), nil
}

// hash binds a client ticket to everything that is asked, the file aside, and to who asks.
func (q *Question) hash() []byte {
	h := sha256.New()
	fmt.Fprintf(h, "crossroads lot v1\n%q %q %q %q %q %q %d %d %d\n%q\n%q\n", q.Application, q.User, q.Channel, q.Purpose, q.Dataset, q.Scheme,
		q.AuthLevel, q.Period.From, q.Period.Until, q.Fields, q.Suppliers)
	return h.Sum(nil)
}

// sameAgain gives the lot that a client ticket stands for, if this is the same.
func (c *Consultant) sameAgain(q Question, voucher names.Ticket, file io.Reader) (*Lot, error) {
	k, err := c.load(voucher)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(k.QuestionHash, q.hash()) {
		return nil, ErrTicketReused
	}
	in := &intake{c: c, q: q, chunkLines: int(k.ChunkLines)} // the commitment is by the block
	in.hash = sha256.New()
	in.hash.Write(k.Blinding)
	if err := in.read(context.Background(), file, func(*nodepb.InputBlock) error { return nil }); err != nil {
		return nil, err
	}
	o := new(registrypb.LotOrder)
	opened, err := envelope.Open(envelope.LotOrder, k.Order)
	if err == nil {
		err = proto.Unmarshal(opened.Payload, o)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, spool.ErrDamaged)
	}
	if !slices.Equal(o.LinesCommitment, in.hash.Sum(nil)) {
		return nil, ErrTicketReused
	}
	return c.Status(q.Application, voucher)
}
