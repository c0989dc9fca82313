package record_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// grouped signs a payload as the first of two leaves, as the package comment of
// envelope says.
func grouped(t *testing.T, kind envelope.Type, payload []byte, k ed25519.PrivateKey) []byte {
	t.Helper()
	pub := k.Public().(ed25519.PublicKey)
	salt, other := make([]byte, 32), make([]byte, 32)
	leaf := sha256.Sum256(slices.Concat([]byte{0}, salt, envelope.PAE(kind, payload)))
	root := sha256.Sum256(slices.Concat([]byte{1}, leaf[:], other))
	var b []byte
	for _, s := range []string{string(kind), string(envelope.KeyID(pub))} {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	b = append(binary.BigEndian.AppendUint64(b, 2), root[:]...)
	raw, err := proto.Marshal(&certspb.Envelope{Type: string(kind), Payload: payload, Signatures: []*certspb.Signature{{
		KeyId:     string(envelope.KeyID(pub)),
		Signature: ed25519.Sign(k, envelope.PAE("application/vnd.crossroads.signature-group.v1", b)),
		Group:     &certspb.GroupPath{Salt: salt, Size: 2, Path: [][]byte{other}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestCommandsAreSignedAlone: a signature over a group, which counts for a request,
// never makes a command.
func TestCommandsAreSignedAlone(t *testing.T) {
	r := founded(t)
	payload, err := proto.Marshal(r.w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")}))
	if err != nil {
		t.Fatal(err)
	}
	k := recordtest.Key("office")
	o, err := envelope.Open(envelope.Request, grouped(t, envelope.Request, payload, k))
	if err != nil || !o.VerifiedBy(recordtest.Public("office")) {
		t.Fatal("this test makes no signature that counts for anything", err)
	}
	r.refused(grouped(t, envelope.Command, payload, k), "no key in force of office signed")
	alone, err := envelope.Sign(envelope.Command, payload, k)
	if err != nil {
		t.Fatal(err)
	}
	r.ok(alone)
}
