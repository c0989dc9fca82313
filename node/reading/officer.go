package reading

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// MaxFound is the most entries that one search gives.
const MaxFound = 10_000

// Search is what a security officer looks for. What is left empty does not narrow it.
type Search struct {
	User    names.UserID
	From    time.Time // inclusive
	Until   time.Time // exclusive
	Dataset names.DatasetID
	Purpose names.Purpose
	// Outcome is a code of an outcome, status or reason: PERMIT, DENY,
	// NO_DATA_FOUND, NOT_INTEGRATED ...
	Outcome string
	Limit   int // 1 to MaxFound
}

// Found is what a search brought, the newest first.
type Found struct {
	Entries []journal.Stored
	More    bool // there are more than were asked for, or than one search looks at
}

// Search gives what the users that an officer oversees did at this node. The error
// wraps ErrNoRight or ErrJournal.
func (s *Service) Search(ctx context.Context, who Reader, q Search) (*Found, error) {
	if err := s.oversees(ctx, who, q.User, "search"); err != nil {
		return nil, err
	}
	found := new(Found)
	more, err := s.scan(ctx, who, q, func(e journal.Stored) bool {
		if len(found.Entries) >= q.Limit {
			return false
		}
		found.Entries = append(found.Entries, e)
		return true
	})
	found.More = more
	return found, err
}

// oversees journals that an officer looks, and refuses whoever is none or asks about
// a user who is not his. What he searches by is his, and not kept.
func (s *Service) oversees(ctx context.Context, who Reader, user names.UserID, what string) error {
	e := s.by(s.reading(purposeOversight), who)
	e.Detail = what
	if user != "" {
		e.Detail = clip(what+" of "+string(user), journal.MaxDetail)
	}
	var refused error
	switch {
	case !who.Officer:
		refused = errors.New("the application is no security officer's: " + what)
	case user != "" && !who.mayOversee(string(user)):
		refused = fmt.Errorf("the officer does not oversee %s", user)
	}
	return s.note(ctx, e, refused)
}

// mayOversee reports whether a user is among those that the officer oversees.
func (r Reader) mayOversee(user string) bool {
	for _, o := range r.Oversees {
		if prefix, ok := strings.CutSuffix(o, "*"); o == user || ok && strings.HasPrefix(user, prefix) {
			return true
		}
	}
	return len(r.Oversees) == 0
}

// scan gives fn what the officer's users did, the newest first, until fn returns
// false. more: it did not come to the end.
func (s *Service) scan(ctx context.Context, who Reader, q Search, fn func(journal.Stored) bool) (more bool, err error) {
	all := journal.Query{User: q.User, Requester: s.cfg.Self.Institution, From: q.From, Until: q.Until}
	return s.pages(ctx, all, func(e journal.Stored) bool {
		return !q.matches(e.Entry) || !who.mayOversee(e.Entry.GetUser()) || fn(e)
	})
}

func (q Search) matches(e *nodepb.Entry) bool {
	return (q.Dataset == "" || e.GetDataset() == string(q.Dataset)) &&
		(q.Purpose == "" || e.GetPurpose() == string(q.Purpose)) &&
		(q.Outcome == "" || e.GetOutcome().String() == q.Outcome || e.GetStatus().String() == q.Outcome || e.GetReason().String() == q.Outcome)
}
