package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// judge stands in for a node of a mesh of one member, m1. What it is sent it decides as
// every replica does; only consensus is missing.
type judge struct {
	rules  *record.Rules
	member ed25519.PrivateKey

	mu    sync.Mutex
	state record.MapState
	index uint64
}

const (
	judgeMesh  = "demo.example"
	judgeDelay = time.Hour // of a recovery
)

// judges begins a mesh whose operators are the keys before --, and whose recovery keys are
// those after it, two of which must sign; $NODE is its API from then on.
func judges(ts *testscript.TestScript, neg bool, args []string) {
	at := slices.Index(args, "--")
	if neg || at < 1 {
		ts.Fatalf("usage: judges operator.pub... -- recovery.pub...")
	}
	read := func(files []string) (keys []ed25519.PublicKey) {
		for _, f := range files {
			pub, err := certs.ParsePublicKey([]byte(ts.ReadFile(f)))
			ts.Check(err)
			keys = append(keys, pub)
		}
		return keys
	}
	fresh := func() ed25519.PrivateKey {
		_, k, err := ed25519.GenerateKey(nil)
		ts.Check(err)
		return k
	}
	j := &judge{member: fresh()}
	j.rules = &record.Rules{
		Mesh: judgeMesh, Level: record.Level, Schemes: subject.Belgian(), RecoveryDelay: judgeDelay,
		Operators: record.Threshold{M: 2, Keys: read(args[:at])}, Recovery: record.Threshold{M: 2, Keys: read(args[at+1:])},
		Committee: record.Threshold{M: 1, Keys: []ed25519.PublicKey{fresh().Public().(ed25519.PublicKey)}},
		Members: []record.FirstMember{{
			Institution: &registrypb.Institution{Id: "m1", Name: "m1", Type: "office"}, Key: j.member.Public().(ed25519.PublicKey),
			Node: &registrypb.Node{Ref: &registrypb.NodeRef{Institution: "m1", Node: "n1"}, Address: "127.0.0.1:1"},
		}},
	}
	ts.Check(record.Bootstrap(&j.state, j.rules))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/registry/head", func(w http.ResponseWriter, r *http.Request) {
		j.mu.Lock()
		defer j.mu.Unlock()
		sequence, hash, err := record.NewView(&j.state).Head(r.URL.Query().Get("author"), registrypb.Chain_PUBLIC)
		answer(w, api.ChainHead{Sequence: sequence, Hash: hex.EncodeToString(hash)}, err)
	})
	mux.HandleFunc("GET /v1/groups", func(w http.ResponseWriter, _ *http.Request) {
		groups, err := j.groups()
		answer(w, api.List[api.KeyGroup]{Items: groups}, err)
	})
	mux.HandleFunc("POST /v1/registry/commands", func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(io.LimitReader(r.Body, envelope.MaxSize))
		var done api.Submitted
		if err == nil {
			done, err = j.decide(raw)
		}
		answer(w, done, err)
	})
	srv := httptest.NewServer(mux)
	ts.Defer(srv.Close)
	ts.Setenv("NODE", srv.URL)
	running.Store(ts, j)
}

// running are the judges of scripts.
var running sync.Map

// delaypasses has the member's node say, as it does by itself, that it saw what was
// announced, and when the delay is over that it is.
func delaypasses(ts *testscript.TestScript, neg bool, args []string) {
	v, ok := running.Load(ts)
	if neg || !ok || len(args) != 0 {
		ts.Fatalf("usage, after judges: delaypasses")
	}
	j := v.(*judge)
	groups, err := j.groups()
	ts.Check(err)
	now := time.Now()
	for _, g := range groups {
		if g.Recovery == nil {
			continue
		}
		id, err := hex.DecodeString(g.Recovery.ID)
		ts.Check(err)
		for _, at := range []time.Time{now, now.Add(judgeDelay)} {
			ts.Check(j.confirm(id, at))
		}
	}
}

func (j *judge) confirm(id []byte, at time.Time) error {
	j.mu.Lock()
	sequence, hash, err := record.NewView(&j.state).Head("m1", registrypb.Chain_PUBLIC)
	j.mu.Unlock()
	if err != nil {
		return err
	}
	payload, err := proto.Marshal(&registrypb.Command{
		Mesh: judgeMesh, Author: "m1", Sequence: sequence + 1, Previous: hash, TimeUnixMs: at.UnixMilli(),
		Body: &registrypb.Command_ConfirmRecovery{ConfirmRecovery: &registrypb.Recovery{Announcement: id}},
	})
	if err != nil {
		return err
	}
	raw, err := envelope.Sign(envelope.Command, payload, j.member)
	if err != nil {
		return err
	}
	_, err = j.decide(raw)
	return err
}

func (j *judge) decide(raw []byte) (api.Submitted, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.index++
	res, err := record.Apply(&j.state, j.rules, j.index, raw)
	if err == nil {
		err = record.SetAppliedIndex(&j.state, j.index)
	}
	done := api.Submitted{Index: j.index, Accepted: res.Accepted, Refusal: res.Refusal, Repeated: res.Repeated}
	if res.Repeated {
		done.Index = res.FirstIndex
	}
	return done, err
}

func (j *judge) groups() (all []api.KeyGroup, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := record.NewView(&j.state)
	pending, err := v.PendingRecoveries()
	if err != nil {
		return nil, err
	}
	keys := func(of []ed25519.PublicKey) (out []api.PublicKey) {
		for _, k := range of {
			out = append(out, api.PublicKey{ID: envelope.KeyID(k), PublicKey: certs.EncodePublicKey(k)})
		}
		return out
	}
	for _, name := range record.GroupNames() {
		g, _, err := v.Group(j.rules, name)
		if err != nil {
			return nil, err
		}
		former, err := v.FormerKeys(name)
		if err != nil {
			return nil, err
		}
		out := api.KeyGroup{Name: name, Threshold: g.M, Keys: keys(g.Keys), Former: keys(former)}
		for _, p := range pending {
			if p.Group == name {
				out.Recovery = &api.PendingRecovery{ID: hex.EncodeToString(p.ID), Index: p.Index, Announcer: p.Announcer, Announced: p.Announced,
					Threshold: p.To.M, Keys: keys(p.To.Keys), Confirmed: p.Confirmed, Needed: p.Needed, Delay: judgeDelay.String()}
			}
		}
		all = append(all, out)
	}
	return all, nil
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
