package push_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	adapter "github.com/crossroads-mesh/crossroads/adapters/push"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
)

// TestBroker hands items to a RabbitMQ that is killed in between, that has no queue for
// them, that knows no such exchange or user.
func TestBroker(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: it starts a broker")
	}
	r := newRabbit(t)
	r.queue("cases")
	r.queue("lives")
	r.restart()
	t.Run("delivered", r.delivered)
	t.Run("killed", r.killed)
	t.Run("no queue", r.noQueue)
	t.Run("refused", r.refused)
}

// arrived checks what lies in a queue: each item at least once, and of each only the
// first counted in order for each subject.
func arrived(t *testing.T, all []amqp.Delivery, want int) {
	t.Helper()
	bodies, last := map[string]string{}, map[string]string{}
	for _, d := range all {
		var b struct {
			Subject struct{ Number string }
			Ticket  string
		}
		if err := json.Unmarshal(d.Body, &b); err != nil || d.DeliveryMode != amqp.Persistent || d.ContentType != "application/json" || !strings.HasPrefix(d.MessageId, "fpd/n1/") {
			t.Fatalf("%+v, %v", d, err)
		}
		if before, again := bodies[d.MessageId]; again {
			if before != string(d.Body) {
				t.Errorf("another form of %s", d.MessageId)
			}
			continue
		}
		if bodies[d.MessageId] = string(d.Body); last[b.Subject.Number] >= b.Ticket {
			t.Errorf("%s after %s", b.Ticket, last[b.Subject.Number])
		}
		last[b.Subject.Number] = b.Ticket
	}
	if len(bodies) != want {
		t.Errorf("%d different items, want %d", len(bodies), want)
	}
}

func (r *rabbit) delivered(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	h := open(t, t.TempDir(), config.Push{URL: r.url, RoutingKey: "cases"})
	for i := range 20 {
		h.put(ann, fmt.Sprintf("a%02d", i))
		h.put(bob, fmt.Sprintf("b%02d", i))
	}
	h.until("all taken", h.empty)
	h.end()
	if h.journal.taken != 40 {
		t.Errorf("%d journaled", h.journal.taken)
	}
	if all := r.take("cases"); len(all) != 40 {
		t.Errorf("%d messages", len(all))
	} else {
		arrived(t, all, 40)
	}
}

// What the broker has confirmed outlives it; what it has not is sent again.
func (r *rabbit) killed(t *testing.T) {
	h := open(t, t.TempDir(), config.Push{URL: r.url, RoutingKey: "lives"})
	for i := range 200 {
		h.put(ann, fmt.Sprintf("a%03d", i))
		h.put(bob, fmt.Sprintf("b%03d", i))
	}
	h.until("some taken", func() bool { return h.pusher.Status().Delivered > 50 })
	r.kill()
	h.until("noticed", func() bool { return h.pusher.Status().Failures > 0 })
	if h.empty() {
		t.Fatal("all was taken before the broker was killed: the test shows nothing")
	}
	r.start()
	h.pusher.Resume()
	h.until("all taken", func() bool { h.pusher.Resume(); return h.empty() })
	h.end()
	arrived(t, r.take("lives"), 400)
}

// A message for which nobody has a queue comes back, and is not taken.
func (r *rabbit) noQueue(t *testing.T) {
	h := open(t, t.TempDir(), config.Push{URL: r.url, RoutingKey: "nobodys", AtOnce: 1})
	h.put(ann, "a1")
	h.until("paused", func() bool { return h.pusher.Status().Paused })
	if st := h.pusher.Status(); !strings.Contains(st.Why, "routing_key") || h.empty() {
		t.Errorf("%+v", st)
	}
	r.queue("nobodys")
	h.pusher.Resume()
	h.until("taken", h.empty)
	arrived(t, r.take("nobodys"), 1)
}

func (r *rabbit) refused(t *testing.T) {
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, []byte("guest:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, cfg := range map[string]config.Push{
		"credentials":  {URL: r.url, RoutingKey: "cases", CredentialsFile: wrong},
		"exchange":     {URL: r.url, Exchange: "nowhere", RoutingKey: "cases"},
		"virtual host": {URL: r.url + "nowhere", RoutingKey: "cases"},
	} {
		b, err := adapter.OpenBroker(cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = b.Push(t.Context(), push.Message{Key: "fpd/n1/1", Body: []byte("{}")})
		if !errors.Is(err, push.ErrMisconfigured) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", what, err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("%s: close: %v", what, err)
		}
	}
}

func TestOpenBroker(t *testing.T) {
	for text, ok := range map[string]bool{"user:pass:word\n": true, "user:": true, "user": false, ":x": false, "": false, "a:b\nc:d": false} {
		file := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := adapter.OpenBroker(config.Push{URL: "amqps://broker/v", RoutingKey: "q", CredentialsFile: file}); (err == nil) != ok || err != nil && !errors.Is(err, adapter.ErrConfig) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for url, ok := range map[string]bool{"amqps://broker/v": true, "amqps://a:b@broker/v": false, "amqps://broker/v?heartbeat=1": false, "amqps:": false} {
		if _, err := adapter.OpenBroker(config.Push{URL: url, RoutingKey: "q"}); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
	}
}
