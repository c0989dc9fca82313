package inbox

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

type journal struct{}

func (journal) Append(context.Context, *nodepb.Entry) (uint64, error) { return 0, nil }

func (journal) AppendAll(context.Context, []*nodepb.Entry) error { return nil }

var ann, annNow, bob = subject.Raw(subject.SSIN, "74471238128"), subject.Raw(subject.SSIN, "74071238186"), subject.Raw(subject.SSIN, "85073003328")

func open(t *testing.T, dir string, consumers ...Consumer) (*Inbox, func()) {
	t.Helper()
	store, err := outbox.Open(outbox.Config{Dir: dir, StorageKey: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(Config{Store: store, Journal: journal{}, Consumers: consumers})
	if err != nil {
		t.Fatal(err)
	}
	return b, func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

func put(t *testing.T, b *Inbox, ticket names.Ticket, i Item) {
	t.Helper()
	i.Ticket, i.Kind, i.Received = ticket, Notification, time.Now()
	if err := b.Put([]*Item{&i}); err != nil {
		t.Fatal(err)
	}
}

// take gives what can be had now.
func take(t *testing.T, b *Inbox, consumer string) []Taken {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := b.Take(ctx, consumer, Want{Max: 10, Visibility: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func tickets(taken []Taken) (s string) {
	for _, x := range taken {
		s += string(x.Ticket) + " "
	}
	return s
}

func ack(t *testing.T, b *Inbox, consumer string, x Taken) error {
	t.Helper()
	return b.Acknowledge(t.Context(), Taker{Consumer: consumer}, []Receipt{{x.ID, x.Lease}})
}

// About one subject one item is in hand, in order, under old and new number alike; what is
// not acknowledged in time, held longer or given back is given again, and only then.
func TestOrderAndVisibility(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, end := open(t, t.TempDir(), Consumer{Name: "a"})
		defer end()
		put(t, b, "t1", Item{Subject: ann, Current: ann})
		put(t, b, "t2", Item{Subject: annNow, Current: annNow, KnownAs: []subject.ID{ann}}) // replaced meanwhile
		put(t, b, "t3", Item{Subject: bob, Current: bob})
		put(t, b, "t4", Item{Subject: annNow, Current: annNow})
		first := take(t, b, "a")
		if tickets(first) != "t1 t3 " || tickets(take(t, b, "a")) != "" {
			t.Fatalf("took %s", tickets(first))
		}
		if err := b.Hold("a", Receipt{first[0].ID, first[0].Lease}, time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if got := tickets(take(t, b, "a")); got != "t3 " { // t1 is held
			t.Errorf("took %s", got)
		}
		if err := ack(t, b, "a", first[1]); !errors.Is(err, ErrNotTaken) {
			t.Errorf("an old lease acknowledges: %v", err)
		}
		if err := ack(t, b, "a", first[0]); err != nil {
			t.Fatal(err)
		}
		second := take(t, b, "a")
		if tickets(second) != "t2 " {
			t.Fatalf("took %s", tickets(second))
		}
		if err := b.Release("a", Receipt{second[0].ID, second[0].Lease}); err != nil {
			t.Fatal(err)
		}
		if got := take(t, b, "a"); tickets(got) != "t2 " || got[0].Lease == second[0].Lease {
			t.Errorf("took %s", tickets(got))
		}
	})
}

// Each consumer has its own place, of what it wants alone; a restart forgets none of it,
// and no id is used twice, so that nothing is taken for acknowledged that never was.
func TestConsumersAndRestart(t *testing.T) {
	dir := t.TempDir()
	wants := func(i Item) bool { return i.Dataset == "address/v1" && i.Purpose == "moving" }
	all := []Consumer{{Name: "a"}, {Name: "b", Wants: wants}}
	b, end := open(t, dir, all...)
	put(t, b, "t1", Item{Subject: ann, Current: ann, Dataset: "address/v1", Purpose: "moving"})
	put(t, b, "t2", Item{Subject: bob, Current: bob, Dataset: "address/v1", Purpose: "other"})
	if got := tickets(take(t, b, "b")); got != "t1 " {
		t.Errorf("b took %s", got)
	}
	used := map[uint64]bool{}
	for _, x := range take(t, b, "a") {
		used[x.ID] = true
		if err := ack(t, b, "a", x); err != nil {
			t.Fatal(err)
		}
	}
	end()
	b, end = open(t, dir, all...)
	if got := tickets(take(t, b, "a")); got != "" {
		t.Errorf("a was given again %s", got)
	}
	got := take(t, b, "b")
	if tickets(got) != "t1 " {
		t.Fatalf("b took %s", tickets(got))
	}
	if err := ack(t, b, "b", got[0]); err != nil {
		t.Fatal(err)
	}
	end()
	b, end = open(t, dir, all...)
	defer end()
	put(t, b, "t3", Item{Subject: ann, Current: ann})
	if got := take(t, b, "a"); tickets(got) != "t3 " || used[got[0].ID] {
		t.Errorf("took %s as %v", tickets(got), got)
	}
}
