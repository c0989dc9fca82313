package exchange

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// requestEntry begins a journal entry with what the request says.
func requestEntry(now time.Time, role nodepb.Role, event nodepb.Event, ticket string, r *registrypb.Request, requestHash []byte) *nodepb.Entry {
	return &nodepb.Entry{
		TimeUnixMs:   now.UnixMilli(),
		Role:         role,
		Event:        event,
		Ticket:       ticket,
		ClientTicket: r.GetClientTicket(),
		Requester:    r.GetRequester(),
		User:         r.GetUser(),
		Application:  r.GetApplication(),
		Channel:      r.GetChannel(),
		Purpose:      r.GetPurpose(),
		Mode:         r.GetMode(),
		Dataset:      r.GetDataset(),
		Fields:       r.GetFields(),
		Subject:      r.GetSubject(),
		Period:       r.GetPeriod(),
		AuthLevel:    r.GetAuthLevel(),
		RequestHash:  requestHash,
	}
}

// addClearance adds what a clearance says. The fields are then the permitted ones.
func addClearance(e *nodepb.Entry, c *registrypb.Clearance, clearanceHash []byte) {
	e.Outcome = registrypb.Outcome_PERMIT
	e.Supplier = &registrypb.NodeRef{Institution: c.GetSupplier()}
	e.Clearer = c.GetClearer()
	e.Fields = c.GetFields()
	e.Withheld = c.GetWithheld()
	e.Authorization = c.GetAuthorization()
	e.ClearanceId = c.GetId()
	e.ClearanceHash = clearanceHash
	e.RegistryIndex = c.GetRegistryIndex()
	e.PresentByUnixMs = c.GetPresentByUnixMs()
	e.Mandate = c.GetMandate()
}

// addDeliberation names the decision behind the entry's authorization, when this
// node's view still knows it. It is for readers only, so failing to find it is no
// reason to refuse.
func addDeliberation(e *nodepb.Entry, r Registry) {
	if e.Authorization == "" {
		return
	}
	_ = r.View(func(v record.View) error {
		a, err := v.Remembering().Authorization(names.AuthorizationID(e.Authorization))
		if err == nil && a != nil {
			e.Deliberation = a.GetDeliberation()
		}
		return err
	})
}

// commitment is what journals keep of an answer's content.
func commitment(blinding, content []byte) []byte {
	h := sha256.New()
	h.Write(blinding)
	h.Write(content)
	return h.Sum(nil)
}

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

// appendAll makes all entries durable, at the same time so that they share syncs.
func appendAll(ctx context.Context, j Journal, entries ...*nodepb.Entry) error {
	if len(entries) == 1 {
		return appendOne(ctx, j, entries[0])
	}
	steps := make([]func() error, len(entries))
	for i, e := range entries {
		steps[i] = func() error { return appendOne(ctx, j, e) }
	}
	return together(steps...)
}

// together takes steps at the same time and gives an error of one that failed, once
// all have ended.
func together(steps ...func() error) error {
	if len(steps) == 0 {
		return nil
	}
	errs := make(chan error, len(steps))
	for _, step := range steps[1:] {
		go func() { errs <- step() }()
	}
	first := steps[0]()
	for range steps[1:] {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// maxDetail is the longest detail that a journal takes, in bytes.
const maxDetail = 200

// tidy makes a detail what a journal takes: short, and without the number of anybody
// that the entry is about, however it came there.
func tidy(e *nodepb.Entry) {
	for _, s := range append([]*registrypb.Subject{e.Subject}, e.AlsoSubjects...) {
		if n := s.GetNumber(); n != "" {
			e.Detail = strings.ReplaceAll(e.Detail, n, "***")
		}
	}
	if len(e.Detail) > maxDetail {
		e.Detail = e.Detail[:maxDetail-len("...")] + "..."
	}
	e.Detail = strings.ToValidUTF8(e.Detail, "")
}

func appendOne(ctx context.Context, j Journal, e *nodepb.Entry) error {
	tidy(e)
	if _, err := j.Append(ctx, e); err != nil {
		return fmt.Errorf("%w: %w", ErrJournalUnavailable, err)
	}
	return nil
}
