package record_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func (r *replica) door(raw []byte) string {
	r.t.Helper()
	refusal, err := record.AtDoor(record.NewView(r.state), r.w.Rules, raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return refusal
}

// The door lets in whatever could be accepted, or was, and refuses nothing that Apply
// would have accepted.
func TestDoor(t *testing.T) {
	r := founded(t)
	w := r.w
	node := &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n7")}
	draft := func() *registrypb.Command { return w.Draft("office", node) }
	other := draft()
	other.Mesh = "other.mesh"
	stranger := draft()
	stranger.Author = "stranger"
	early := draft()
	early.Sequence += 9
	good := w.Sign(draft(), "office")
	retired := recordtest.KeyRecord("office", "office-2")
	for name, c := range map[string]struct {
		raw []byte
		in  bool
	}{
		"good":                     {good, true},
		"too early":                {w.Sign(early, "office"), true},
		"one of several signed":    {w.Sign(draft(), "register", "office"), true},
		"empty":                    {nil, false},
		"no envelope":              {bytes.Repeat([]byte{0xff}, 1<<20), false},
		"too large":                {make([]byte, record.MaxCommand+1), false},
		"cut off":                  {good[:len(good)-1], false},
		"another mesh":             {w.Sign(other, "office"), false},
		"unknown author":           {w.Sign(stranger, "stranger"), false},
		"signed by another":        {w.Sign(draft(), "register"), false},
		"one operator of two":      {w.Sign(w.Draft(record.Operators, node), "operator1"), false},
		"two operators":            {w.Sign(w.Draft(record.Operators, node), "operator1", "operator3"), true}, // Apply says no
		"signed with a future key": {w.Sign(draft(), "office-2"), false},
	} {
		if why := r.door(c.raw); (why == "") != c.in {
			t.Errorf("%s: %q", name, why)
		}
	}
	r.ok(w.Command("office", &registrypb.Command_SetKey{SetKey: retired}))
	late := w.Sign(w.Draft("office", node), "office-2")
	gone := recordtest.KeyRecord("office", "office-2")
	gone.Retired = true
	r.ok(w.Command("office", &registrypb.Command_SetKey{SetKey: gone}))
	r.ok(w.Command(record.Operators, &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "office", Suspended: true}}))
	if why := r.door(late); why != "" {
		t.Errorf("signed with a retired key, by a suspended institution: %q; what became of it must remain to be asked", why)
	}
}

func TestDirectoryCommandsCarryNonces(t *testing.T) {
	r := founded(t)
	w := r.w
	draft := func(nonce int) *registrypb.Command {
		c := w.Draft("office", &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{
			References: []*registrypb.Reference{recordtest.Reference(recordtest.Person(1), "employee")}}})
		c.Nonce = make([]byte, nonce)
		return c
	}
	for _, n := range []int{0, 1, 15, 33, 1000} {
		r.refused(w.Sign(draft(n), "office"), "nonce")
	}
	for _, n := range []int{16, 32} {
		c := draft(n)
		r.ok(w.Sign(c, "office"))
		w.Follow(c)
	}
}

// Whatever small-order point is registered, there are signatures under it that hold for
// every message.
func TestWeakKeysAreRefused(t *testing.T) {
	for _, text := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"0200000000000000000000000000000000000000000000000000000000000000", // no point at all
	} {
		weak, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		r := founded(t)
		key := &registrypb.Key{Institution: "office", Id: string(envelope.KeyID(weak)), PublicKey: weak}
		sign := func(author string, body any) []byte {
			return r.w.Sign(r.w.Draft(author, body), recordtest.Signers(author)...)
		}
		r.refused(sign("office", &registrypb.Command_SetKey{SetKey: key}), "sound")
		key.Institution = "newcomer"
		r.refused(sign(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: &registrypb.Institution{
			Id: "newcomer", Name: "Newcomer", Type: "pcsa", FirstKey: key}}), "sound")
		r.refused(sign(record.Operators, &registrypb.Command_SetIdentityProvider{SetIdentityProvider: &registrypb.IdentityProvider{
			Id: "eid", Name: "eID", PublicKeys: [][]byte{weak}, Levels: []uint32{3}}}), "sound")
		r.w.Rules.Operators.Keys[0] = weak
		if err := r.w.Rules.Validate(); err == nil {
			t.Error("a weak key of an operator may found a mesh")
		}
	}
}

func TestNamesShowAsWhatTheyAre(t *testing.T) {
	r := founded(t)
	for _, name := range []string{"two\nlines", "bell\a", "del\x7f", "csi\u009b31m", "next\u0085line", "over\u202eride", "iso\u2066late", "mark\u200f", "line\u2028", "para\u2029", "\ufeffbom", "bad\xff"} {
		c := r.w.Draft(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: &registrypb.Institution{
			Id: "newcomer", Name: strings.ToValidUTF8(name, "\ufffd"), Type: "pcsa", FirstKey: recordtest.KeyRecord("newcomer", "newcomer")}})
		r.refused(r.w.Sign(c, "operator1", "operator2"), "one line")
	}
	r.ok(r.w.Admit(&registrypb.Institution{Id: "newcomer", Name: "Caisse d’Été, Förderung & Co. – 社会", Type: "pcsa"}))
}

// Qualities are kept for ever, so one institution may use only so many; how many others
// use does not matter, since its own nodes do not know that.
func TestQualitiesAreBounded(t *testing.T) {
	r := founded(t)
	declare := func(inst string, from, n int) []byte {
		var refs []*registrypb.Reference
		for i := range n {
			refs = append(refs, recordtest.Reference(recordtest.Person(i), fmt.Sprintf("quality-%d", from+i)))
		}
		c := r.w.Draft(inst, &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: refs}})
		return r.w.Sign(c, inst)
	}
	accept := func(inst string, from, n int) {
		t.Helper()
		var refs []*registrypb.Reference
		for i := range n {
			refs = append(refs, recordtest.Reference(recordtest.Person(i), fmt.Sprintf("quality-%d", from+i)))
		}
		r.ok(r.w.Declare(inst, refs...))
	}
	accept("register", 1000, 200)
	accept("office", 0, 250)
	accept("office", 100, 156) // known ones, and six more
	r.refused(declare("office", 256, 1), "different qualities")
	r.refused(declare("office", 1000, 1), "different qualities") // though others use it
	accept("office", 3, 1)
	accept("register", 0, 56)
	r.refused(declare("register", 56, 1), "different qualities")
	bad := r.w.Draft("office", &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{
		References: []*registrypb.Reference{recordtest.Reference(recordtest.Person(1), "No Quality!")}}})
	r.refused(r.w.Sign(bad, "office"), "row 1")
}

// FuzzAtDoor: whatever is sent to a leader, it is refused or known to be signed; the door
// neither fails nor writes.
func FuzzAtDoor(f *testing.F) {
	r := founded(f)
	w := r.w
	good := w.Sign(w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")}), "office")
	f.Add(good)
	f.Add(w.Sign(w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")}), "register"))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		refusal, err := record.AtDoor(record.NewView(r.state), w.Rules, raw)
		if err != nil {
			t.Fatal(err)
		}
		if refusal != "" {
			return
		}
		opened, err := envelope.Open(envelope.Command, raw)
		want, _ := envelope.Open(envelope.Command, good)
		if err != nil || !bytes.Equal(opened.Payload, want.Payload) {
			t.Fatal("let in what nobody signed")
		}
	})
}
