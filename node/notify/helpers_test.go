package notify

import (
	"google.golang.org/protobuf/proto"
	"sync/atomic"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func recordtestPerson(n int) string { return recordtest.Person(n) }

// fullInbox has no room while it is full.
type fullInbox struct {
	Inbox
	full atomic.Bool
}

func (f *fullInbox) Room(n int) error {
	if f.full.Load() {
		return inbox.ErrFull
	}
	return f.Inbox.Room(n)
}

// recipientOf reads whom a clearance claims to be for.
func recipientOf(raw []byte) names.InstitutionID {
	c := new(registrypb.NotificationClearance)
	if opened, err := envelope.Open(envelope.NotificationClearance, raw); err != nil || proto.Unmarshal(opened.Payload, c) != nil {
		return ""
	}
	return names.InstitutionID(c.Recipient)
}
