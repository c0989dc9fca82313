package notify

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Limits on a change.
const (
	MaxRecord = 64 << 10 // bytes
	maxFields = 256
	maxNumber = 64 // bytes, separators included
)

// change is a Change in canonical form.
type change struct {
	Change
	subject   subject.ID // its number is empty when malformed
	malformed bool
}

// canonical checks the form of c.
func (p *Publisher) canonical(c Change) (*change, error) {
	a := &change{Change: c}
	bad := func(field, remedy string) error { return &exchange.QuestionError{Field: field, Remedy: remedy} }
	if a.Kind == registrypb.Change_CHANGE_UNSPECIFIED {
		a.Kind = registrypb.Change_CHANGED
	}
	type part struct {
		field string
		err   error
	}
	parts := []part{
		{"application", names.Purpose(c.Application).Validate()},
		{"user", c.User.Validate()},
		{"channel", names.Purpose(c.Channel).Validate()},
		{"dataset", c.Dataset.Validate()},
		{"period", c.Period.Validate()},
		{"client_ticket", c.ClientTicket.Validate()},
	}
	for _, t := range []struct {
		field  string
		ticket names.Ticket
	}{{"refers_to", c.RefersTo}, {"caused_by", c.CausedBy}} {
		if t.ticket != "" {
			parts = append(parts, part{t.field, t.ticket.Validate()})
		}
	}
	if c.Purpose != "" {
		parts = append(parts, part{"purpose", c.Purpose.Validate()})
	}
	for _, x := range parts {
		if x.err != nil {
			return nil, bad(x.field, x.err.Error())
		}
	}
	switch {
	case (a.Kind == registrypb.Change_CHANGED) != (a.RefersTo == ""):
		return nil, bad("refers_to", "a correction or cancellation names the ticket of what it corrects; a change names none")
	case len(c.Number) > maxNumber:
		return nil, bad("number", "longer than any number")
	case len(c.Record) == 0 || len(c.Record) > MaxRecord:
		return nil, bad("record", fmt.Sprintf("send one JSON object of at most %d bytes", MaxRecord))
	}
	held, err := exchange.FieldsOf(c.Record)
	if err != nil {
		return nil, bad("record", "send one JSON object that names no field twice")
	}
	if len(a.Fields) == 0 {
		if slices.ContainsFunc(held, func(f names.FieldName) bool { return f.Validate() != nil }) {
			return nil, bad("record", "it has a field whose name no dataset's field can have: leave it out, or write it as the schema does")
		}
		a.Fields = held
	}
	a.Fields = slices.Clone(a.Fields)
	slices.Sort(a.Fields)
	a.Fields = slices.Compact(a.Fields)
	if len(a.Fields) == 0 || len(a.Fields) > maxFields {
		return nil, bad("fields", fmt.Sprintf("a change has 1 to %d fields", maxFields))
	}
	for _, f := range a.Fields {
		if err := f.Validate(); err != nil || !slices.Contains(held, f) {
			return nil, bad("fields", "name fields that the record holds")
		}
	}
	id, err := p.cfg.Schemes.Parse(c.Scheme, c.Number)
	switch {
	case errors.Is(err, subject.ErrUnknownScheme):
		return nil, bad("scheme", err.Error())
	case err != nil:
		a.malformed, a.subject = true, subject.Raw(c.Scheme, "")
	default:
		a.subject = id
	}
	return a, nil
}

// hash binds a client ticket to everything that is published and by whom.
func (a *change) hash() []byte {
	h := sha256.New()
	put := func(s string) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	number := a.subject.Number()
	if a.malformed {
		number = a.Number
	}
	for _, s := range []string{"crossroads change v1", a.Application, string(a.User), a.Channel, string(a.Dataset), string(a.Scheme), number,
		string(a.RefersTo), string(a.CausedBy), string(a.Purpose), string(a.Record), strings.Join(texts(a.Fields), " ")} {
		put(s)
	}
	for _, n := range []uint32{a.AuthLevel, uint32(a.Period.From), uint32(a.Period.Until), uint32(a.Kind)} {
		h.Write(binary.BigEndian.AppendUint32(nil, n))
	}
	return h.Sum(nil)
}

// publication gives what is signed.
func (a *change) publication(mesh names.MeshID, self names.NodeID, nowMillis int64) *registrypb.Publication {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	mode := ""
	if a.Purpose != "" {
		mode = string(names.Submission)
	}
	return &registrypb.Publication{
		Mode: mode, Purpose: string(a.Purpose),
		Mesh: string(mesh), Nonce: nonce, Publisher: nodeRef(self), ClientTicket: string(a.ClientTicket), User: string(a.User),
		Application: a.Application, AuthLevel: a.AuthLevel, Channel: a.Channel, Dataset: string(a.Dataset), Fields: texts(a.Fields),
		Subject: wireSubject(a.subject), Period: &registrypb.Period{From: int32(a.Period.From), Until: int32(a.Period.Until)},
		Change: a.Kind, RefersTo: string(a.RefersTo), CausedBy: string(a.CausedBy), TimeUnixMs: nowMillis,
	}
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }
