package api

import (
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// The bodies of what subjects, officers and the committee ask. What they are
// answered is in package reading.

// SubjectPeriod is the time that a subject wants to see; what is left out stands for
// the last six months.
type SubjectPeriod struct {
	From  *time.Time `json:"from,omitempty"`
	Until *time.Time `json:"until,omitempty"`
}

// SubjectToken is a token that an identity provider made for a challenge.
type SubjectToken struct {
	Token []byte `json:"token"` // base64
}

// InspectionOrder is an order that the committee signed.
type InspectionOrder struct {
	Order []byte `json:"order"` // base64
}

// OfficerSearch is what a security officer looks for. What is left out does not
// narrow the search.
type OfficerSearch struct {
	User    names.UserID    `json:"user,omitempty"`
	From    *time.Time      `json:"from,omitempty"`
	Until   *time.Time      `json:"until,omitempty"`
	Dataset names.DatasetID `json:"dataset,omitempty"`
	Purpose names.Purpose   `json:"purpose,omitempty"`
	// Outcome is a code of an outcome, status or reason: DENY, NO_DATA_FOUND ...
	Outcome string `json:"outcome,omitempty"`
	Limit   int    `json:"limit,omitempty"` // 1 to 10000; 0: 1000
}

// OfficerFound is what a search brought, newest first.
type OfficerFound struct {
	Items []JournalEntry `json:"items"`
	More  bool           `json:"more,omitempty"` // there are more
}

// OfficerReport says what counts as unusual; what is left out takes its default.
type OfficerReport struct {
	From     *time.Time `json:"from,omitempty"`     // 30 days before until
	Until    *time.Time `json:"until,omitempty"`    // now
	Zone     string     `json:"zone,omitempty"`     // of the working day: UTC
	Begins   string     `json:"begins,omitempty"`   // 07:00
	Ends     string     `json:"ends,omitempty"`     // 19:00
	Weekends bool       `json:"weekends,omitempty"` // they are working days too
	Volume   float64    `json:"volume,omitempty"`   // times the median of all users: 3
	Repeated int        `json:"repeated,omitempty"` // questions of one user about one person: 5
}
