package record_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func TestIdentityProviders(t *testing.T) {
	r := founded(t)
	w := r.w
	good := func(change func(*registrypb.IdentityProvider)) *registrypb.Command_SetIdentityProvider {
		p := &registrypb.IdentityProvider{
			Id: "eid", Name: "Electronic identity", Levels: []uint32{2, 3},
			PublicKeys: [][]byte{recordtest.Public("eid1"), recordtest.Public("eid2")},
		}
		if change != nil {
			change(p)
		}
		return &registrypb.Command_SetIdentityProvider{SetIdentityProvider: p}
	}
	draft := func(author string, change func(*registrypb.IdentityProvider)) []byte {
		return w.Sign(w.Draft(author, good(change)), recordtest.Signers(author)...)
	}
	// Only the operators, together, say whom to believe.
	r.refused(draft("office", nil), "may not write")
	r.refused(draft(record.Committee, nil), "may not write")
	r.refused(w.Sign(w.Draft(record.Operators, good(nil)), "operator1"), "1 of the keys")
	for want, change := range map[string]func(*registrypb.IdentityProvider){
		"malformed":   func(p *registrypb.IdentityProvider) { p.Id = "E ID" },
		"name of eid": func(p *registrypb.IdentityProvider) { p.Name = "" },
		"0 keys":      func(p *registrypb.IdentityProvider) { p.PublicKeys = nil },
		"17 keys":     func(p *registrypb.IdentityProvider) { p.PublicKeys = make([][]byte, 17) },
		"key 1":       func(p *registrypb.IdentityProvider) { p.PublicKeys[0] = p.PublicKeys[0][1:] },
		"key 2":       func(p *registrypb.IdentityProvider) { p.PublicKeys[1] = p.PublicKeys[0] },
		"no level":    func(p *registrypb.IdentityProvider) { p.Levels = nil },
		"ascending":   func(p *registrypb.IdentityProvider) { p.Levels = []uint32{3, 3} },
		"levels of":   func(p *registrypb.IdentityProvider) { p.Levels = []uint32{5} },
		"to retire":   func(p *registrypb.IdentityProvider) { p.Retired = true },
	} {
		r.refused(draft(record.Operators, change), want)
	}
	for i, step := range []struct {
		change  func(*registrypb.IdentityProvider)
		removes bool
	}{
		{nil, false},
		{func(p *registrypb.IdentityProvider) { p.Levels = []uint32{1, 2, 3}; p.Name = "eID" }, false},
		{func(p *registrypb.IdentityProvider) { p.Levels = []uint32{2, 3} }, true},
		{func(p *registrypb.IdentityProvider) { p.PublicKeys = p.PublicKeys[1:] }, true},
		{func(p *registrypb.IdentityProvider) { p.PublicKeys = p.PublicKeys[1:]; p.Retired = true }, true},
	} {
		res := r.ok(w.Command(record.Operators, good(step.change)))
		if res.RemovesRight != step.removes || !res.Public {
			t.Errorf("step %d: removes a right %t, public %t", i, res.RemovesRight, res.Public)
		}
		got, err := record.NewView(r.state).IdentityProvider("eid")
		if want := good(step.change).SetIdentityProvider; err != nil || !proto.Equal(got, want) {
			t.Errorf("step %d: %v, %v", i, got, err)
		}
	}
	r.refused(draft(record.Operators, nil), "for ever")
	n := 0
	if err := record.NewView(r.state).IdentityProviders(func(*registrypb.IdentityProvider) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d providers, %v", n, err)
	}
	if p, err := record.NewView(r.state).IdentityProvider("other"); p != nil || err != nil {
		t.Errorf("unknown provider: %v, %v", p, err)
	}
}
