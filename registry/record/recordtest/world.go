// Package recordtest makes small invented registries for tests: keys, rules, and
// commands that follow on each other.
package recordtest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Mesh is the mesh of every World.
const Mesh names.MeshID = "test.mesh"

// Key gives the key that belongs to a name, always the same.
func Key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("recordtest " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// Public gives the public half of Key.
func Public(name string) ed25519.PublicKey { return Key(name).Public().(ed25519.PublicKey) }

// KeyRecord gives the key record of an institution for the key of a name.
func KeyRecord(institution, name string) *registrypb.Key {
	pub := Public(name)
	return &registrypb.Key{Institution: institution, Id: string(envelope.KeyID(pub)), PublicKey: pub}
}

// World signs commands for a mesh. Operators and committee are 2 of 3. Commands
// are numbered as they are made, so each should be applied, in order.
type World struct {
	t     testing.TB
	Rules *record.Rules
	heads map[string]*registrypb.Command // last of each chain: sequence and hash in Previous
	Time  int64                          // of the next command, in ms
}

// New makes a mesh with the given institutions as first members, each with a key
// of its own name and a node "n1". Their type is "member".
func New(t testing.TB, members ...string) *World {
	w := &World{t: t, heads: make(map[string]*registrypb.Command), Time: 1_700_000_000_000}
	w.Rules = &record.Rules{
		Mesh: Mesh, Operators: group("operator"), Committee: group("committee"), Recovery: group("recovery"),
		RecoveryDelay: 7 * 24 * time.Hour, Level: record.Level, Schemes: subject.Belgian(),
	}
	for _, id := range members {
		w.Rules.Members = append(w.Rules.Members, record.FirstMember{
			Institution: &registrypb.Institution{Id: id, Name: id, Type: "member"}, Key: Public(id), Node: Node(id, "n1"),
		})
	}
	return w
}

func group(name string) record.Threshold {
	return record.Threshold{M: 2, Keys: []ed25519.PublicKey{Public(name + "1"), Public(name + "2"), Public(name + "3")}}
}

// Node gives the record of a node.
func Node(institution, node string) *registrypb.Node {
	return &registrypb.Node{
		Ref: &registrypb.NodeRef{Institution: institution, Node: node}, Address: institution + ".example:4001", GossipKey: make([]byte, 32),
	}
}

// Draft gives the next command of an author, unsigned; body is a oneof wrapper,
// such as *registrypb.Command_SetNode. Sign makes it the last of its chain.
func (w *World) Draft(author string, body any) *registrypb.Command {
	c := &registrypb.Command{Mesh: string(Mesh), Author: author, TimeUnixMs: w.Time}
	switch b := body.(type) {
	case *registrypb.Command_SetInstitution:
		c.Body = b
	case *registrypb.Command_SetMembers:
		c.Body = b
	case *registrypb.Command_SetDataset:
		c.Body = b
	case *registrypb.Command_SetAuthorization:
		c.Body = b
	case *registrypb.Command_RevokeAuthorization:
		c.Body = b
	case *registrypb.Command_SetKey:
		c.Body = b
	case *registrypb.Command_SetNode:
		c.Body = b
	case *registrypb.Command_SetOffering:
		c.Body = b
	case *registrypb.Command_DeclareReferences:
		c.Body, c.Chain = b, registrypb.Chain_DIRECTORY
	case *registrypb.Command_DeclarePacked:
		c.Body, c.Chain = b, registrypb.Chain_DIRECTORY
	case *registrypb.Command_SetNumbers:
		c.Body, c.Chain = b, registrypb.Chain_DIRECTORY
	case *registrypb.Command_GiveMandate:
		c.Body, c.Chain = b, registrypb.Chain_DIRECTORY
	case *registrypb.Command_RevokeMandate:
		c.Body, c.Chain = b, registrypb.Chain_DIRECTORY
	case *registrypb.Command_SetSuspended:
		c.Body = b
	case *registrypb.Command_SetAnchors:
		c.Body, c.Chain = b, registrypb.Chain_ANCHORS
	case *registrypb.Command_SetIdentityProvider:
		c.Body = b
	case *registrypb.Command_SetFeatureLevel:
		c.Body = b
	case *registrypb.Command_SetGroup:
		c.Body = b
	case *registrypb.Command_AnnounceRecovery:
		c.Body = b
	case *registrypb.Command_CancelRecovery:
		c.Body = b
	case *registrypb.Command_ConfirmRecovery:
		c.Body = b
	case *registrypb.Command_SetAutopilot:
		c.Body = b
	case *registrypb.Command_SetSubscription:
		c.Body = b
	default:
		w.t.Fatalf("no body of a command: %T", body)
	}
	switch c.Chain {
	case registrypb.Chain_ANCHORS:
		return c
	case registrypb.Chain_DIRECTORY:
		c.Nonce = Nonce()
	}
	c.Sequence = 1
	if last := w.heads[chain(c)]; last != nil {
		c.Sequence, c.Previous = last.Sequence+1, last.Previous
	}
	return c
}

// Nonce gives one that is fit for a directory command, always the same.
func Nonce() []byte { return bytes.Repeat([]byte{7}, 32) }

func chain(c *registrypb.Command) string { return c.Author + "/" + c.Chain.String() }

// Follow makes c the last command of its chain, as when it was accepted.
func (w *World) Follow(c *registrypb.Command) {
	hash := sha256.Sum256(w.marshal(c))
	w.heads[chain(c)] = &registrypb.Command{Sequence: c.Sequence, Previous: hash[:]}
}

func (w *World) marshal(m proto.Message) []byte {
	w.t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// Sign gives the envelope of a command, signed by the keys of the given names.
func (w *World) Sign(c *registrypb.Command, signers ...string) []byte {
	w.t.Helper()
	raw, err := envelope.Sign(envelope.Command, w.marshal(c), Key(signers[0]))
	for _, s := range signers[1:] {
		if err == nil {
			raw, err = envelope.AddSignature(raw, Key(s))
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// Signers gives who signs for an author by default.
func Signers(author string) []string {
	switch author {
	case record.Operators:
		return []string{"operator1", "operator2"}
	case record.Committee:
		return []string{"committee1", "committee3"}
	case record.Recovery:
		return []string{"recovery1", "recovery2"}
	}
	return []string{author}
}

// Command drafts, signs and follows.
func (w *World) Command(author string, body any) []byte {
	w.t.Helper()
	c := w.Draft(author, body)
	raw := w.Sign(c, Signers(author)...)
	w.Follow(c)
	return raw
}

// Admit is the operators' command that admits an institution; its key is that of
// its name.
func (w *World) Admit(i *registrypb.Institution) []byte {
	w.t.Helper()
	if i.Name == "" {
		i.Name = i.Id
	}
	i.FirstKey = KeyRecord(i.Id, i.Id)
	return w.Command(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: i})
}

// Declare is an institution's command that declares references.
func (w *World) Declare(institution string, refs ...*registrypb.Reference) []byte {
	w.t.Helper()
	return w.Command(institution, &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: refs}})
}

// Since is the period from 2020 until further notice.
func Since() *registrypb.Period { return &registrypb.Period{From: 18262, Until: int32(names.Forever)} }

// Reference is a reference in a quality, since 2020.
func Reference(ssin string, quality string) *registrypb.Reference {
	return &registrypb.Reference{Subject: SSIN(ssin), Quality: quality, Period: Since()}
}

// SSIN gives the subject of a number.
func SSIN(number string) *registrypb.Subject {
	return &registrypb.Subject{Scheme: string(subject.SSIN), Number: number}
}

// Person gives the n-th of a long row of invented, valid SSINs.
func Person(n int) string {
	head := (60+n/(12*28*998)%40)*10_000_000 + (1+n/(28*998)%12)*100_000 + (1+n/998%28)*1000 + 1 + n%998
	digits := []byte("00000000000")
	for i, v := 10, head*100+subject.SSINCheckDigits(head, 1900); i >= 0; i-- {
		digits[i] = byte('0' + v%10)
		v /= 10
	}
	return string(digits)
}
