package identity_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/identity"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const person = "74071238186"

var (
	now  = time.UnixMilli(1_780_000_000_000)
	self = names.NodeID{Institution: "alpha", Node: "n1"}
)

func world(t testing.TB) (*recordtest.World, record.View, func(*registrypb.IdentityProvider)) {
	w := recordtest.New(t, "alpha", "beta", "gamma")
	s := new(record.MapState)
	if err := record.Bootstrap(s, w.Rules); err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	set := func(p *registrypb.IdentityProvider) {
		index++
		raw := w.Command(record.Operators, &registrypb.Command_SetIdentityProvider{SetIdentityProvider: p})
		if res, err := record.Apply(s, w.Rules, index, raw); err != nil || !res.Accepted {
			t.Fatalf("%v %s", err, res.Refusal)
		}
	}
	set(provider())
	return w, record.NewView(s), set
}

func provider() *registrypb.IdentityProvider {
	return &registrypb.IdentityProvider{Id: "eid", Name: "eID", PublicKeys: [][]byte{recordtest.Public("eid")}, Levels: []uint32{1, 3}}
}

func token() *registrypb.IdentityToken {
	return &registrypb.IdentityToken{
		Mesh: string(recordtest.Mesh), Provider: "eid", Subject: recordtest.SSIN(person), Node: &registrypb.NodeRef{Institution: "alpha", Node: "n1"},
		Nonce: make([]byte, 32), Purpose: "subject-view", PayloadHash: bytes.Repeat([]byte{1}, 32), AuthLevel: 3,
		IssuedUnixMs: now.UnixMilli(), ExpiresUnixMs: now.Add(time.Minute).UnixMilli(),
	}
}

func want() identity.Want {
	return identity.Want{
		Mesh: recordtest.Mesh, Node: self, Purpose: identity.SubjectView, PayloadHash: bytes.Repeat([]byte{1}, 32), MinLevel: 2,
		Now: now.Add(time.Second), Skew: time.Second, Schemes: subject.Belgian(),
	}
}

func issue(t testing.TB, tok *registrypb.IdentityToken, key string) []byte {
	raw, err := identity.Issue(tok, recordtest.Key(key))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestCheck(t *testing.T) {
	_, v, _ := world(t)
	got, err := identity.Check(v, want(), issue(t, token(), "eid"))
	if err != nil || got.Subject.Number() != person || got.Level != 3 || got.Provider != "eid" {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		change func(*registrypb.IdentityToken)
		err    error
	}{
		"another mesh":     {func(t *registrypb.IdentityToken) { t.Mesh = "other.mesh" }, identity.ErrElsewhere},
		"another node":     {func(t *registrypb.IdentityToken) { t.Node.Node = "n2" }, identity.ErrElsewhere},
		"no node":          {func(t *registrypb.IdentityToken) { t.Node = nil }, identity.ErrElsewhere},
		"another purpose":  {func(t *registrypb.IdentityToken) { t.Purpose = "mandate" }, identity.ErrElsewhere},
		"another payload":  {func(t *registrypb.IdentityToken) { t.PayloadHash[0] = 9 }, identity.ErrElsewhere},
		"expired":          {func(t *registrypb.IdentityToken) { t.IssuedUnixMs -= 600_000; t.ExpiresUnixMs = now.UnixMilli() }, identity.ErrExpired},
		"from the future":  {func(t *registrypb.IdentityToken) { t.IssuedUnixMs += 30_000 }, identity.ErrExpired},
		"for a day":        {func(t *registrypb.IdentityToken) { t.ExpiresUnixMs += 86_400_000 }, identity.ErrExpired},
		"ends before":      {func(t *registrypb.IdentityToken) { t.ExpiresUnixMs = t.IssuedUnixMs - 1 }, identity.ErrExpired},
		"weak":             {func(t *registrypb.IdentityToken) { t.AuthLevel = 1 }, identity.ErrLevel},
		"level not its":    {func(t *registrypb.IdentityToken) { t.AuthLevel = 4 }, identity.ErrUntrusted},
		"unknown provider": {func(t *registrypb.IdentityToken) { t.Provider = "other" }, identity.ErrUntrusted},
		"no provider":      {func(t *registrypb.IdentityToken) { t.Provider = "" }, identity.ErrMalformed},
		"short nonce":      {func(t *registrypb.IdentityToken) { t.Nonce = t.Nonce[1:] }, identity.ErrMalformed},
		"no subject":       {func(t *registrypb.IdentityToken) { t.Subject = nil }, identity.ErrMalformed},
		"not canonical":    {func(t *registrypb.IdentityToken) { t.Subject.Number = "74.07.12-381.86" }, identity.ErrMalformed},
	} {
		tok := token()
		c.change(tok)
		got, err := identity.Check(v, want(), issue(t, tok, "eid"))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		if certain := errors.Is(err, identity.ErrElsewhere) || errors.Is(err, identity.ErrExpired) || errors.Is(err, identity.ErrLevel); certain != (got != nil) {
			t.Errorf("%s: token %v", name, got)
		}
	}
}

func TestForgeries(t *testing.T) {
	w, v, set := world(t)
	good := issue(t, token(), "eid")
	payload, _ := proto.Marshal(token())
	asCommand, _ := envelope.Sign(envelope.Command, payload, recordtest.Key("eid"))
	unknown := append(bytes.Clone(payload), 0xf8, 0x07, 0x01) // field 127
	narrowed, _ := envelope.Sign(envelope.IdentityToken, unknown, recordtest.Key("eid"))
	unsigned, _ := envelope.Sign(envelope.IdentityToken, payload)
	for name, c := range map[string]struct {
		raw []byte
		err error
	}{
		"another's key":       {issue(t, token(), "alpha"), identity.ErrUntrusted},
		"unsigned":            {unsigned, identity.ErrUntrusted},
		"another kind":        {asCommand, identity.ErrMalformed},
		"fields of tomorrow":  {narrowed, identity.ErrMalformed},
		"nothing":             {nil, identity.ErrMalformed},
		"too large":           {append(bytes.Clone(good), make([]byte, identity.MaxToken)...), identity.ErrMalformed},
		"command's signature": {w.Sign(w.Draft("alpha", &registrypb.Command_SetNode{}), "eid"), identity.ErrMalformed},
	} {
		if tok, err := identity.Check(v, want(), c.raw); !errors.Is(err, c.err) || tok != nil {
			t.Errorf("%s: %v, %v", name, tok, err)
		}
	}
	p := provider()
	p.Retired = true
	set(p)
	if _, err := identity.Check(v, want(), good); !errors.Is(err, identity.ErrUntrusted) {
		t.Errorf("a retired provider is believed: %v", err)
	}
}

func FuzzCheck(f *testing.F) {
	_, v, _ := world(f)
	good := issue(f, token(), "eid")
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := identity.Check(v, want(), raw); err == nil {
			o, err := envelope.Open(envelope.IdentityToken, raw)
			payload, _ := proto.MarshalOptions{Deterministic: true}.Marshal(token())
			if err != nil || !bytes.Equal(o.Payload, payload) {
				t.Error("a token was made of nothing")
			}
		}
	})
}
