package batch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/node/batch/pace"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// inBubble plays a world whose time is the bubble's, today.
func inBubble(t *testing.T, persons int, play func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)))
		play(t, newWorld(t, persons))
	})
}

// working lets a node work on its lots until the test ends.
func (n *testNode) working(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = n.consultant.Run(ctx) })
	t.Cleanup(func() { cancel(); all.Wait() })
}

func (n *testNode) status(t *testing.T, voucher names.Ticket) *Lot {
	t.Helper()
	l, err := n.consultant.Status("billing", voucher)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A lot that is paused ends what is under way and begins nothing, however long; resumed, it
// goes on; cancelled, the rest of its lines say so and nobody was asked about them.
func TestPauseResumeCancel(t *testing.T) {
	const n = 200
	inBubble(t, n, func(t *testing.T, w *world) {
		pcsa := w.nodes["pcsa"]
		pcsa.consultant.cfg.AtOnce = 1
		under, goOn := make(chan int, 4), make(chan struct{})
		var asked atomic.Int32
		w.spoil(func(c call) error {
			if c.method == "clear" {
				under <- int(asked.Add(1))
				<-goOn
			}
			return nil
		}, nil)
		l := w.submit(question("inquiry"), file(0, n))
		pcsa.working(t)
		stands := func(state nodepb.LotState, done uint64, clears int32) {
			t.Helper()
			synctest.Wait()
			time.Sleep(time.Hour)
			if s := pcsa.status(t, l.Voucher); s.State != state || s.Done != done || asked.Load() != clears {
				t.Fatalf("%s, %d done, %d asked, want %s, %d, %d", s.State, s.Done, asked.Load(), state, done, clears)
			}
		}
		<-under
		if _, err := pcsa.consultant.Pause("billing", l.Voucher); err != nil {
			t.Fatal(err)
		}
		if _, err := pcsa.consultant.Pause("other", l.Voucher); !errors.Is(err, ErrNotFound) {
			t.Errorf("another application pauses it: %v", err)
		}
		goOn <- struct{}{}
		stands(nodepb.LotState_LOT_PAUSED, 50, 1)
		if _, err := pcsa.consultant.Resume("billing", l.Voucher); err != nil {
			t.Fatal(err)
		}
		<-under
		goOn <- struct{}{}
		<-under // the third chunk
		if s := pcsa.status(t, l.Voucher); s.State != nodepb.LotState_LOT_RUNNING || s.Done != 100 {
			t.Fatalf("resumed: %s, %d done", s.State, s.Done)
		}
		if _, err := pcsa.consultant.Cancel("billing", l.Voucher); err != nil {
			t.Fatal(err)
		}
		goOn <- struct{}{}
		stands(nodepb.LotState_LOT_CANCELLED, 150, 3)
		if _, err := pcsa.consultant.Resume("billing", l.Voucher); !errors.Is(err, ErrState) {
			t.Errorf("a cancelled lot is resumed: %v", err)
		}
		if pcsa.status(t, l.Voucher).Ended.IsZero() {
			t.Fatal("it has not ended")
		}
		got := pcsa.results(l.Voucher)
		for i, line := range got {
			if cancelled := line.Reason == registrypb.Reason_LOT_CANCELLED; cancelled != (i >= 150) {
				t.Fatalf("line %d: %v", i+1, line.ResultLine)
			}
		}
		for i, p := range personsOf(n) {
			if most := w.nodes["office"].source.times(p); most > 1 || i >= 150 && most > 0 {
				t.Errorf("person %d was asked about %d times", i, most)
			}
		}
		if e := pcsa.entries(l.Voucher, nodepb.Event_LOT_ENDED); len(e) != 1 || e[0].Reason != registrypb.Reason_LOT_CANCELLED {
			t.Errorf("its end: %v", e)
		}
	})
}

func (s *source) times(number string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[number]
}

// A supplier whose system cannot answer about so many is asked in halves, until it can;
// the others' answers stay, and each subject has one account.
func TestAskedInHalves(t *testing.T) {
	const n, most = 48, 5
	w := newWorld(t, n)
	pcsa, office := w.nodes["pcsa"], w.nodes["office"]
	large := exchange.Record(fmt.Sprintf(`{"entitled":true,"wage":1,"note":%q}`, strings.Repeat("n", 900<<10)))
	w.authorize("demo-note", "notes", "note")
	office.source.hook = func(exchange.Query) ([]exchange.Record, error, bool) { return []exchange.Record{large}, nil, true }
	l := w.submit(question("notes"), file(0, n))
	got := pcsa.run(l.Voucher)
	for i, line := range got {
		if (i%3 != 2 && i%10 != 9) != slices.ContainsFunc(line.Parts, func(p *nodepb.ResultPart) bool {
			return p.Supplier == "office" && p.Status == nodepb.Status_DATA_FOUND && len(p.Records) > 900<<10
		}) {
			t.Fatalf("line %d: %s %s, %d parts", i+1, line.Status, line.Reason, len(line.Parts))
		}
	}
	for who, event := range map[string]nodepb.Event{"office": nodepb.Event_SUPPLIED, "fund": nodepb.Event_SUPPLIED} {
		for p, k := range subjectsIn(w.nodes[who].entries(l.Voucher, event), personsOf(n)) {
			if k != 1 {
				t.Errorf("%s stands %d times in %s of %s", p, k, event, who)
			}
		}
	}
	for _, e := range office.entries(l.Voucher, nodepb.Event_SUPPLIED) {
		if k := len(subjectsIn([]*nodepb.Entry{e}, personsOf(n))); k > most {
			t.Errorf("%d subjects in one answer of %d MB", k, k)
		}
	}
	refused := office.entries(l.Voucher, nodepb.Event_REFUSED)
	for _, e := range refused {
		if e.Reason != registrypb.Reason_CHUNK_TOO_LARGE {
			t.Errorf("refused: %s", e.Reason)
		}
	}
	// 48 lines, of whom it has some 29: 29, 15, 8 are too many, 4 are not.
	if len(refused) < 3 || len(refused) > 7 {
		t.Errorf("%d times too large", len(refused))
	}
	if w.nodes["fund"].source.most() != 1 {
		t.Error("who could answer was asked again")
	}
}

// What a lot may not be, and when it may not run.
func TestLimits(t *testing.T) {
	const n = 60
	inBubble(t, n, func(t *testing.T, w *world) {
		pcsa, office := w.nodes["pcsa"], w.nodes["office"]
		c := pcsa.consultant
		submit := func(q Question, in string) (*Lot, error) { return c.Submit(t.Context(), q, strings.NewReader(in)) }
		c.cfg.MaxLines = n
		if _, err := submit(question("inquiry"), file(0, n, recordtest.Person(0))); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a line too many: %v", err)
		}
		if _, err := submit(question("inquiry"), "number,ref\n"); !errors.Is(err, ErrEmpty) {
			t.Errorf("no line: %v", err)
		}
		if all, err := c.cfg.Spool.List(); err != nil || len(all) != 0 {
			t.Errorf("what was refused is kept: %v, %v", all, err)
		}
		// A quota at the supplier and at every clearing peer: chunks of 50 subjects, 60 in a
		// lot, one each second.
		office.supplier.cfg.Quota = pace.NewQuota(1, 30)
		for _, m := range members {
			w.nodes[m].decisions.Quota = pace.NewQuota(1, 40)
		}
		c.cfg.MaxOpen = 2
		begun := time.Now()
		first, err := submit(question("inquiry"), file(0, n))
		if err != nil {
			t.Fatal(err)
		}
		c.cfg.Window = pace.Window{From: 20 * time.Hour, Until: 22 * time.Hour} // it is noon
		pcsa.working(t)
		if _, err := submit(question("tariff"), file(0, n)); err != nil {
			t.Fatal(err)
		}
		if _, err := submit(question("tariff"), file(0, n)); !errors.Is(err, ErrTooMany) {
			t.Errorf("a third lot: %v", err)
		}
		time.Sleep(7*time.Hour + 59*time.Minute)
		synctest.Wait()
		if s := pcsa.status(t, first.Voucher); s.Done != 0 || s.Waits == "" {
			t.Errorf("before the window opens: %d done, it waits for %q", s.Done, s.Waits)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		s := pcsa.status(t, first.Voucher)
		if s.Done != n || s.State != nodepb.LotState_LOT_DONE {
			t.Fatalf("%s, %d done, it waits for %q", s.State, s.Done, s.Waits)
		}
		if open := begun.Add(8 * time.Hour); s.Ended.Before(open.Add(5 * time.Second)) {
			t.Errorf("it ended %v after the window opened: no quota held it back", s.Ended.Sub(open))
		}
		for _, line := range pcsa.results(first.Voucher) {
			if line.Reason == registrypb.Reason_CLEARING_UNAVAILABLE || line.Reason == registrypb.Reason_SUPPLIER_UNAVAILABLE {
				t.Fatalf("who was busy counts as away: %v", line.ResultLine)
			}
		}
		if err := c.Acknowledge("billing", first.Voucher); err != nil {
			t.Fatal(err)
		}
		if _, err := submit(question("tariff"), file(0, n)); err != nil {
			t.Errorf("one was acknowledged: %v", err)
		}
	})
}

// However busy the nodes are with what goes first, a lot ends: it waits no longer than its
// clearances last.
func TestBusyWithOthers(t *testing.T) {
	const n = 700
	inBubble(t, n, func(t *testing.T, w *world) {
		pcsa := w.nodes["pcsa"]
		pcsa.consultant.cfg.ChunkLines = n
		for _, node := range w.nodes {
			g := &pace.Gate{Patience: bounds.PresentLife / 2}
			node.supplier.cfg.Gate = g
			node.passing.Store(g)
			g.Enter() // and never leaves
		}
		begun := time.Now()
		for i, line := range pcsa.run(w.submit(question("tariff"), file(0, n)).Voucher) {
			switch line.Reason {
			case registrypb.Reason_CLEARANCE_EXPIRED, registrypb.Reason_SUPPLIER_UNAVAILABLE, registrypb.Reason_CLEARING_UNAVAILABLE:
				t.Fatalf("line %d: %v", i+1, line.ResultLine)
			}
		}
		if took := time.Since(begun); took < bounds.PresentLife/2 {
			t.Errorf("it took %v: nothing went first", took)
		}
	})
}

// A file in the folder is handed in once it is whole, once; its result is written whole; what
// cannot be handed in lies beside the reason.
func TestDropFolder(t *testing.T) {
	const n = 20
	inBubble(t, n, func(t *testing.T, w *world) {
		pcsa, dir := w.nodes["pcsa"], filepath.Join(t.TempDir(), "drop")
		cfg := config.Drop{Dir: dir, Application: "billing", User: "clerk-7", AuthLevel: 3, Purpose: "inquiry", Dataset: "status/v1", Days: 400, Number: "number", Reference: "ref"}
		var log bytes.Buffer
		newDrop := func() *Drop {
			d, err := NewDrop(pcsa.consultant, cfg, w.now, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		d := newDrop()
		look := func(times int) {
			t.Helper()
			for range times {
				if err := d.look(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		put := func(name, text string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		in := func(folder string) (found []string) {
			t.Helper()
			all, err := os.ReadDir(filepath.Join(dir, folder))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range all {
				if !e.IsDir() {
					found = append(found, e.Name())
				}
			}
			return found
		}
		put("customers.csv.part", file(0, n))
		put("growing.csv", file(0, 5))
		put("wrong.csv", "name,ref\nno numbers,1\n")
		look(1)
		put("growing.csv", file(0, 7))
		look(1)
		if l := pcsa.consultant.List("billing"); len(l) != 0 {
			t.Fatalf("handed in while it grew, or in part: %+v", l[0])
		}
		look(1)
		if l := pcsa.consultant.List("billing"); len(l) != 1 || l[0].Lines != 7 {
			t.Fatalf("%d lots", len(l))
		}
		refused := in(dropRefused)
		if len(refused) != 2 || !strings.HasSuffix(refused[0], "wrong.csv") || refused[1] != refused[0]+".why.txt" {
			t.Fatalf("refused: %v", refused)
		}
		why, err := os.ReadFile(filepath.Join(dir, dropRefused, refused[1]))
		if err != nil || len(why) < 10 {
			t.Errorf("why: %q, %v", why, err)
		}
		// It died after it handed a file in and before it moved it.
		if err := os.Rename(filepath.Join(dir, "customers.csv.part"), filepath.Join(dir, "customers.csv")); err != nil {
			t.Fatal(err)
		}
		at, err := os.Stat(filepath.Join(dir, "customers.csv"))
		if err != nil {
			t.Fatal(err)
		}
		look(2)
		taken := in(dropTaken)
		moved := taken[slices.IndexFunc(taken, func(s string) bool { return strings.HasSuffix(s, "-customers.csv") })]
		back := filepath.Join(dir, "customers.csv")
		if err := errors.Join(os.Rename(filepath.Join(dir, dropTaken, moved), back), os.Chtimes(back, at.ModTime(), at.ModTime())); err != nil {
			t.Fatal(err)
		}
		d = newDrop()
		look(2)
		all := pcsa.consultant.List("billing")
		if len(all) != 2 || len(in("")) != 0 {
			t.Fatalf("handed in twice: %d lots, left %v", len(all), in(""))
		}
		if len(in(dropResults)) != 0 {
			t.Errorf("results before their time: %v", in(dropResults))
		}
		pcsa.working(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		look(1)
		for _, l := range all {
			text, err := os.ReadFile(filepath.Join(dir, dropResults, string(l.Voucher)+".csv"))
			if err != nil || strings.Count(string(text), "\n") != int(l.Lines)+1 || !strings.Contains(string(text), recordtest.Person(3)) {
				t.Errorf("the result of %d lines: %d bytes, %v", l.Lines, len(text), err)
			}
		}
		if l := pcsa.consultant.List("billing"); len(l) != 0 {
			t.Errorf("%d lots are not acknowledged", len(l))
		}
		look(1)
		if k := len(in(dropResults)); k != 2 {
			t.Errorf("%d results", k)
		}
		for _, p := range personsOf(n) {
			if strings.Contains(log.String(), p) || strings.Contains(string(why), p) {
				t.Error("the log, or a reason, names a subject")
			}
		}
	})
}
