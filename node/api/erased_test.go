package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/journal"
)

// erasing is a journal of which one month was erased.
type erasing struct{ *fakes }

func (erasing) Erasures(from, until time.Time) []*journal.Erasure {
	return []*journal.Erasure{{Period: "2016-03", Time: time.Unix(1_780_000_000, 0), Reason: "journal.retention of 120 months", Who: "retention"}}
}

// TestErasedMonthsAreTold: whoever may search learns that something is missing because it
// was erased; whoever may not learns nothing of the journal.
func TestErasedMonthsAreTold(t *testing.T) {
	f := new(fakes)
	f.entries = append(f.entries, ownEntry())
	s, _ := newServer(t, f, func(c *Config) { c.Journal = erasing{f} })
	const says = "2016-03 was erased on 2026-05-28 under journal.retention of 120 months by retention"
	w := ask(s, "POST", "/v1/journal/search", `{"user":"alice"}`, bearer("ops-token")...)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), says) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = ask(s, "GET", "/v1/journal?ticket="+string(aTicket), "", bearer("file-token")...)
	if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "erased") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
