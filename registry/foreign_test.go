package registry

import (
	"errors"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

// FuzzWatchEvents has a watcher take what a member sent: never does that end it, and what
// it holds afterwards is a prefix of what honest members sent, or nothing.
func FuzzWatchEvents(f *testing.F) {
	truth := newTruth(f)
	for i := range truth.events {
		raw, err := proto.Marshal(truth.events[i])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, raw)
		if i > 0 {
			before, _ := proto.Marshal(truth.events[i-1])
			f.Add(before, raw)
		}
	}
	f.Add([]byte{}, []byte{8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	var s *store.Store
	f.Cleanup(func() {
		if s != nil {
			s.Close()
		}
	})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		if s != nil && s.AppliedIndex() > 0 { // what went before has changed it
			s.Close()
			s = nil
		}
		if s == nil {
			var err error
			if s, err = store.Open(badgerdb.Config{MemTableMB: 2, CacheMB: 1}, truth.world.Rules); err != nil {
				t.Fatal(err)
			}
		}
		r := &Registry{cfg: Config{Log: slog.New(slog.DiscardHandler)}, store: s}
		for _, raw := range [][]byte{one, two} {
			e := new(registrypb.WatchEvent)
			if proto.Unmarshal(raw, e) != nil {
				return
			}
			err := r.applyEvents(names.NodeID{Institution: "beta", Node: "n1"}, []*registrypb.WatchEvent{e})
			if errors.Is(err, store.ErrFailed) || errors.Is(err, store.ErrClosed) {
				t.Fatal(err)
			}
		}
		if err := s.View(func(v record.View) error {
			return v.Commands(0, func(_ uint64, envelope []byte) error {
				hash, _, err := commandOf(envelope)
				if err != nil {
					return err
				}
				for i := range truth.events {
					if known, _, _ := commandOf(truth.events[i].Envelope); known == hash {
						return nil
					}
				}
				return errors.New("it holds a command that nobody signed")
			})
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzStateRows has a member look for a difference in whatever another one answers.
func FuzzStateRows(f *testing.F) {
	truth := newTruth(f)
	s := memory(f, truth.world.Rules)
	for _, e := range truth.events {
		if err := s.ApplyAccepted([]store.Entry{entryOf(e)}); err != nil {
			f.Fatal(err)
		}
	}
	r := &Registry{cfg: Config{Log: slog.New(slog.DiscardHandler)}, store: s}
	parts, _, err := s.Parts(f.Context(), 3)
	if err != nil {
		f.Fatal(err)
	}
	same, _ := proto.Marshal(&registrypb.StateRowsResponse{Parts: parts})
	f.Add(same, []byte{})
	parts[7] = nil
	other, _ := proto.Marshal(&registrypb.StateRowsResponse{Parts: parts})
	row, _ := proto.Marshal(&registrypb.StateRowsResponse{Rows: []*registrypb.StateRow{{Key: []byte("x"), Table: 82}, nil}})
	f.Add(other, row)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		answers := [][]byte{first, second}
		_, _ = r.differenceIn(t.Context(), 3, func(*registrypb.StateRowsRequest) (*registrypb.StateRowsResponse, error) {
			resp := new(registrypb.StateRowsResponse)
			raw := answers[0]
			if len(answers) > 1 {
				answers = answers[1:]
			}
			return resp, proto.Unmarshal(raw, resp)
		})
	})
}

// FuzzRemovals has a replica judge what a member shows it of removals: nothing of it is ever
// kept, and only what its authors signed is missed.
func FuzzRemovals(f *testing.F) {
	truth := newTruth(f)
	for _, e := range truth.events {
		f.Add(e.Envelope, e.Envelope)
	}
	f.Add([]byte{}, []byte("no command"))
	s, err := store.Open(badgerdb.Config{MemTableMB: 2, CacheMB: 1}, truth.world.Rules)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	r := &Registry{cfg: Config{Log: slog.New(slog.DiscardHandler)}, store: s}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		missing, err := r.missing([][]byte{one, two})
		if err != nil {
			t.Fatal(err)
		}
		for hash := range missing {
			known := false
			for _, e := range truth.events {
				h, _, _ := commandOf(e.Envelope)
				known = known || h == hash
			}
			if !known {
				t.Fatal("it misses a command that nobody signed")
			}
		}
		if s.AppliedIndex() != 0 {
			t.Fatal("it kept what it was shown")
		}
	})
}
