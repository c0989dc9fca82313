package push_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	adapter "github.com/crossroads-mesh/crossroads/adapters/push"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/inbox"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	ann = "74071238186"
	bob = "85073003328"
)

// journal counts what was taken, and refuses while it is told to.
type journal struct {
	mu    sync.Mutex
	taken int
	down  bool
}

func (j *journal) Append(_ context.Context, e *nodepb.Entry) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.down {
		return 0, errors.New("disk full")
	}
	if e.Event == nodepb.Event_TAKEN && e.Channel == "push" {
		j.taken++
	}
	return 0, nil
}

func (j *journal) AppendAll(ctx context.Context, entries []*nodepb.Entry) error {
	for _, e := range entries {
		if _, err := j.Append(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) set(down bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.down = down
}

// sent is one POST as the service saw it.
type sent struct {
	key, body, token, number string
	seq                      string
}

// service is the institution's system.
type service struct {
	*httptest.Server
	mu    sync.Mutex
	all   []sent
	reply func(n int, s sent, w http.ResponseWriter) // n from 1
}

func newService(t *testing.T, reply func(n int, s sent, w http.ResponseWriter)) *service {
	s := &service{reply: reply}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var b struct {
			Subject struct{ Number string }
			Ticket  string
		}
		if err := json.Unmarshal(raw, &b); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v %v", r.Method, r.Header, err)
		}
		got := sent{key: r.Header.Get("Idempotency-Key"), body: string(raw), token: r.Header.Get("Authorization"), number: b.Subject.Number, seq: b.Ticket}
		s.mu.Lock()
		s.all = append(s.all, got)
		n := len(s.all)
		s.mu.Unlock()
		if s.reply != nil {
			s.reply(n, got, w)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) got() []sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// house is a node's inbox with one pusher.
type house struct {
	t       *testing.T
	dir     string
	store   *outbox.Outbox
	box     *inbox.Inbox
	journal *journal
	log     strings.Builder
	pusher  *push.Pusher
	end     func()
}

func open(t *testing.T, dir string, cfg config.Push) *house {
	t.Helper()
	h := &house{t: t, dir: dir, journal: new(journal)}
	var err error
	if h.store, err = outbox.Open(outbox.Config{Dir: dir, StorageKey: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	if h.box, err = inbox.Open(inbox.Config{Self: self, Store: h.store, Journal: h.journal, Consumers: []inbox.Consumer{{Name: "cases"}}}); err != nil {
		t.Fatal(err)
	}
	target, err := openTarget(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.pusher = push.New(push.Config{Consumer: "cases", Self: self, Inbox: h.box, Target: target, Timeout: cfg.Timeout, AtOnce: cfg.AtOnce,
		Log: slog.New(slog.NewTextHandler(&h.log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.pusher.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	h.end = sync.OnceFunc(func() {
		cancel()
		<-done // every worker has ended: the log may be read
		target.Close()
		h.store.Close()
		if text := h.log.String(); strings.Contains(text, ann) || strings.Contains(text, bob) {
			t.Errorf("the log names somebody:\n%s", text)
		}
	})
	t.Cleanup(h.end)
	return h
}

func openTarget(cfg config.Push) (interface {
	push.Target
	io.Closer
}, error) {
	if cfg.Broker() {
		return adapter.OpenBroker(cfg)
	}
	return adapter.Open(cfg)
}

var self = names.NodeID{Institution: "fpd", Node: "n1"}

func (h *house) put(number, ticket string) {
	h.t.Helper()
	i := &inbox.Item{Kind: inbox.Notification, Ticket: names.Ticket(ticket), From: "register", Dataset: "address/v1", Subject: subject.Raw(subject.SSIN, number),
		Content: json.RawMessage(`[{"street":"Kouter"}]`), Received: time.Now()}
	i.Current = i.Subject
	if err := h.box.Put([]*inbox.Item{i}); err != nil {
		h.t.Fatal(err)
	}
}

// patience is how long a test waits before it calls what it waits for hung.
const patience = 5 * time.Minute

// until waits for something that only other goroutines bring about.
func (h *house) until(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("never: %s; %+v", what, h.pusher.Status())
		}
	}
}

func (h *house) empty() bool {
	n, _, err := h.box.Waiting("cases")
	return err == nil && n == 0
}

// Items go out once each, in order for each subject, with headers of the file; each is
// journaled as taken.
func TestPush(t *testing.T) {
	s := newService(t, nil)
	headers := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(headers, []byte("# ours\nAuthorization: Bearer secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := open(t, t.TempDir(), config.Push{URL: s.URL + "/items", HeadersFile: headers})
	for i := range 20 {
		h.put(ann, fmt.Sprintf("a%02d", i))
		h.put(bob, fmt.Sprintf("b%02d", i))
	}
	h.until("all taken", h.empty)
	all, keys := s.got(), map[string]bool{}
	last := map[string]string{}
	for _, x := range all {
		if x.token != "Bearer secret" || keys[x.key] || last[x.number] >= x.seq {
			t.Errorf("%s after %s, key %s, token %q", x.seq, last[x.number], x.key, x.token)
		}
		keys[x.key], last[x.number] = true, x.seq
	}
	if len(all) != 40 || h.journal.taken != 40 || h.pusher.Status().Delivered != 40 {
		t.Errorf("%d sent, %d journaled", len(all), h.journal.taken)
	}
}

// What ends between the POST and the acknowledgement has the same item sent again: the
// same key and bytes, also after a restart, and never that key for another item.
func TestSameKeyAgain(t *testing.T) {
	s := newService(t, nil)
	dir, cfg := t.TempDir(), config.Push{URL: s.URL}
	h := open(t, dir, cfg)
	h.journal.set(true)
	h.put(ann, "t1")
	h.until("sent twice", func() bool { return len(s.got()) >= 2 })
	h.end()
	before := len(s.got())
	h = open(t, dir, cfg)
	h.until("taken", h.empty)
	all := s.got()
	if len(all) != before+1 {
		t.Errorf("%d sent, then %d", before, len(all))
	}
	for _, x := range all {
		if x.key != all[0].key || x.body != all[0].body {
			t.Errorf("another form of the same item: %+v", x)
		}
	}
	h.end()
	h = open(t, dir, cfg) // nothing is left to count on from
	h.put(ann, "t2")
	h.until("taken", h.empty)
	if again := s.got(); again[len(again)-1].key == all[0].key {
		t.Error("two items under one key")
	}
}

// A service that fails, is busy or slow is tried again, one item at a time, and nothing
// overtakes what it did not take.
func TestFailing(t *testing.T) {
	var busy time.Time
	s := newService(t, func(n int, x sent, w http.ResponseWriter) {
		switch n {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			busy = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case 3:
			if early := time.Since(busy); early < time.Second {
				t.Errorf("asked again after %v, and not after 1 s", early)
			}
			time.Sleep(300 * time.Millisecond) // longer than the timeout
		}
	})
	h := open(t, t.TempDir(), config.Push{URL: s.URL, Timeout: 100 * time.Millisecond, AtOnce: 1})
	h.put(ann, "t1")
	h.put(ann, "t2")
	h.until("all taken", h.empty)
	var order []string
	for _, x := range s.got() {
		order = append(order, x.seq)
	}
	if i := slices.Index(order, "t2"); i < 3 || slices.Contains(order[i:], "t1") {
		t.Errorf("sent as %v", order)
	}
	if st := h.pusher.Status(); st.Failures != 0 || len(st.Trouble) != 0 {
		t.Errorf("%+v", st)
	}
}

// A refused item is set aside and holds back its subject alone; Resume sends it again.
func TestRefused(t *testing.T) {
	var mu sync.Mutex
	mended := false
	s := newService(t, func(_ int, x sent, w http.ResponseWriter) {
		mu.Lock()
		defer mu.Unlock()
		if x.seq == "a1" && !mended {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	})
	h := open(t, t.TempDir(), config.Push{URL: s.URL})
	h.put(ann, "a1")
	h.put(ann, "a2")
	h.put(bob, "b1")
	h.until("set aside, and the other delivered", func() bool { st := h.pusher.Status(); return st.Refused == 1 && st.Delivered == 1 })
	st := h.pusher.Status()
	if len(st.Trouble) != 1 || st.Trouble[0].Ticket != "a1" || st.Trouble[0].Attempts != 1 || st.Failures != 0 || !strings.Contains(st.Trouble[0].Why, "422") {
		t.Errorf("%+v", st)
	}
	mu.Lock()
	mended = true
	mu.Unlock()
	if n := h.pusher.Resume(); n != 1 {
		t.Errorf("%d resumed", n)
	}
	h.until("all taken", h.empty)
	if all := s.got(); len(all) != 4 || all[2].seq != "a1" || all[3].seq != "a2" {
		t.Errorf("%+v", all)
	}
}

// A service that accepts nothing is left alone until somebody says so; redirects are not
// followed.
func TestPaused(t *testing.T) {
	for _, code := range []int{http.StatusUnauthorized, http.StatusTemporaryRedirect} {
		elsewhere := newService(t, nil)
		s := newService(t, func(n int, _ sent, w http.ResponseWriter) {
			if n == 1 {
				w.Header().Set("Location", elsewhere.URL)
				w.WriteHeader(code)
			}
		})
		h := open(t, t.TempDir(), config.Push{URL: s.URL, AtOnce: 1})
		h.put(ann, "a1")
		h.put(bob, "b1")
		h.until("paused", func() bool { return h.pusher.Status().Paused })
		if st := h.pusher.Status(); time.Until(st.Next) < push.PauseFor-time.Minute || len(s.got()) != 1 || !strings.Contains(st.Why, fmt.Sprint(code)) {
			t.Errorf("%+v, %d sent", st, len(s.got()))
		}
		h.pusher.Resume()
		h.until("all taken", h.empty)
		if len(elsewhere.got()) > 0 {
			t.Error("it was sent elsewhere")
		}
	}
}

// A node that stops breaks off what is under way, and loses nothing.
func TestStoppedWhilePushing(t *testing.T) {
	begun, free := make(chan struct{}), make(chan struct{})
	s := newService(t, func(n int, _ sent, w http.ResponseWriter) {
		if n == 1 {
			close(begun)
			<-free
		}
	})
	dir, cfg := t.TempDir(), config.Push{URL: s.URL}
	h := open(t, dir, cfg)
	h.put(ann, "t1")
	<-begun
	h.end()
	close(free)
	h = open(t, dir, cfg)
	h.until("taken", h.empty)
	if all := s.got(); len(all) != 2 || all[0].key != all[1].key {
		t.Errorf("%+v", all)
	}
}

// Certificates are believed of ca_file alone, and headers files are checked.
func TestOpen(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	target, err := adapter.Open(config.Push{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Push(t.Context(), push.Message{Key: "k", Body: []byte("{}")}); err == nil {
		t.Error("a certificate of nobody known is believed")
	}
	for text, ok := range map[string]bool{"": true, "X-A: b\n\n# c": true, "X-A b": false, "X-A:": false, "Idempotency-Key: x": false, "X A: b": false, "X-A: b\x01": false} {
		file := filepath.Join(t.TempDir(), "h")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := adapter.Open(config.Push{URL: s.URL, HeadersFile: file}); (err == nil) != ok || err != nil && !errors.Is(err, adapter.ErrConfig) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
