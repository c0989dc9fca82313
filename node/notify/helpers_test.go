package notify

import (
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
)

func recordtestPerson(n int) string { return recordtest.Person(n) }

// fullInbox has no room.
type fullInbox struct{ Inbox }

func (fullInbox) Room(int) error { return inbox.ErrFull }
