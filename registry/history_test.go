package registry

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

// truth is an honest history, and what a leader vouches for after each of its commands.
type truth struct {
	world  *recordtest.World
	events []*registrypb.WatchEvent // index i*2+1; the even ones hold nothing to see
	grants []*registrypb.Grant
}

func newTruth(t testing.TB) *truth {
	w := recordtest.New(t, "alpha", "beta", "gamma")
	set := func(id string, yes bool) []byte {
		return w.Command(record.Operators, &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: id, Suspended: yes}})
	}
	commands := [][]byte{
		w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa"}),
		w.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")}),
		w.Command("alpha", &registrypb.Command_SetNode{SetNode: recordtest.Node("alpha", "n2")}),
		w.Admit(&registrypb.Institution{Id: "register", Type: "register"}),
		w.Command("beta", &registrypb.Command_SetNode{SetNode: recordtest.Node("beta", "n2")}),
		set("office", true), set("office", false), set("office", true),
	}
	tr := &truth{world: w}
	s := memory(t, w.Rules)
	for i, c := range commands {
		e := &registrypb.WatchEvent{Index: uint64(2*i + 1), Envelope: c}
		tr.events = append(tr.events, e)
		if err := s.ApplyAccepted([]store.Entry{entryOf(e), {Index: e.Index + 1}}); err != nil {
			t.Fatal(err)
		}
		g := &registrypb.Grant{CommitIndex: s.AppliedIndex()}
		if err := s.View(func(v record.View) error {
			p, err := v.PublicPast()
			g.PublicIndex, g.PublicHash = p.Index, p.Hash
			return err
		}); err != nil {
			t.Fatal(err)
		}
		tr.grants = append(tr.grants, g)
	}
	return tr
}

func memory(t testing.TB, rules *record.Rules) *store.Store {
	s, err := store.Open(badgerdb.Config{}, rules)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// publicOf gives the public commands up to index.
func publicOf(t *rapid.T, s *store.Store, upTo uint64) (commands []record.Command) {
	if err := s.View(func(v record.View) error {
		return v.Commands(0, func(index uint64, envelope []byte) error {
			if index <= upTo {
				commands = append(commands, record.Command{Index: index, Envelope: envelope})
			}
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return commands
}

// Whatever a lying member sends, in whatever order: a grant is agreed with only by a
// follower that holds exactly the public commands up to it. And a follower to whom
// nobody lied agrees with every grant, however far it is ahead.
func TestGrantIsAgreedWithOnlyByWhoHoldsItsHistory(t *testing.T) {
	t.Parallel()
	truth := newTruth(t)
	liar := names.NodeID{Institution: "beta", Node: "n1"}
	rapid.Check(t, func(t *rapid.T) {
		s, err := store.Open(badgerdb.Config{}, truth.world.Rules)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		r := &Registry{cfg: Config{Log: slog.New(slog.DiscardHandler)}, store: s}
		honest := true
		for i := 0; i < len(truth.events); i++ {
			e := truth.events[i]
			sent := &registrypb.WatchEvent{Index: e.Index, Envelope: e.Envelope}
			lie := rapid.SampledFrom([]string{"", "", "", "", "leave out", "move", "progress", "beyond all", "swap", "resign"}).Draw(t, "lie")
			switch lie {
			case "leave out":
				sent.Envelope = nil
			case "move":
				sent.Index += uint64(rapid.IntRange(1, 5).Draw(t, "by"))
			case "progress":
				sent = &registrypb.WatchEvent{Index: e.Index + uint64(rapid.IntRange(0, 5).Draw(t, "by"))}
			case "beyond all":
				sent = &registrypb.WatchEvent{Index: rapid.Uint64().Draw(t, "index")}
			case "swap":
				sent.Envelope = rapid.SampledFrom(truth.events).Draw(t, "for").Envelope
			case "resign": // signed once more by the same: the same command
				sent.Envelope = truth.world.Sign(truth.command(i), recordtest.Signers(truth.command(i).Author)...)
			}
			honest = honest && (lie == "" || lie == "resign" || lie == "swap" && bytes.Equal(sent.Envelope, e.Envelope))
			if err := r.applyEvents(liar, []*registrypb.WatchEvent{sent, {Index: sent.Index + 1}}); err != nil && honest {
				t.Fatalf("honest event %d: %v", e.Index, err)
			}
			for _, g := range truth.grants {
				if s.AppliedIndex() < g.CommitIndex {
					continue // a holder waits until it has applied that
				}
				err := r.compare(g)
				have, want := publicOf(t, s, g.CommitIndex), truth.until(g.CommitIndex)
				same := len(have) == len(want)
				for j := 0; same && j < len(have); j++ {
					same = have[j].Index == want[j].Index && samePayload(t, have[j].Envelope, want[j].Envelope)
				}
				switch {
				case err != nil && !errors.Is(err, ErrDiverged):
					t.Fatal(err)
				case err == nil && !same:
					t.Fatalf("a grant of index %d is agreed with by who holds %d of %d commands", g.CommitIndex, len(have), len(want))
				case err != nil && same:
					t.Fatalf("a grant of index %d is not agreed with by who holds its very history", g.CommitIndex)
				case honest && err != nil:
					t.Fatalf("an honest follower at %d does not agree with a grant of %d", s.AppliedIndex(), g.CommitIndex)
				}
			}
		}
	})
}

func (tr *truth) until(index uint64) (commands []*registrypb.WatchEvent) {
	for _, e := range tr.events {
		if e.Index <= index {
			commands = append(commands, e)
		}
	}
	return commands
}

func (tr *truth) command(i int) *registrypb.Command {
	opened, err := envelope.Open(envelope.Command, tr.events[i].Envelope)
	if err != nil {
		panic(err)
	}
	c := new(registrypb.Command)
	if err := proto.Unmarshal(opened.Payload, c); err != nil {
		panic(err)
	}
	return c
}

func samePayload(t *rapid.T, a, b []byte) bool {
	x, err := envelope.Open(envelope.Command, a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := envelope.Open(envelope.Command, b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x.Payload, y.Payload)
}
