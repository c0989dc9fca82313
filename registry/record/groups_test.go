package record_test

import (
	"errors"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func groupOf(name string, m uint32, keys ...string) *registrypb.Group {
	g := &registrypb.Group{Name: name, Threshold: m}
	for _, k := range keys {
		g.PublicKeys = append(g.PublicKeys, recordtest.Public(k))
	}
	return g
}

func setGroup(name string, m uint32, keys ...string) *registrypb.Command_SetGroup {
	return &registrypb.Command_SetGroup{SetGroup: groupOf(name, m, keys...)}
}

// TestGroupChangesItsKeys rotates the committee, and tries every way to do so wrongly.
func TestGroupChangesItsKeys(t *testing.T) {
	r := founded(t)
	w := r.w
	next := []string{"committee1", "committee2", "new1", "new2"}
	change := func(m uint32, keys ...string) *registrypb.Command {
		return w.Draft(record.Committee, setGroup(record.Committee, m, keys...))
	}
	for name, c := range map[string]struct {
		cmd     *registrypb.Command
		signers []string
		want    string
	}{
		"too few":               {change(2, next...), []string{"committee1"}, "1 of the keys"},
		"the new ones alone":    {change(2, next...), []string{"new1", "new2"}, "0 of the keys"},
		"nobody holds the new":  {change(2, "new1", "new2"), []string{"committee1", "committee2"}, "0 of the new keys"},
		"one of two new":        {change(2, "new1", "new2"), []string{"committee1", "committee2", "new1"}, "1 of the new keys"},
		"threshold above":       {change(5, next...), []string{"committee1", "committee2"}, "of 4 keys"},
		"threshold none":        {change(0, next...), []string{"committee1", "committee2"}, "0 of 4 keys"},
		"no keys":               {change(1), []string{"committee1", "committee2"}, "of 0 keys"},
		"a key twice":           {change(2, "committee1", "committee2", "committee1"), []string{"committee1", "committee2"}, "twice"},
		"an operator's key":     {change(2, "committee1", "committee2", "operator1"), []string{"committee1", "committee2"}, "of @operators already"},
		"an institution's key":  {change(2, "committee1", "committee2", "office"), []string{"committee1", "committee2"}, "of an institution"},
		"another group's":       {w.Draft(record.Operators, setGroup(record.Committee, 2, next...)), []string{"operator1", "operator2", "committee1", "committee2"}, "its own keys only"},
		"an institution writes": {w.Draft("office", setGroup(record.Committee, 2, next...)), []string{"office"}, "may not write"},
	} {
		t.Run(name, func(t *testing.T) {
			r.refused(w.Sign(c.cmd, c.signers...), c.want)
		})
	}

	c := change(2, next...)
	raw := w.Sign(c, "committee1", "committee2")
	if res := r.ok(raw); !res.RemovesRight {
		t.Error("committee3 may do less than before")
	}
	w.Follow(c)
	// A signature over other bytes: those of the change do not sign a grant.
	grant := w.Draft(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: authorization("a-2")})
	r.refused(w.Sign(grant, "committee1", "committee3"), "1 of the keys") // committee3 is retired
	r.ok(w.Sign(grant, "committee1", "new2"))
	w.Follow(grant)

	r.refused(w.Sign(change(2, "committee1", "committee3"), "committee1", "new1", "committee3"), "does not come back")
	// A key that left signs for nobody.
	r.refused(w.Sign(w.Draft("office", &registrypb.Command_SetKey{SetKey: recordtest.KeyRecord("office", "committee3")}), "office"), "one duty")
	r.refused(w.Sign(w.Draft("office", &registrypb.Command_SetKey{SetKey: recordtest.KeyRecord("office", "new1")}), "office"), "one duty")
	former, err := record.NewView(r.state).FormerKeys(record.Committee)
	if err != nil || len(former) != 1 || !former[0].Equal(recordtest.Public("committee3")) {
		t.Errorf("former keys %v, %v", former, err)
	}
	g, ok, err := record.NewView(r.state).Group(w.Rules, record.Committee)
	if err != nil || !ok || g.M != 2 || len(g.Keys) != 4 {
		t.Errorf("group %+v, %v", g, err)
	}
}

// recovery plays a loss of the operators' threshold.
type recovery struct {
	*replica
	raw []byte // the announcement
	id  []byte
}

func announce(t *testing.T) *recovery {
	r := &recovery{replica: founded(t)}
	w := r.w
	draft := w.Draft(record.Recovery, &registrypb.Command_AnnounceRecovery{AnnounceRecovery: &registrypb.RecoveryAnnouncement{
		Group: groupOf(record.Operators, 2, "op-new1", "op-new2", "op-new3"), Reason: "two of three keys burned",
	}})
	r.refused(w.Sign(draft, "recovery1", "recovery2"), "0 of the new keys")
	r.refused(w.Sign(draft, "recovery1", "op-new1", "op-new2"), "1 of the keys")
	r.raw = w.Sign(draft, "recovery1", "recovery3", "op-new1", "op-new2")
	r.ok(r.raw)
	w.Follow(draft)
	waiting := r.waiting()
	if len(waiting) != 1 || waiting[0].Group != record.Operators || waiting[0].Needed != 2 || waiting[0].Index != r.index {
		t.Fatalf("waiting %+v", waiting)
	}
	r.id = waiting[0].ID
	return r
}

func (r *recovery) waiting() []record.PendingRecovery {
	r.t.Helper()
	all, err := record.NewView(r.state).PendingRecoveries()
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func (r *recovery) confirm(inst string) []byte {
	return r.w.Command(inst, &registrypb.Command_ConfirmRecovery{ConfirmRecovery: &registrypb.Recovery{Announcement: r.id}})
}

func (r *recovery) draftConfirm(inst string) *registrypb.Command {
	return r.w.Draft(inst, &registrypb.Command_ConfirmRecovery{ConfirmRecovery: &registrypb.Recovery{Announcement: r.id}})
}

const delay = int64(7 * 24 * time.Hour / time.Millisecond)

// TestLostThresholdIsReplaced walks through the recovery of a group whose threshold is
// lost.
func TestLostThresholdIsReplaced(t *testing.T) {
	r := announce(t)
	w := r.w
	old := w.Draft(record.Operators, &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "office", Suspended: true}})
	r.refused(w.Sign(w.Draft("office", &registrypb.Command_ConfirmRecovery{ConfirmRecovery: &registrypb.Recovery{Announcement: r.id}}), "office"), "no voting member")
	r.ok(r.confirm("alpha"))
	w.Time += delay / 2
	r.ok(r.confirm("beta"))
	r.refused(w.Sign(r.draftConfirm("alpha"), "alpha"), "have passed")
	w.Time += delay / 2
	r.ok(r.confirm("alpha"))
	r.refused(w.Sign(r.draftConfirm("alpha"), "alpha"), "said already")
	r.refused(w.Sign(r.draftConfirm("beta"), "beta"), "have passed") // it saw it later
	r.refused(w.Sign(old, "op-new1", "op-new2"), "0 of the keys")    // one of three is no majority
	w.Time += delay / 2
	if res := r.ok(r.confirm("beta")); !res.RemovesRight {
		t.Error("the old keys may do less than before")
	}
	if len(r.waiting()) != 0 {
		t.Errorf("still waiting: %+v", r.waiting())
	}
	r.refused(w.Sign(old, "operator1", "operator2"), "0 of the keys")
	r.ok(w.Sign(old, "op-new1", "op-new3"))
	w.Follow(old)
	r.refused(w.Sign(r.draftConfirm("gamma"), "gamma"), "no such replacement")
	if res := r.ok(r.raw); !res.Repeated {
		t.Error("sending the announcement again announces again")
	}
}

// TestNobodyCutsTheDelayShort lets the recovery keys, and one member, lie about time.
func TestNobodyCutsTheDelayShort(t *testing.T) {
	r := announce(t)
	w := r.w
	// A member whose clock runs wild counts once only.
	r.ok(r.confirm("gamma"))
	w.Time += 100 * delay
	r.ok(r.confirm("gamma"))
	w.Time -= 100 * delay
	r.ok(r.confirm("alpha"))
	r.refused(w.Sign(r.draftConfirm("alpha"), "alpha"), "have passed")
	if p := r.waiting(); len(p) != 1 || p[0].Confirmed != 1 {
		t.Fatalf("waiting %+v", p)
	}
	// A clock that was set back says nothing.
	w.Time -= 2 * delay
	r.refused(w.Sign(r.draftConfirm("alpha"), "alpha"), "have passed")
	w.Time += 2 * delay
	// While it waits nothing else can be announced over it.
	r.refused(w.Sign(w.Draft(record.Recovery, &registrypb.Command_AnnounceRecovery{AnnounceRecovery: &registrypb.RecoveryAnnouncement{
		Group: groupOf(record.Operators, 1, "thief"), Reason: "in a hurry"}}), "recovery1", "recovery2", "thief"), "waits already")
	// Nor does recovery write what operators write, nor replace itself.
	r.refused(w.Sign(w.Draft(record.Recovery, &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "office", Suspended: true}}), "recovery1", "recovery2"), "may not write")
	r.refused(w.Sign(w.Draft(record.Recovery, &registrypb.Command_AnnounceRecovery{AnnounceRecovery: &registrypb.RecoveryAnnouncement{
		Group: groupOf(record.Recovery, 1, "thief"), Reason: "for ever"}}), "recovery1", "recovery2", "thief"), "no such group")
}

// TestThresholdThatIsNotLostCancels lets the operators show that they are there.
func TestThresholdThatIsNotLostCancels(t *testing.T) {
	cancel := func(r *recovery, author string) *registrypb.Command {
		return r.w.Draft(author, &registrypb.Command_CancelRecovery{CancelRecovery: &registrypb.Recovery{Announcement: r.id}})
	}
	for name, end := range map[string]func(r *recovery) []byte{
		"cancelled by the group":     func(r *recovery) []byte { return r.w.Sign(cancel(r, record.Operators), "operator1", "operator2") },
		"cancelled by the announcer": func(r *recovery) []byte { return r.w.Sign(cancel(r, record.Recovery), "recovery1", "recovery2") },
		"the group changes its keys": func(r *recovery) []byte {
			return r.w.Sign(r.w.Draft(record.Operators, setGroup(record.Operators, 1, "operator1")), "operator1", "operator2")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := announce(t)
			r.refused(r.w.Sign(cancel(r, record.Committee), "committee1", "committee2"), "only @operators or @recovery")
			r.refused(r.w.Sign(cancel(r, record.Operators), "operator1"), "1 of the keys")
			r.ok(r.confirm("alpha"))
			r.w.Time += delay
			r.ok(r.confirm("alpha"))
			r.ok(end(r))
			if len(r.waiting()) != 0 {
				t.Fatalf("still waiting: %+v", r.waiting())
			}
			c, err := record.NewView(r.state).RecoveryConfirmation(record.Operators, "alpha")
			if err != nil || c != (record.Confirmation{}) {
				t.Errorf("what alpha said would count for the next one: %+v, %v", c, err)
			}
			r.refused(r.w.Sign(r.draftConfirm("beta"), "beta"), "no such replacement")
		})
	}
}

// TestLostRecoveryIsReplaced: the operators announce for the recovery group.
func TestLostRecoveryIsReplaced(t *testing.T) {
	r := &recovery{replica: founded(t)}
	c := r.w.Draft(record.Operators, &registrypb.Command_AnnounceRecovery{AnnounceRecovery: &registrypb.RecoveryAnnouncement{
		Group: groupOf(record.Recovery, 1, "rec-new"), Reason: "the safe was flooded"}})
	r.ok(r.w.Sign(c, "operator1", "operator2", "rec-new"))
	r.w.Follow(c)
	r.id = r.waiting()[0].ID
	for range 2 {
		r.ok(r.confirm("alpha"))
		r.ok(r.confirm("gamma"))
		r.w.Time += delay
	}
	g, _, err := record.NewView(r.state).Group(r.w.Rules, record.Recovery)
	if err != nil || g.M != 1 || !g.Keys[0].Equal(recordtest.Public("rec-new")) {
		t.Errorf("recovery is %+v, %v", g, err)
	}
}

func TestFeatureLevels(t *testing.T) {
	raise := func(l uint32) *registrypb.Command_SetFeatureLevel {
		return &registrypb.Command_SetFeatureLevel{SetFeatureLevel: &registrypb.FeatureLevel{Level: l}}
	}
	w := recordtest.New(t, "alpha", "beta", "gamma")
	w.Rules.Level = 1
	r := &replica{t: t, w: w, state: new(record.MapState)}
	if err := record.Bootstrap(r.state, w.Rules); err != nil {
		t.Fatal(err)
	}
	r.refused(w.Sign(w.Draft(record.Operators, setGroup(record.Operators, 1, "operator1")), "operator1", "operator2"), "takes feature level 2")
	r.refused(w.Sign(w.Draft(record.Operators, raise(3)), "operator1", "operator2"), "one at a time")
	r.refused(w.Sign(w.Draft(record.Operators, raise(1)), "operator1", "operator2"), "one at a time")
	r.refused(w.Sign(w.Draft(record.Committee, raise(2)), "committee1", "committee2"), "may not write")
	raw := w.Command(record.Operators, raise(2))
	if record.Raises(raw) != 2 || record.Raises([]byte("x")) != 0 {
		t.Error("not known for what it is")
	}

	// An older program does not refuse what it cannot judge, and writes nothing.
	old := *w.Rules
	old.Knows = 1
	rows := func() (n int) {
		_ = r.state.Scan(nil, nil, func(_, _ []byte) error { n++; return nil })
		return n
	}
	before := rows()
	if _, err := record.Apply(r.state, &old, r.index+1, raw); !errors.Is(err, record.ErrOldProgram) {
		t.Fatalf("the older program says %v", err)
	}
	if rows() != before {
		t.Error("it wrote something")
	}
	r.ok(raw)
	if err := record.Bootstrap(r.state, &old); !errors.Is(err, record.ErrOldProgram) {
		t.Errorf("it opens a state of a later level: %v", err)
	}
	if err := record.Bootstrap(r.state, w.Rules); err != nil {
		t.Error(err)
	}
	r.ok(w.Command(record.Operators, setGroup(record.Operators, 1, "operator1")))
	// Forged, it does not stop anybody.
	forged := w.Draft(record.Operators, raise(3))
	r.refused(w.Sign(forged, "operator2", "operator3"), "0 of the keys")
	if _, err := record.Apply(r.state, w.Rules, r.index+1, w.Sign(forged, "operator1")); !errors.Is(err, record.ErrOldProgram) {
		t.Errorf("raised beyond this program: %v", err)
	}
}

func TestAuthorizationUnderLaw(t *testing.T) {
	r := founded(t)
	w := r.w
	z := authorization("law-1")
	z.Deliberation = "Act of 15 January 1990, art. 14"
	z.Law = &registrypb.Law{Title: "Act of 15 January 1990", Article: "art. 14", Published: "Official Journal, 22 February 1990"}
	set := func(author string, z *registrypb.Authorization) *registrypb.Command {
		return w.Draft(author, &registrypb.Command_SetAuthorization{SetAuthorization: z})
	}
	revoke := func(author, id string) *registrypb.Command {
		return w.Draft(author, &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: id}})
	}
	r.refused(w.Sign(set(record.Committee, z), "committee1", "committee2"), "no decision of @committee")
	r.refused(w.Sign(set(record.Operators, authorization("law-2")), "operator1", "operator2"), "cites none")
	r.refused(w.Sign(set("office", z), "office"), "may not write")
	r.refused(w.Sign(set(record.Operators, z), "operator1"), "1 of the keys")
	vague := authorization("law-3")
	vague.Law = &registrypb.Law{Title: "Some law"}
	r.refused(w.Sign(set(record.Operators, vague), "operator1", "operator2"), "article of the law")
	for _, author := range []string{record.Operators, record.Committee} { // either takes it away
		z.Id = "law-of-" + author[1:]
		r.ok(w.Command(record.Operators, &registrypb.Command_SetAuthorization{SetAuthorization: z}))
		r.ok(w.Command(author, &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: z.Id}}))
	}
	r.refused(w.Sign(revoke(record.Operators, "a-1"), "operator1", "operator2"), "committee's decision")
}

// TestManagingBodyOffersForItsSector, and for no other.
func TestManagingBodyOffersForItsSector(t *testing.T) {
	r := founded(t)
	w := r.w
	r.ok(w.Admit(&registrypb.Institution{Id: "ghent", Type: "pcsa", Sector: "welfare"}))
	offer := func(author, inst string) []byte {
		o := offering()
		o.Institution = inst
		return w.Sign(w.Draft(author, &registrypb.Command_SetOffering{SetOffering: o}), author)
	}
	r.refused(offer("ghent", "office"), "another institution's") // a member is not the body
	r.refused(offer("office", "register"), "another institution's")
	r.refused(offer("office", "nobody"), "another institution's")
	c := w.Draft("office", &registrypb.Command_SetOffering{SetOffering: &registrypb.Offering{
		Institution: "ghent", Dataset: "wages/v1", Qualities: []string{"employee"}, Period: recordtest.Since()}})
	r.ok(w.Sign(c, "office"))
	w.Follow(c)
	o, err := record.NewView(r.state).Offering("wages/v1", "ghent")
	if err != nil || o == nil {
		t.Fatalf("offering %v, %v", o, err)
	}
	// Keys, nodes and files are each institution's own.
	r.refused(w.Sign(w.Draft("office", &registrypb.Command_SetKey{SetKey: recordtest.KeyRecord("ghent", "other")}), "office"), "another institution's")
	r.refused(w.Sign(w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("ghent", "n1")}), "office"), "another institution's")
}

// TestMergedNumbers follows two numbers of one person that both were in use.
func TestMergedNumbers(t *testing.T) {
	r := founded(t)
	w := r.w
	stays, goes, older := recordtest.Person(1), recordtest.Person(2), recordtest.Person(3)
	for inst, number := range map[string]string{"alpha": stays, "beta": goes, "gamma": older} {
		r.ok(w.Declare(inst, recordtest.Reference(number, "employee")))
	}
	merge := func(from, to string) *registrypb.Command_SetNumbers {
		return &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
			{Subject: recordtest.SSIN(from), Kind: registrypb.NumberEvent_MERGED, Successor: recordtest.SSIN(to)}}}}
	}
	r.ok(w.Command("register", merge(older, goes))) // a merger of mergers
	r.ok(w.Command("register", merge(goes, stays)))
	r.refused(w.Sign(w.Draft("register", merge(stays, older)), "register"), "replace itself")
	v := record.NewView(r.state)
	refs, err := v.References(id(stays))
	if err != nil || len(refs) != 3 {
		t.Errorf("references under all three numbers: %+v, %v", refs, err)
	}
	for _, number := range []string{goes, older} {
		s, err := v.Number(id(number))
		if err != nil || !s.Replaced || !s.Merged || s.Successor != id(stays) {
			t.Errorf("state %+v, %v", s, err)
		}
	}
	if family, err := v.Family(id(older)); err != nil || len(family) != 3 {
		t.Errorf("family of %d, %v", len(family), err)
	}
	if c, err := v.Counts(); err != nil || c.References != 3 {
		t.Errorf("counts %+v, %v: a merger moves no file", c, err)
	}
}
