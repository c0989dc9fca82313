package record_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// replica is a state with its next index.
type replica struct {
	t     testing.TB
	w     *recordtest.World
	state *record.MapState
	index uint64
}

const schema = `{"type":"object","properties":{"gross":{"type":"number"},"net":{"type":"number"},"employer":{"type":"string"}}}`

// founded has three members (alpha, beta, gamma), an office (pcsa), a register
// (keeps ssin), a dataset, an offering and an authorization.
func founded(t testing.TB) *replica {
	w := recordtest.New(t, "alpha", "beta", "gamma")
	r := &replica{t: t, w: w, state: new(record.MapState)}
	if err := record.Bootstrap(r.state, w.Rules); err != nil {
		t.Fatal(err)
	}
	r.ok(w.Admit(&registrypb.Institution{Id: "office", Type: "pcsa", Sector: "welfare", ManagingBody: true}))
	r.ok(w.Admit(&registrypb.Institution{Id: "register", Type: "register", NumberSchemes: []string{"ssin"}}))
	r.ok(w.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n1")}))
	r.ok(w.Command(record.Operators, &registrypb.Command_SetDataset{SetDataset: dataset()}))
	r.ok(w.Command("register", &registrypb.Command_SetOffering{SetOffering: offering()}))
	r.ok(w.Command(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: authorization("a-1")}))
	return r
}

func dataset() *registrypb.Dataset {
	return &registrypb.Dataset{Id: "wages/v1", Title: "Wages", Schema: schema, Scheme: "ssin", Qualities: []string{"employee"}}
}

func offering() *registrypb.Offering {
	return &registrypb.Offering{Institution: "register", Dataset: "wages/v1", Qualities: []string{"employee"}, Period: recordtest.Since()}
}

func authorization(id string) *registrypb.Authorization {
	return &registrypb.Authorization{
		Id: id, Deliberation: "DEMO-2024/017", RequesterType: "pcsa", RequesterQualities: []string{"living-wage"},
		Dataset: "wages/v1", Fields: []string{"gross"}, Purpose: "inquiry", Modes: []string{"consultation"}, Period: recordtest.Since(),
	}
}

func (r *replica) apply(raw []byte) record.Result {
	r.t.Helper()
	r.index++
	res, err := record.Apply(r.state, r.w.Rules, r.index, raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

func (r *replica) ok(raw []byte) record.Result {
	r.t.Helper()
	res := r.apply(raw)
	if !res.Accepted || res.Refusal != "" {
		r.t.Fatalf("refused: %s", res.Refusal)
	}
	return res
}

// refused insists on a refusal that says why and leaves every byte as it was.
func (r *replica) refused(raw []byte, why string) {
	r.t.Helper()
	before := dump(r.t, r.state)
	res := r.apply(raw)
	if res.Accepted || res.Refusal == "" || !strings.Contains(res.Refusal, why) {
		r.t.Errorf("accepted %t, refusal %q, want one with %q", res.Accepted, res.Refusal, why)
	}
	if !maps.Equal(before, dump(r.t, r.state)) {
		r.t.Error("a refused command changed the state")
	}
}

func dump(t testing.TB, g record.Getter) map[string]string {
	rows := make(map[string]string)
	if err := g.Scan(nil, nil, func(k, v []byte) error { rows[string(k)] = string(v); return nil }); err != nil {
		t.Fatal(err)
	}
	return rows
}

func id(number string) subject.ID { return subject.Raw(subject.SSIN, number) }

func TestTables(t *testing.T) {
	r := founded(t)
	v := record.NewView(r.state)
	if m, err := v.Members(); err != nil || len(m) != 3 || m[0].String() != "alpha/n1" {
		t.Errorf("members %v, %v", m, err)
	}
	if i, err := v.Institution("office"); err != nil || i.Type != "pcsa" || i.FirstKey != nil {
		t.Errorf("institution %v, %v", i, err)
	}
	if keys, err := v.KeysOf("office"); err != nil || len(keys) != 1 || !bytes.Equal(keys[0].PublicKey, recordtest.Public("office")) {
		t.Errorf("keys %v, %v", keys, err)
	}
	if z, err := v.AuthorizationsFor("pcsa", "wages/v1", "inquiry"); err != nil || len(z) != 1 || z[0].Id != "a-1" {
		t.Errorf("authorizations %v, %v", z, err)
	}
	if z, err := v.AuthorizationsFor("pcsa", "wages/v1", "other"); err != nil || z != nil {
		t.Errorf("authorizations for another purpose %v, %v", z, err)
	}
	if o, err := v.OfferingsOf("wages/v1"); err != nil || len(o) != 1 {
		t.Errorf("offerings %v, %v", o, err)
	}
	for _, absent := range []func() (any, error){
		func() (any, error) { x, err := v.Institution("nobody"); return x == nil, err },
		func() (any, error) { x, err := v.Key("nobody"); return x == nil, err },
		func() (any, error) {
			x, err := v.Node(names.NodeID{Institution: "office", Node: "n2"})
			return x == nil, err
		},
		func() (any, error) { x, err := v.Dataset("wages/v2"); return x == nil, err },
		func() (any, error) { x, err := v.Authorization("a-2"); return x == nil, err },
		func() (any, error) { x, err := v.References(id(recordtest.Person(1))); return x == nil, err },
	} {
		if none, err := absent(); err != nil || none != true {
			t.Errorf("absent row: %v, %v", none, err)
		}
	}
}

func TestWhoMayWrite(t *testing.T) {
	r := founded(t)
	node := &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")}
	revoke := &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: "a-1"}}
	suspend := &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "office", Suspended: true}}
	w := r.w
	for name, c := range map[string]struct {
		author  string
		body    any
		signers []string
		why     string
	}{
		"another institution's key":       {"office", node, []string{"register"}, "no key in force"},
		"another institution's node":      {"register", node, []string{"register"}, "another institution"},
		"unknown institution":             {"nobody", node, []string{"office"}, "not admitted"},
		"operators' key for institution":  {"office", node, []string{"operator1", "operator2"}, "no key in force"},
		"one operator of two":             {record.Operators, suspend, []string{"operator1"}, "1 of the keys"},
		"one operator, and others":        {record.Operators, suspend, []string{"operator1", "committee1", "office"}, "1 of the keys"},
		"committee signs for operators":   {record.Operators, suspend, []string{"committee1", "committee2"}, "0 of the keys"},
		"committee suspends":              {record.Committee, suspend, []string{"committee1", "committee2"}, "may not write"},
		"operators revoke authorizations": {record.Operators, revoke, []string{"operator1", "operator2"}, "may not write"},
		"institution suspends":            {"office", suspend, []string{"office"}, "may not write"},
		"recovery":                        {record.Recovery, suspend, []string{"recovery1", "recovery2"}, "may not write"},
		"unknown group":                   {"@nobody", suspend, []string{"operator1", "operator2"}, "unknown author group"},
		"operators set a node":            {record.Operators, node, []string{"operator1", "operator2"}, "may not write"},
		"operators add a key": {record.Operators, &registrypb.Command_SetKey{SetKey: recordtest.KeyRecord("office", "new")},
			[]string{"operator1", "operator2"}, "only retire"},
		"key for another": {"register", &registrypb.Command_SetKey{SetKey: recordtest.KeyRecord("office", "new")}, []string{"register"}, "another institution"},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			r.refused(w.Sign(w.Draft(c.author, c.body), c.signers...), c.why)
		})
	}
}

func TestChain(t *testing.T) {
	r := founded(t)
	w := r.w
	body := &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")}
	for name, change := range map[string]func(*registrypb.Command){
		"gap":             func(c *registrypb.Command) { c.Sequence++ },
		"sequence again":  func(c *registrypb.Command) { c.Sequence-- },
		"zero":            func(c *registrypb.Command) { c.Sequence = 0 },
		"other previous":  func(c *registrypb.Command) { c.Previous[3] ^= 1 },
		"no previous":     func(c *registrypb.Command) { c.Previous = nil },
		"other mesh":      func(c *registrypb.Command) { c.Mesh = "other.mesh" },
		"no time":         func(c *registrypb.Command) { c.TimeUnixMs = 0 },
		"wrong chain":     func(c *registrypb.Command) { c.Chain, c.Sequence, c.Previous = registrypb.Chain_DIRECTORY, 1, nil },
		"unknown chain":   func(c *registrypb.Command) { c.Chain = 7 },
		"no body":         func(c *registrypb.Command) { c.Body = nil },
		"unknown content": func(c *registrypb.Command) { c.GetSetNode().ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			c := proto.CloneOf(w.Draft("office", body))
			change(c)
			r.refused(w.Sign(c, "office"), "")
		})
	}
	raw := w.Command("office", body)
	first := r.ok(raw)
	if first.Author != "office" || !first.Public || first.Kind != "set_node" || first.RemovesRight {
		t.Errorf("result %+v", first)
	}
	at := r.index
	before := dump(t, r.state)
	r.ok(w.Command("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n3")}))
	after := dump(t, r.state)
	if maps.Equal(before, after) {
		t.Error("an accepted command changed nothing")
	}
	// Old and new repeats are recognised, also with other signatures on them.
	other, _ := envelope.AddSignature(raw, recordtest.Key("alpha"))
	for _, again := range [][]byte{raw, other} {
		if res := r.ok(again); !res.Repeated || res.FirstIndex != at {
			t.Errorf("repeat: %+v, want first index %d", res, at)
		}
	}
	if !maps.Equal(after, dump(t, r.state)) {
		t.Error("a repeat changed the state")
	}
}

// TestTampering flips a bit in every byte of a signed command, and cuts it everywhere.
func TestTampering(t *testing.T) {
	r := founded(t)
	raw := r.w.Sign(r.w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")}), "office")
	before := dump(t, r.state)
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1 << (i % 8)
		if res := r.apply(bad); res.Accepted {
			t.Fatalf("accepted with bit %d of byte %d flipped", i%8, i)
		}
	}
	for cut := range raw {
		if res := r.apply(raw[:cut]); res.Accepted {
			t.Fatalf("accepted when cut at %d", cut)
		}
	}
	if !maps.Equal(before, dump(t, r.state)) {
		t.Error("tampered bytes changed the state")
	}
	env := new(certspb.Envelope)
	if err := proto.Unmarshal(raw, env); err != nil {
		t.Fatal(err)
	}
	env.Payload = append(env.Payload, env.Payload...) // the same fields twice
	env.Signatures = nil
	doubled, _ := proto.Marshal(env)
	r.refused(doubled, "twice")
	other, err := envelope.Sign(envelope.Request, nil, recordtest.Key("office"))
	if err != nil {
		t.Fatal(err)
	}
	r.refused(other, "another type")
}

// TestSense tries records that their rightful author must not write.
func TestSense(t *testing.T) {
	r := founded(t)
	w := r.w
	with := func(change func(z *registrypb.Authorization)) any {
		z := authorization("a-2")
		change(z)
		return &registrypb.Command_SetAuthorization{SetAuthorization: z}
	}
	data := func(change func(d *registrypb.Dataset)) any {
		d := dataset()
		change(d)
		return &registrypb.Command_SetDataset{SetDataset: d}
	}
	offer := func(change func(o *registrypb.Offering)) any {
		o := offering()
		change(o)
		return &registrypb.Command_SetOffering{SetOffering: o}
	}
	inst := func(i *registrypb.Institution) any {
		return &registrypb.Command_SetInstitution{SetInstitution: i}
	}
	key := func(id string) *registrypb.Key { return recordtest.KeyRecord(id, id) }
	backwards := &registrypb.Period{From: 10, Until: 9}
	for _, c := range []struct {
		author string
		body   any
		why    string
	}{
		{record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: authorization("a-1")}, "never changes"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.Fields = []string{"gross", "secret"} }), "no field secret"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.Fields = nil }), "fields"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.Fields = []string{"gross", "gross"} }), "twice"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.RequesterQualities = nil }), "qualities"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.Dataset = "wages/v2" }), "no dataset"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.Modes = []string{"gossip"} }), "mode"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.Period = backwards }), "before it begins"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.Period = nil }), "no period"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.Deliberation = "" }), "deliberation"},
		{record.Committee, with(func(z *registrypb.Authorization) { z.Revoked = true }), "command of its own"},
		{record.Committee, &registrypb.Command_RevokeAuthorization{RevokeAuthorization: &registrypb.AuthorizationID{Id: "a-9"}}, "no authorization"},
		{record.Operators, data(func(d *registrypb.Dataset) { d.Id = "wages" }), "name/vN"},
		{record.Operators, data(func(d *registrypb.Dataset) { d.Schema = `{"properties":{"gross":{}}}` }), "new version"},
		{record.Operators, data(func(d *registrypb.Dataset) { d.Scheme = "cbe" }), "new version"},
		{record.Operators, data(func(d *registrypb.Dataset) { d.Scheme = "passport" }), "unknown identifier scheme"},
		{record.Operators, data(func(d *registrypb.Dataset) { d.Schema = `{"type":"object"}` }), "properties"},
		{record.Operators, data(func(d *registrypb.Dataset) { d.Schema = schema + " " + schema }), "JSON"},
		{record.Operators, data(func(d *registrypb.Dataset) { d.Schema = schema + strings.Repeat(" ", 64<<10) }), "bytes"},
		{record.Operators, data(func(d *registrypb.Dataset) { d.Title = "two\nlines" }), "one line"},
		{"register", offer(func(o *registrypb.Offering) { o.Dataset = "wages/v2" }), "no dataset"},
		{"register", offer(func(o *registrypb.Offering) { o.Institution = "office" }), "another institution"},
		{"register", offer(func(o *registrypb.Offering) { o.Qualities = nil }), "qualities"},
		{"register", offer(func(o *registrypb.Offering) { o.Period = backwards }), "before it begins"},
		{record.Operators, inst(&registrypb.Institution{Id: "new", Name: "New", Type: "x"}), "no first key"},
		{record.Operators, inst(&registrypb.Institution{Id: "new", Name: "New", Type: "x", FirstKey: key("other")}), "another institution"},
		{record.Operators, inst(&registrypb.Institution{Id: "New", Name: "New", Type: "x", FirstKey: key("New")}), "not allowed"},
		{record.Operators, inst(&registrypb.Institution{Id: "new", Name: "New", Type: "x", Suspended: true, FirstKey: key("new")}), "command of its own"},
		{record.Operators, inst(&registrypb.Institution{Id: "new", Name: "New", Type: "x", ManagingBody: true, FirstKey: key("new")}), "no sector"},
		{record.Operators, inst(&registrypb.Institution{Id: "new", Name: "New", Type: "x", Sector: "welfare", ManagingBody: true, FirstKey: key("new")}), "managing body of sector"},
		{record.Operators, inst(&registrypb.Institution{Id: "new", Name: "New", Type: "x", NumberSchemes: []string{"passport"}, FirstKey: key("new")}), "scheme"},
		{record.Operators, &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "nobody", Suspended: true}}, "no such institution"},
		{record.Operators, &registrypb.Command_SetMembers{SetMembers: &registrypb.Members{}}, "0 members"},
		{record.Operators, &registrypb.Command_SetMembers{SetMembers: &registrypb.Members{Voters: []*registrypb.NodeRef{{Institution: "office", Node: "n9"}}}}, "no node in service"},
		{"office", &registrypb.Command_SetNode{SetNode: &registrypb.Node{Ref: &registrypb.NodeRef{Institution: "office", Node: "n2"}, Address: "nowhere"}}, "host:port"},
		{"office", &registrypb.Command_SetNode{SetNode: &registrypb.Node{Ref: &registrypb.NodeRef{Institution: "office", Node: "N 2"}, Address: "a:1"}}, "not allowed"},
		{"office", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{Events: []*registrypb.NumberEvent{
			{Subject: recordtest.SSIN(recordtest.Person(1)), Kind: registrypb.NumberEvent_CANCELLED}}}}, "does not keep"},
	} {
		name := fmt.Sprintf("%T: %s", c.body, c.why)
		t.Run(name, func(t *testing.T) {
			r.t = t
			r.refused(w.Sign(w.Draft(c.author, c.body), recordtest.Signers(c.author)...), c.why)
		})
	}
}

func TestBootstrap(t *testing.T) {
	r := founded(t)
	if err := record.Bootstrap(r.state, r.w.Rules); err != nil {
		t.Errorf("founded already: %v", err)
	}
	other := recordtest.New(t, "alpha", "beta", "delta").Rules
	if err := record.Bootstrap(r.state, other); err != record.ErrOtherRules {
		t.Errorf("other rules: %v", err)
	}
	none := *r.w.Rules
	none.Members = nil
	if err := record.Bootstrap(new(record.MapState), &none); err == nil {
		t.Error("founded without members")
	}
	twice := *r.w.Rules
	twice.Members = append(slices.Clone(twice.Members), twice.Members[0])
	if err := record.Bootstrap(new(record.MapState), &twice); err == nil {
		t.Error("founded with a member twice")
	}
	rivals := recordtest.New(t, "alpha", "beta").Rules
	for _, m := range rivals.Members {
		m.Institution.Sector, m.Institution.ManagingBody = "health", true
	}
	if err := record.Bootstrap(new(record.MapState), rivals); err == nil {
		t.Error("founded with two managing bodies of one sector")
	}
}

func FuzzApply(f *testing.F) {
	r := founded(f)
	w := r.w
	f.Add(w.Sign(w.Draft("office", &registrypb.Command_SetNode{SetNode: recordtest.Node("office", "n2")}), "register"))
	f.Add(w.Sign(w.Draft("office", &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{
		References: []*registrypb.Reference{recordtest.Reference(recordtest.Person(1), "x")}}}), "register"))
	f.Add(w.Sign(w.Draft("register", &registrypb.Command_SetNumbers{SetNumbers: &registrypb.NumberEvents{}}), "office"))
	f.Add([]byte{})
	before := dump(f, r.state)
	f.Fuzz(func(t *testing.T, raw []byte) {
		res, err := record.Apply(r.state, w.Rules, 1000, raw)
		if err != nil {
			t.Fatal(err)
		}
		if res.Accepted && !res.Repeated {
			t.Fatal("accepted what nobody signed")
		}
		if !maps.Equal(before, dump(t, r.state)) {
			t.Fatal("changed the state")
		}
	})
}
