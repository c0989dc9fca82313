package api

import (
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// The bodies of what a managing body's people do with the sector directory and the
// sector's journal.

// SectorMembers are the cooperating institutions of a sector.
type SectorMembers struct {
	Members []SectorMember `json:"members"`
}

// SectorMember is a cooperating institution, and the days on which it is one.
type SectorMember struct {
	Institution names.InstitutionID `json:"institution"`
	Period      names.Period        `json:"period"`
}

// SectorReference says that a cooperating institution has a file on a subject.
type SectorReference struct {
	Subject     Subject             `json:"subject"`
	Institution names.InstitutionID `json:"institution"`
	Quality     names.Quality       `json:"quality"`
	Period      names.Period        `json:"period"`
}

// SectorChange adds a reference, or takes exactly that one away.
type SectorChange struct {
	SectorReference
	Remove bool `json:"remove,omitempty"`
}

// SectorChanges are made all together or not at all; removals count first.
type SectorChanges struct {
	Changes []SectorChange `json:"changes"` // 1 to 1000
}

// SectorReferences is what the sector directory has on a subject, and what the registry
// of the mesh is to say of it.
type SectorReferences struct {
	References []SectorReference `json:"references"`
	Outline    []Reference       `json:"outline"`
}

// SectorReplacement says that a number was replaced by another.
type SectorReplacement struct {
	Number    Subject `json:"number"`
	Successor Subject `json:"successor"`
}

// SectorStory is what happened within the sector under one ticket.
type SectorStory struct {
	Ticket     names.Ticket  `json:"ticket"`
	Consistent bool          `json:"consistent"`
	Findings   []string      `json:"findings"`
	Entries    []SectorEntry `json:"entries"`
	Text       string        `json:"text"` // for people
}

// SectorEntry is an entry of the sector's journal, and whose.
type SectorEntry struct {
	Node string `json:"node,omitempty"` // institution/node
	JournalEntry
}

// SectorSearch is what an officer looks for in the sector's journal.
type SectorSearch struct {
	Pseudonym string       `json:"pseudonym,omitempty"` // under which a user stood outside
	User      names.UserID `json:"user,omitempty"`
	Subject   *Subject     `json:"subject,omitempty"`
	From      *time.Time   `json:"from,omitempty"`
	Until     *time.Time   `json:"until,omitempty"`
	Limit     int          `json:"limit,omitempty"` // 1 to 10000; 0: 1000
}

// SectorFound is what a search brought, newest first.
type SectorFound struct {
	Items []SectorEntry `json:"items"`
}

// SectorView is what a subject sees of itself within the sector.
type SectorView struct {
	References []SectorReference `json:"references"`
	Entries    []SectorEntry     `json:"entries"`
}
