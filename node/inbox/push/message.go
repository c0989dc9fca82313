package push

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Message is an item on its way. The same item makes the same bytes each time.
type Message struct {
	// Key tells items apart, for ever and across nodes: what comes under a key that was
	// accepted is the same item again.
	Key  string
	Body []byte // JSON; personal data
}

// body is a subset of what POST /v1/inbox/take gives of an item, in the same words: a
// lease is nothing for a system that is sent the item.
type body struct {
	ID           uint64              `json:"id"`
	Kind         string              `json:"kind"`
	Ticket       names.Ticket        `json:"ticket"`
	From         names.InstitutionID `json:"from"`
	Dataset      names.DatasetID     `json:"dataset,omitempty"`
	Purpose      names.Purpose       `json:"purpose,omitempty"`
	Subject      *number             `json:"subject,omitempty"`
	Current      *number             `json:"current,omitempty"`
	FiledUnder   []number            `json:"filed_under,omitempty"`
	Period       *names.Period       `json:"period,omitempty"`
	Fields       []names.FieldName   `json:"fields,omitempty"`
	Change       string              `json:"change,omitempty"`
	RefersTo     names.Ticket        `json:"refers_to,omitempty"`
	CausedBy     names.Ticket        `json:"caused_by,omitempty"`
	Status       string              `json:"status,omitempty"`
	ClientTicket names.ClientTicket  `json:"client_ticket,omitempty"`
	Replayed     bool                `json:"replayed,omitempty"`
	Received     time.Time           `json:"received"`
	Records      json.RawMessage     `json:"records,omitempty"`
}

type number struct {
	Scheme string `json:"scheme"`
	Number string `json:"number"`
}

var changes = map[registrypb.Change]string{
	registrypb.Change_CHANGED: "CHANGED", registrypb.Change_CORRECTED: "CORRECTED", registrypb.Change_CANCELLED_CHANGE: "CANCELLED",
}

func messageOf(self names.NodeID, i inbox.Item) (Message, error) {
	b := body{
		ID: i.ID, Kind: i.Kind.String(), Ticket: i.Ticket, From: i.From, Dataset: i.Dataset, Purpose: i.Purpose, Fields: i.Fields,
		Change: changes[i.Change], RefersTo: i.RefersTo, CausedBy: i.CausedBy, Status: i.Status, ClientTicket: i.ClientTicket,
		Replayed: i.Replayed, Received: i.Received.UTC(), Records: i.Content,
	}
	if !i.Subject.IsZero() {
		b.Subject = wire(i.Subject)
	}
	if !i.Current.IsZero() && i.Current != i.Subject {
		b.Current = wire(i.Current)
	}
	for _, id := range i.FiledUnder {
		b.FiledUnder = append(b.FiledUnder, *wire(id))
	}
	if i.Period != (names.Period{}) {
		b.Period = &i.Period
	}
	raw, err := json.Marshal(b)
	if err != nil { // its text could quote the content
		return Message{}, errors.New("the item cannot be written as JSON")
	}
	return Message{Key: fmt.Sprintf("%s/%d", self, i.ID), Body: raw}, nil
}

func wire(id subject.ID) *number { return &number{string(id.Scheme()), id.Number()} }
