package record_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// TestEveryPublicCommandHasAHistory: whatever kind of command comes to the public chain, it
// is found under a record of a kind that may be asked for, and every kind has its commands.
func TestEveryPublicCommandHasAHistory(t *testing.T) {
	elsewhere := []string{"declare_references", "declare_packed", "set_numbers", "give_mandate", "revoke_mandate", "set_anchors"}
	found := make(map[string]bool)
	body := new(registrypb.Command).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range body.Len() {
		c, f := new(registrypb.Command), body.Get(i)
		c.ProtoReflect().Set(f, c.ProtoReflect().NewField(f))
		ids := record.Touches(c)
		if public := !slices.Contains(elsewhere, string(f.Name())); public != (len(ids) > 0) {
			t.Errorf("%s concerns %v", f.Name(), ids)
		}
		for _, of := range ids {
			found[of.Kind] = true
			if !slices.Contains(record.Kinds, of.Kind) {
				t.Errorf("%s concerns a %s, and nobody may ask for one", f.Name(), of.Kind)
			}
		}
	}
	for _, k := range record.Kinds {
		if !found[k] {
			t.Errorf("no command concerns a %s", k)
		}
	}
}

// TestSubscriptionHistory: who subscribed, changed and withdrew; each purpose and each
// institution apart.
func TestSubscriptionHistory(t *testing.T) {
	r := founded(t)
	set := func(inst, purpose string, change func(*registrypb.Subscription)) []byte {
		s := &registrypb.Subscription{Institution: inst, Dataset: "wages/v1", Purpose: purpose, Qualities: []string{"living-wage"}, Period: recordtest.Since()}
		if change != nil {
			change(s)
		}
		return r.w.Command(inst, &registrypb.Command_SetSubscription{SetSubscription: s})
	}
	var sent [][]byte
	var at []uint64
	send := func(raw []byte) {
		r.ok(raw)
		sent, at = append(sent, raw), append(at, r.index)
	}
	send(set("office", "inquiry", nil))
	r.ok(set("office", "follow-up", nil))
	r.ok(set("alpha", "inquiry", nil))
	send(set("office", "inquiry", func(s *registrypb.Subscription) { s.Fields = []string{"gross"} }))
	refused := set("office", "follow-up", func(s *registrypb.Subscription) { s.Fields = []string{"shoe-size"} })
	r.refused(refused, "no field")

	read := func(id string) []record.Change {
		return told(t, func(fn func(record.Change) error) error {
			return record.NewView(r.state).RecordHistory(r.w.Rules, record.RecordID{Kind: "subscription", ID: id}, fn)
		})
	}
	got := read("office:wages/v1:inquiry")
	if len(got) != len(sent) {
		t.Fatalf("%d changes, want %d", len(got), len(sent))
	}
	for i, c := range got {
		if c.Author != "office" || c.Index != at[i] || !bytes.Equal(c.Envelope, sent[i]) || !slices.Equal(c.SignedBy, signedBy("office")) || c.Command.GetSetSubscription() == nil {
			t.Errorf("change %d: %+v", i, c)
		}
	}
	for id, n := range map[string]int{"office:wages/v1:follow-up": 1, "alpha:wages/v1:inquiry": 1, "office:wages/v1:other": 0, "office:wages/v1": 0, "": 0} {
		if got := read(id); len(got) != n {
			t.Errorf("%q: %d changes, want %d", id, len(got), n)
		}
	}
}

// TestMandateHistory: an institution is told what it gave and took back itself, of one giver,
// under any of its numbers; of what others did, and of other givers, as little as of nothing.
func TestMandateHistory(t *testing.T) {
	r, _ := mandated(t)
	given := r.index
	r.ok(r.w.Command("register", r.w.Mandate("register", r.w.Terms("register", "m-2", recordtest.Person(3), "office", "inquiry", "wages/v1"))))
	r.ok(r.w.Declare("register", recordtest.Reference(giver, "employee")))
	r.ok(r.w.Command("register", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
		{Subject: recordtest.SSIN(giver), Kind: registrypb.NumberEvent_REPLACED, Successor: recordtest.SSIN(stranger), Date: 19000}}}}))
	r.ok(r.w.Command("office", r.w.Revocation("office", "register/m-1", giver, false)))
	r.ok(r.w.Command("register", r.w.Revocation("register", "register/m-1", stranger, true)))
	ended := r.index

	read := func(inst names.InstitutionID, number string) []record.Change {
		return told(t, func(fn func(record.Change) error) error {
			return record.NewView(r.state).MandateHistory(r.w.Rules, inst, id(number), func() error { return nil }, fn)
		})
	}
	for _, number := range []string{giver, stranger} {
		got := read("register", number)
		if len(got) != 2 || got[0].Index != given || got[1].Index != ended {
			t.Fatalf("of %s: %+v", number, got)
		}
		for _, c := range got {
			_, mandate, of := record.MandateOf(c.Command)
			if mandate != "register/m-1" || id(of.GetNumber()) != id(giver) && id(of.GetNumber()) != id(stranger) || c.Author != "register" || !slices.Equal(c.SignedBy, signedBy("register")) {
				t.Errorf("%+v", c)
			}
			opened, err := envelope.Open(envelope.Command, c.Envelope)
			if err != nil || !opened.VerifiedBy(recordtest.Public("register")) {
				t.Errorf("the envelope does not prove itself: %v", err)
			} else if sum := sha256.Sum256(opened.Payload); !bytes.Equal(sum[:], c.Hash) {
				t.Error("the envelope is of another command than the hash")
			}
		}
	}
	if got := read("office", giver); len(got) != 1 || got[0].Author != "office" || got[0].Command.GetRevokeMandate() == nil {
		t.Errorf("the holder is told %+v", got)
	}
	for _, inst := range []names.InstitutionID{"alpha", "nobody"} {
		if got := read(inst, giver); len(got) != 0 {
			t.Errorf("%s is told %+v", inst, got)
		}
	}
	if got := read("register", recordtest.Person(4)); len(got) != 0 {
		t.Errorf("of who gave none: %+v", got)
	}
	// References are told as before, without the mandates and without what proves others' rows.
	refs := told(t, func(fn func(record.Change) error) error {
		return record.NewView(r.state).SubjectHistory(r.w.Rules, "register", id(giver), func() error { return nil }, fn)
	})
	if len(refs) != 2 || refs[0].Command.GetDeclareReferences() == nil || refs[1].Command.GetSetNumbers() == nil || refs[0].Envelope != nil || refs[1].Envelope != nil {
		t.Errorf("references: %+v", refs)
	}
	stopped := errors.New("stopped")
	err := record.NewView(r.state).MandateHistory(r.w.Rules, "register", id(giver), func() error { return stopped }, func(record.Change) error { return nil })
	if !errors.Is(err, stopped) {
		t.Errorf("stop: %v", err)
	}
}

func told(t *testing.T, history func(func(record.Change) error) error) (all []record.Change) {
	t.Helper()
	if err := history(func(c record.Change) error { all = append(all, c); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func signedBy(name string) []names.KeyID {
	return []names.KeyID{envelope.KeyID(recordtest.Public(name))}
}
