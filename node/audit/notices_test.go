package audit

import (
	"context"
	"crypto/sha256"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// subscribed has the office told of changes at wages.
func (m *mesh) subscribed() *mesh {
	always := &registrypb.Period{Until: int32(names.Forever)}
	m.do(m.w.Command(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
		Id: "n-1", Deliberation: "DEMO-2024/018", RequesterType: "pcsa", RequesterQualities: []string{"client"}, Dataset: "wages/v1",
		Fields: []string{"gross"}, Purpose: "follow-up", Modes: []string{"notification"}, Period: always}}))
	m.do(m.w.Command("office", &registrypb.Command_SetSubscription{SetSubscription: &registrypb.Subscription{
		Institution: "office", Dataset: "wages/v1", Purpose: "follow-up", Qualities: []string{"client"}, Period: always}}))
	return m
}

// published is a publication by wages, with its hash and the beginning of an entry on it.
func (m *mesh) published(person string) (raw []byte, entry func(nodepb.Event, ...[]byte) *nodepb.Entry) {
	now := time.Now().UnixMilli()
	raw = m.sign(envelope.Publication, &registrypb.Publication{
		Mesh: string(recordtest.Mesh), Nonce: make([]byte, 16), Publisher: ref("wages"), User: "u-2", Dataset: "wages/v1", Fields: []string{"gross"},
		Subject: recordtest.SSIN(person), Period: &registrypb.Period{From: 18900, Until: 19100}, Change: registrypb.Change_CHANGED, TimeUnixMs: now,
	}, "wages")
	hash := sha256.Sum256(raw)
	return raw, func(event nodepb.Event, evidence ...[]byte) *nodepb.Entry {
		return &nodepb.Entry{TimeUnixMs: now, Ticket: string(names.TicketOf(raw)), Event: event, RequestHash: hash[:], Evidence: evidence}
	}
}

// toldUnder is alpha's clearance of it for the office.
func (m *mesh) toldUnder(publication []byte, person string) []byte {
	hash := sha256.Sum256(publication)
	return m.sign(envelope.NotificationClearance, &registrypb.NotificationClearance{
		Mesh: string(recordtest.Mesh), Id: hash[:16], Ticket: string(names.TicketOf(publication)), Clearer: ref("alpha"), Publisher: ref("wages"), Recipient: "office",
		PublicationHash: hash[:], Subject: recordtest.SSIN(person), Dataset: "wages/v1", Fields: []string{"gross"}, Purpose: "follow-up", Authorization: "n-1",
		Qualities: []string{"client"}, PublisherQualities: []string{"employee"}, RegistryIndex: m.index, IssuedUnixMs: time.Now().UnixMilli(),
	}, "alpha")
}

// saidNobody is alpha's decision that nobody is to be told of it.
func (m *mesh) saidNobody(publication []byte) []byte {
	hash := sha256.Sum256(publication)
	return m.sign(envelope.NotificationDecision, &registrypb.Decision{
		Mesh: string(recordtest.Mesh), Ticket: string(names.TicketOf(publication)), Clearer: ref("alpha"), Requester: ref("wages"), RequestHash: hash[:],
		Outcome: registrypb.Outcome_PERMIT, RegistryIndex: m.index, TimeUnixMs: time.Now().UnixMilli(),
	}, "alpha")
}

// TestNoticesAreSampled: who was told hands over what it was told under, a publisher what
// silenced it; the peer that had it told what it must not, or kept silent, is named.
func TestNoticesAreSampled(t *testing.T) {
	for name, tt := range map[string]struct {
		self string
		act  func(m *mesh, person string)
		// right and wrong are the persons with whom it is that.
		right, wrong, says string
	}{
		"told": {"office", func(m *mesh, person string) {
			raw, entry := m.published(person)
			_, _ = m.Append(m.t.Context(), entry(nodepb.Event_NOTICE_RECEIVED, raw, m.toldUnder(raw, person), []byte("notice")))
		}, known, foreign, "office was not to be told"},
		"silent": {"wages", func(m *mesh, person string) {
			raw, entry := m.published(person)
			_, _ = m.Append(m.t.Context(), entry(nodepb.Event_PUBLISHED, raw))
			_, _ = m.Append(m.t.Context(), entry(nodepb.Event_ADDRESSED, m.saidNobody(raw)))
		}, foreign, known, "somebody was"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t).subscribed()
				a := m.auditor(tt.self, func(c *Config) { c.Every = time.Second })
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- a.Run(ctx) }()
				tt.act(m, tt.right)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if c := a.Counts(); c.Examined != 1 || c.Wrong != 0 {
					t.Errorf("an honest peer: %+v, %+v", c, a.Findings())
				}
				tt.act(m, tt.wrong)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if f := a.Findings(); len(f) != 1 || f[0].Clearer != "alpha/n1" || !strings.Contains(f[0].Says, tt.says) || len(f[0].Against) != 3 {
					t.Errorf("%+v", f)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
