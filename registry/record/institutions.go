package record

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// valid turns the error of a Validate method into a refusal.
func valid(err error) error {
	if err != nil {
		return refusal(err.Error())
	}
	return nil
}

// checkText accepts one line of human words, which shows as what it is.
func checkText(what, s string, most int) error {
	if s == "" || len(s) > most || strings.ContainsFunc(s, misleads) {
		return refuse("%s: want 1 to %d bytes on one line, without control characters", what, most)
	}
	return nil
}

// misleads reports whether a character ends lines, steers terminals, or makes text show
// in another order than it stands. The ranges are written out, because replicas must
// agree on them whatever version of Unicode their program knows.
func misleads(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r <= 0x9f, r == unicode.ReplacementChar:
		return true
	case r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // of direction
		return true
	case r == 0x2028, r == 0x2029, r == 0xfeff: // separators, and nothing at all
		return true
	}
	return false
}

// checkList accepts a list of names without repetition.
func checkList[N interface {
	~string
	Validate() error
}](what string, list []string, least, most int) error {
	if len(list) < least || len(list) > most {
		return refuse("%s: %d of them, want %d to %d", what, len(list), least, most)
	}
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		if err := N(s).Validate(); err != nil {
			return refuse("%s: %v", what, err)
		}
		if seen[s] {
			return refuse("%s: %s stands there twice", what, s)
		}
		seen[s] = true
	}
	return nil
}

func (a *applier) checkInstitution(i *registrypb.Institution) error {
	if err := valid(cmp.Or(names.InstitutionID(i.GetId()).Validate(), names.InstitutionType(i.GetType()).Validate(),
		names.SectorID(i.GetSector()).Validate())); err != nil {
		return err
	}
	if err := checkText("name of "+i.Id, i.Name, 200); err != nil {
		return err
	}
	if len(i.NumberSchemes) > maxList {
		return refuse("more than %d number schemes", maxList)
	}
	for n, s := range i.NumberSchemes {
		if _, ok := a.rules.Schemes[subject.Scheme(s)]; !ok || slices.Contains(i.NumberSchemes[:n], s) {
			return refuse("number scheme %d of %s is unknown, or stands there twice", n+1, i.Id)
		}
	}
	if !i.ManagingBody {
		return nil
	}
	if i.Sector == "" {
		return refuse("%s is a managing body and names no sector", i.Id)
	}
	return a.view.Institutions(func(o *registrypb.Institution) error {
		if o.Id != i.Id && o.ManagingBody && o.Sector == i.Sector {
			return refuse("%s is the managing body of sector %s already", o.Id, o.Sector)
		}
		return nil
	})
}

func (a *applier) setInstitution(i *registrypb.Institution) error {
	if err := a.checkInstitution(i); err != nil {
		return err
	}
	if i.Suspended {
		return refuse("suspension is a command of its own: set_suspended")
	}
	was, err := a.view.Institution(names.InstitutionID(i.Id))
	if err != nil {
		return err
	}
	if was != nil {
		a.removes = was.Type != i.Type || was.Sector != i.Sector || was.ManagingBody != i.ManagingBody ||
			slices.ContainsFunc(was.NumberSchemes, func(s string) bool { return !slices.Contains(i.NumberSchemes, s) })
	}
	if err := a.firstKey(i, was == nil); err != nil {
		return err
	}
	return a.Set(key(tabInstitution, i.Id), bytes.Clone(a.body))
}

// firstKey takes the key that comes with an admission, or with the return of an
// institution that has no key in force left.
func (a *applier) firstKey(i *registrypb.Institution, admission bool) error {
	k := i.FirstKey
	if k == nil {
		if admission {
			return refuse("the admission of %s names no first key", i.Id)
		}
		return nil
	}
	if !admission {
		keys, err := a.view.KeysOf(names.InstitutionID(i.Id))
		if err != nil {
			return err
		}
		if slices.ContainsFunc(keys, func(k *registrypb.Key) bool { return !k.Retired }) {
			return refuse("%s has a key in force, and adds others itself", i.Id)
		}
	}
	if k.Institution != i.Id || k.Retired {
		return refuse("the first key of %s is retired, or another institution's", i.Id)
	}
	return a.addKey(k)
}

// addKey writes a key that must be new to the mesh.
func (a *applier) addKey(k *registrypb.Key) error {
	if envelope.CheckKey(k.GetPublicKey()) != nil { // its text may change, and refusals are compared
		return refuse("public key of %s is not %d bytes that stand for a sound Ed25519 key", k.GetInstitution(), ed25519.PublicKeySize)
	}
	if want := envelope.KeyID(k.PublicKey); k.Id != string(want) {
		return refuse("key id does not match the key, which is %s", want)
	}
	known, err := a.view.Key(names.KeyID(k.Id))
	if err != nil {
		return err
	}
	if known != nil {
		return refuse("key %s is known already", k.Id)
	}
	if err := a.inGroup(k.PublicKey); err != nil {
		return err
	}
	keys, err := a.view.KeysOf(names.InstitutionID(k.Institution))
	if err != nil {
		return err
	}
	if len(keys) >= maxKeys {
		return refuse("%s has %d keys already", k.Institution, len(keys))
	}
	return errors.Join(a.Set(key(tabKey, k.Id), packKey(k)), a.Set(key(tabKeyIndex, k.Institution, k.Id), present))
}

func (a *applier) setKey(k *registrypb.Key) error {
	if a.author != Operators && k.Institution != a.author {
		return refuse("the key is another institution's")
	}
	if !k.Retired {
		if a.author == Operators {
			return refuse("operators may only retire keys; a first key comes with the admission")
		}
		return a.addKey(k)
	}
	known, err := a.view.Key(names.KeyID(k.Id))
	if err != nil {
		return err
	}
	switch {
	case known == nil || known.Institution != k.Institution || !bytes.Equal(known.PublicKey, k.PublicKey):
		return refuse("%s has no such key", k.Institution)
	case known.Retired:
		return refuse("key %s is retired already", k.Id)
	}
	a.removes = true
	return a.Set(key(tabKey, k.Id), packKey(k))
}

func (a *applier) setSuspended(s *registrypb.Suspension) error {
	inst, err := a.view.Institution(names.InstitutionID(s.Institution))
	if err != nil {
		return err
	}
	if inst == nil {
		return refuse("there is no such institution to suspend")
	}
	if inst.Suspended == s.Suspended {
		return refuse("suspended is %t for %s already", s.Suspended, s.Institution)
	}
	if !s.Suspended {
		return a.Delete(key(tabSuspended, s.Institution))
	}
	a.removes = true
	return a.Set(key(tabSuspended, s.Institution), present)
}

func checkNode(n *registrypb.Node, author string) error {
	ref := n.GetRef()
	if ref.GetInstitution() != author {
		return refuse("the node is another institution's")
	}
	if err := valid(names.NodeID{Institution: names.InstitutionID(author), Node: names.NodeName(ref.Node)}.Validate()); err != nil {
		return err
	}
	if len(n.GossipKey) != 0 && len(n.GossipKey) != 32 {
		return refuse("gossip key of node %s has %d bytes, want 32", ref.Node, len(n.GossipKey))
	}
	if !n.Removed && !validAddress(n.Address) {
		return refuse("address of node %s: want host:port, in at most 255 bytes", ref.Node)
	}
	return nil
}

// validAddress is a rule of our own, not the net package's, whose verdict may change.
func validAddress(s string) bool {
	i := strings.LastIndexByte(s, ':')
	if i < 1 || len(s) > 255 || len(s)-i < 2 || len(s)-i > 6 {
		return false
	}
	port := 0
	for _, c := range []byte(s[i+1:]) {
		if c < '0' || c > '9' {
			return false
		}
		port = port*10 + int(c-'0')
	}
	return port > 0 && port < 1<<16 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (a *applier) setNode(n *registrypb.Node) error {
	if err := checkNode(n, a.author); err != nil {
		return err
	}
	id := names.NodeID{Institution: names.InstitutionID(a.author), Node: names.NodeName(n.Ref.Node)}
	was, err := a.view.Node(id)
	if err != nil {
		return err
	}
	if was == nil {
		nodes, err := a.view.NodesOf(id.Institution)
		if err != nil {
			return err
		}
		if n.Removed || len(nodes) >= maxNodes {
			return refuse("there is no node %s to remove, or %d nodes are there already", n.Ref.Node, maxNodes)
		}
	}
	a.removes = n.Removed
	return a.Set(nodeKey(id), bytes.Clone(a.body))
}

func (a *applier) setMembers(m *registrypb.Members) error {
	if err := a.checkVoters(m); err != nil {
		return err
	}
	a.removes = true
	return a.Set([]byte{tabMembers}, bytes.Clone(a.body))
}

func (a *applier) checkVoters(m *registrypb.Members) error {
	if len(m.GetVoters()) == 0 || len(m.GetVoters()) > maxVoters {
		return refuse("%d members: want 1 to %d", len(m.GetVoters()), maxVoters)
	}
	seen := make(map[names.NodeID]bool)
	for i, v := range m.Voters {
		id := NodeID(v)
		if seen[id] {
			return refuse("member %d stands there twice", i+1)
		}
		seen[id] = true
		ok, err := a.view.NodeStands(id)
		if err != nil {
			return err
		}
		if !ok {
			return refuse("member %d is no node in service of an institution in good standing", i+1)
		}
	}
	return nil
}
