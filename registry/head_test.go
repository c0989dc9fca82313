package registry_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Where a directory chain ends is told to its author's nodes alone; and even its hash
// does not tell whom the last command was about.
func TestHeadTellsNoSubject(t *testing.T) {
	t.Parallel()
	m := newMesh(t, "w1", "w2")
	const secret = "74071238186"
	begin := time.Now().UnixMilli()
	resp := m.do(registry.NewAuthor(m.at(node("w1")), m.file.Mesh, "w1", key("w1")), references(secret))
	end := time.Now().UnixMilli()
	m.waitApplied(m.members[0], resp.Index)
	head := func(from, author string, chain registrypb.Chain) *registrypb.HeadResponse {
		h := new(registrypb.HeadResponse)
		if err := (peers{m.f, node(from)}).Call(m.ctx(patience), m.members[0], registry.MethodHead,
			&registrypb.HeadRequest{Author: author, Chain: uint32(chain)}, h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	never := head("w2", "w2", registrypb.Chain_DIRECTORY)
	for _, from := range []string{"w2", "m2"} {
		if h := head(from, "w1", registrypb.Chain_DIRECTORY); !proto.Equal(h, never) {
			t.Errorf("%s is told of a chain of w1 that ends at %d", from, h.Sequence)
		}
	}
	if h := head("w2", "@operators", registrypb.Chain_PUBLIC); h.Sequence == 0 {
		t.Error("a public chain is not told of")
	}
	if h := head("w2", "w1", 7); !proto.Equal(h, never) {
		t.Error("an unknown chain is told of")
	}
	own := head("w1", "w1", registrypb.Chain_DIRECTORY)
	if own.Sequence != 1 {
		t.Fatalf("w1 is told that its own chain ends at %d", own.Sequence)
	}
	for ms := begin; ms <= end; ms++ {
		guess := references(secret)
		guess.Mesh, guess.Author, guess.Sequence, guess.TimeUnixMs = "test.example", "w1", own.Sequence, ms
		b, err := proto.Marshal(guess)
		if err != nil {
			t.Fatal(err)
		}
		if h := sha256.Sum256(b); string(h[:]) == string(own.Hash) {
			t.Fatal("the hash of a directory command can be found by trial")
		}
	}
}
