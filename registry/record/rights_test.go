package record_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func TestKeys(t *testing.T) {
	r := founded(t)
	w := r.w
	second := recordtest.KeyRecord("office", "office-second")
	wrongID := proto.CloneOf(second)
	wrongID.Id = recordtest.KeyRecord("office", "other").Id
	draft := func(k *registrypb.Key) *registrypb.Command {
		return w.Draft("office", &registrypb.Command_SetKey{SetKey: k})
	}
	r.refused(w.Sign(draft(wrongID), "office"), "does not match")
	r.refused(w.Sign(draft(recordtest.KeyRecord("office", "alpha")), "office"), "known already")
	r.refused(w.Sign(draft(second), "office-second"), "no key in force")
	r.ok(w.Command("office", &registrypb.Command_SetKey{SetKey: second}))

	first := recordtest.KeyRecord("office", "office")
	first.Retired = true
	c := draft(first)
	res := r.ok(w.Sign(c, "office-second"))
	w.Follow(c)
	if !res.RemovesRight {
		t.Error("retiring a key removes a right")
	}
	if again := r.ok(w.Sign(c, "office-second")); !again.RemovesRight || !again.Repeated {
		t.Errorf("repeat %+v", again)
	}
	node := w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")})
	r.refused(w.Sign(node, "office"), "no key in force")
	back := proto.CloneOf(first)
	back.Retired = false
	r.refused(w.Sign(draft(back), "office-second"), "known already")

	// Operators retire the last one; only they can then bring the institution back.
	gone := proto.CloneOf(second)
	gone.Retired = true
	r.ok(w.Command(record.Operators, &registrypb.Command_SetKey{SetKey: gone}))
	r.refused(w.Sign(node, "office-second"), "no key in force")
	return1 := &registrypb.Institution{Id: "office", Name: "Office", Type: "pcsa", Sector: "welfare", ManagingBody: true, FirstKey: recordtest.KeyRecord("office", "third")}
	r.ok(w.Command(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: return1}))
	return1.FirstKey = recordtest.KeyRecord("office", "fourth")
	r.refused(w.Sign(w.Draft(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: return1}), "operator1", "operator3"), "key in force")
	r.ok(w.Sign(node, "third"))
}

func TestSuspension(t *testing.T) {
	r := founded(t)
	w := r.w
	set := func(on bool) *registrypb.Command_SetSuspended {
		return &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "office", Suspended: on}}
	}
	if res := r.ok(w.Command(record.Operators, set(true))); !res.RemovesRight {
		t.Error("a suspension removes rights")
	}
	node := w.Sign(w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")}), "office")
	r.refused(node, "suspended")
	if ok, err := record.NewView(r.state).NodeStands(names.NodeID{Institution: "office", Node: "n1"}); ok || err != nil {
		t.Errorf("node of a suspended institution stands: %t, %v", ok, err)
	}
	// A change of its record does not lift it.
	i := &registrypb.Institution{Id: "office", Name: "Office", Type: "pcsa", Sector: "welfare", ManagingBody: true}
	r.ok(w.Command(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: i}))
	r.refused(node, "suspended")
	if res := r.ok(w.Command(record.Operators, set(false))); res.RemovesRight {
		t.Error("lifting a suspension removes nothing")
	}
	r.ok(node)
}

func TestRemovesRight(t *testing.T) {
	r := founded(t)
	w := r.w
	inst := func(change func(*registrypb.Institution)) []byte {
		i := &registrypb.Institution{Id: "register", Name: "Register", Type: "register", NumberSchemes: []string{"ssin"}}
		change(i)
		return w.Command(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: i})
	}
	removed := recordtest.Node("office", "n1")
	removed.Removed = true
	for i, c := range []struct {
		raw  []byte
		want bool
	}{
		{inst(func(i *registrypb.Institution) { i.Name = "The Register" }), false},
		{inst(func(i *registrypb.Institution) { i.NumberSchemes = append(i.NumberSchemes, "cbe") }), false},
		{inst(func(i *registrypb.Institution) {}), true},
		{inst(func(i *registrypb.Institution) { i.Sector = "welfare" }), true},
		{w.Command(record.Committee, &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: "a-1"}}), true},
		{w.Command("office", &registrypb.Command_SetNode{SetNode: removed}), true},
		{w.Command(record.Operators, &registrypb.Command_SetMembers{SetMembers: &registrypb.Members{Voters: []*registrypb.NodeRef{{Institution: "alpha", Node: "n1"}}}}), true},
	} {
		if res := r.ok(c.raw); res.RemovesRight != c.want {
			t.Errorf("command %d (%s): removes a right: %t, want %t", i, res.Kind, res.RemovesRight, c.want)
		}
	}
}
