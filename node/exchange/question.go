package exchange

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Limits on a question.
const (
	maxFields    = 256
	maxSuppliers = 64
	maxNumber    = 64 // bytes, separators included
)

// asked is a question in canonical form.
type asked struct {
	Question
	subject   subject.ID // its number is empty when malformed
	malformed bool       // the number is; nothing else can be once asked
}

// canonical checks the form of q. A number that its scheme refuses is not an
// error: that is answered, and journaled, like any other refusal.
func canonical(q Question, schemes subject.Schemes) (*asked, error) {
	a := &asked{Question: q}
	a.Fields, a.Suppliers = slices.Clone(q.Fields), slices.Clone(q.Suppliers)
	slices.Sort(a.Fields)
	slices.Sort(a.Suppliers)
	a.Fields, a.Suppliers = slices.Compact(a.Fields), slices.Compact(a.Suppliers)

	type part struct {
		field string
		err   error
	}
	parts := []part{
		// Applications and channels are labels like purposes are.
		{"application", names.Purpose(q.Application).Validate()},
		{"user", q.User.Validate()},
		{"channel", names.Purpose(q.Channel).Validate()},
		{"purpose", q.Purpose.Validate()},
		{"dataset", q.Dataset.Validate()},
		{"period", q.Period.Validate()},
		{"fields", tooMany(len(a.Fields), maxFields)},
		{"suppliers", tooMany(len(a.Suppliers), maxSuppliers)},
		{"number", tooMany(len(q.Number), maxNumber)},
	}
	if q.ClientTicket != "" {
		parts = append(parts, part{"client_ticket", q.ClientTicket.Validate()})
	}
	for _, f := range a.Fields {
		parts = append(parts, part{"fields", f.Validate()})
	}
	for _, s := range a.Suppliers {
		parts = append(parts, part{"suppliers", s.Validate()})
	}
	for _, p := range parts {
		if p.err != nil {
			return nil, &QuestionError{Field: p.field, Remedy: p.err.Error()}
		}
	}
	id, err := schemes.Parse(q.Scheme, q.Number)
	switch {
	case errors.Is(err, subject.ErrUnknownScheme):
		return nil, &QuestionError{Field: "scheme", Remedy: err.Error()}
	case err != nil:
		a.malformed, a.subject = true, subject.Raw(q.Scheme, "")
	default:
		a.subject = id
	}
	return a, nil
}

// Canonical checks the form of q, and gives it in canonical form with its subject,
// which is zero when only the number is wrong. The error is a *QuestionError.
func (q Question) Canonical(schemes subject.Schemes) (Question, subject.ID, error) {
	a, err := canonical(q, schemes)
	if err != nil {
		return q, subject.ID{}, err
	}
	if a.malformed {
		return a.Question, subject.ID{}, nil
	}
	return a.Question, a.subject, nil
}

var errTooMany = errors.New("too long")

func tooMany(n, most int) error {
	if n > most {
		return errTooMany
	}
	return nil
}

// Check reports whether a question is one that can be asked, before it is. The error
// wraps ErrBadQuestion.
func (q Question) Check(schemes subject.Schemes) error {
	_, err := canonical(q, schemes)
	return err
}

// bounded gives the context that ends when the consultation is to be concluded.
func (a *asked) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.By.IsZero() {
		return ctx, func() {} // nothing under it outlives who waits
	}
	return context.WithDeadline(ctx, a.By)
}

// hash binds a client ticket to everything that is asked and to who asks.
func (a *asked) hash() []byte {
	h := sha256.New()
	put := func(s string) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	put("crossroads question v1")
	number := a.subject.Number()
	if a.malformed {
		number = a.Number
	}
	for _, s := range []string{a.Application, string(a.User), a.Channel, string(a.Purpose), string(a.Dataset), string(a.Scheme), number} {
		put(s)
	}
	for _, n := range []uint32{a.AuthLevel, uint32(a.Period.From), uint32(a.Period.Until), uint32(len(a.Fields)), uint32(len(a.Suppliers))} {
		h.Write(binary.BigEndian.AppendUint32(nil, n))
	}
	for _, f := range a.Fields {
		put(string(f))
	}
	for _, s := range a.Suppliers {
		put(string(s))
	}
	return h.Sum(nil)
}

// request gives what is signed. A malformed number is left out: such a request
// never leaves the node and serves to give the refusal its ticket.
func (a *asked) request(mesh names.MeshID, self names.NodeID, nowMillis int64) *registrypb.Request {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	return &registrypb.Request{
		Mesh:         string(mesh),
		Nonce:        nonce,
		Requester:    nodeRef(self),
		ClientTicket: string(a.ClientTicket),
		User:         string(a.User),
		Application:  a.Application,
		AuthLevel:    a.AuthLevel,
		Purpose:      string(a.Purpose),
		Mode:         string(names.Consultation),
		Dataset:      string(a.Dataset),
		Fields:       texts(a.Fields),
		Subject:      &registrypb.Subject{Scheme: string(a.subject.Scheme()), Number: a.subject.Number()},
		Period:       &registrypb.Period{From: int32(a.Period.From), Until: int32(a.Period.Until)},
		Suppliers:    texts(a.Suppliers),
		TimeUnixMs:   nowMillis,
		Channel:      a.Channel,
	}
}

func nodeRef(n names.NodeID) *registrypb.NodeRef {
	return &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
}

// texts gives names as the wire has them; none is nil.
func texts[N ~string](list []N) []string {
	var out []string
	for _, n := range list {
		out = append(out, string(n))
	}
	return out
}

// named gives what the wire has as names; none is nil.
func named[N ~string](list []string) []N {
	var out []N
	for _, s := range list {
		out = append(out, N(s))
	}
	return out
}
