package record

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Groups are the names of the threshold groups.
var groupNames = [...]string{Operators, Committee, Recovery}

// GroupNames gives the authors that are threshold groups.
func GroupNames() []string { return groupNames[:] }

// Group gives the keys of a threshold group as they now stand; false: there is no such
// group. They are those of the genesis file until the group, or a recovery, changed them.
func (v View) Group(r *Rules, name string) (Threshold, bool, error) {
	first, ok := r.group(name)
	if !ok {
		return Threshold{}, false, nil
	}
	b, err := v.g.Get(key(tabGroup, name))
	if err != nil || b == nil {
		return first, true, err
	}
	t, err := unpackThreshold(b)
	return t, true, err
}

// FormerKeys gives the keys that once signed for a group and do so no more.
func (v View) FormerKeys(name string) (keys []ed25519.PublicKey, err error) {
	prefix := under(tabFormer, name)
	err = v.scan(prefix, func(k, _ []byte) error {
		keys = append(keys, bytes.Clone(k[len(prefix):]))
		return nil
	})
	return keys, err
}

// A group's row: threshold, then the keys.
func packThreshold(t Threshold) []byte {
	b := []byte{byte(t.M)}
	for _, k := range t.Keys {
		b = append(b, k...)
	}
	return b
}

func unpackThreshold(b []byte) (Threshold, error) {
	if len(b) < 1+ed25519.PublicKeySize || (len(b)-1)%ed25519.PublicKeySize != 0 {
		return Threshold{}, fmt.Errorf("%w: threshold group", ErrCorrupt)
	}
	t := Threshold{M: int(b[0])}
	for k := range slices.Chunk(b[1:], ed25519.PublicKeySize) {
		t.Keys = append(t.Keys, bytes.Clone(k))
	}
	return t, nil
}

func (t Threshold) has(k []byte) bool {
	return slices.ContainsFunc(t.Keys, func(o ed25519.PublicKey) bool { return bytes.Equal(o, k) })
}

// setGroup lets a group change its keys by its own threshold. That its threshold is in
// use shows that it is not lost: a recovery that waits is off.
func (a *applier) setGroup(g *registrypb.Group) error {
	if g.Name != a.author {
		return refuse("a group changes its own keys only; a lost threshold is replaced with announce_recovery")
	}
	t, err := a.newGroup(g)
	if err != nil {
		return err
	}
	if err := a.endRecovery(g.Name); err != nil {
		return err
	}
	return a.replaceGroup(g.Name, t)
}

// newGroup checks what is to become a group. Its new threshold must have signed too:
// a key that nobody holds would lock the group out for ever. No key has two duties, and
// none that left comes back, since why it left is not known.
func (a *applier) newGroup(g *registrypb.Group) (Threshold, error) {
	t := Threshold{M: int(g.GetThreshold())}
	if len(g.GetPublicKeys()) == 0 || len(g.PublicKeys) > maxGroupKeys || t.M < 1 || t.M > len(g.PublicKeys) {
		return t, refuse("%d of %d keys: want 1 to %d keys, and a threshold of at least 1 and at most all", g.GetThreshold(), len(g.GetPublicKeys()), maxGroupKeys)
	}
	for i, k := range g.PublicKeys {
		if envelope.CheckKey(k) != nil || hasKey(g.PublicKeys[:i], k) {
			return t, refuse("key %d is not %d bytes that stand for a sound Ed25519 key, or stands there twice", i+1, ed25519.PublicKeySize)
		}
		if err := a.fitsGroup(g.Name, i+1, k); err != nil {
			return t, err
		}
		t.Keys = append(t.Keys, k)
	}
	if a.opened == nil { // history is applied again: it was looked at
		return t, nil
	}
	if n := a.opened.CountVerified(t.Keys); n < t.M {
		return t, refuse("%d of the new keys of %s signed, want its new threshold, %d: that shows that they are held", n, g.Name, t.M)
	}
	return t, nil
}

func (a *applier) fitsGroup(name string, row int, k []byte) error {
	known, err := a.view.Key(envelope.KeyID(k))
	if err != nil {
		return err
	}
	if known != nil {
		return refuse("key %d is that of an institution: a key has one duty", row)
	}
	for _, other := range groupNames {
		t, _, err := a.view.Group(a.rules, other)
		if err != nil {
			return err
		}
		if other != name && t.has(k) {
			return refuse("key %d is of %s already: a key has one duty", row, other)
		}
		if former, err := a.view.has(formerKey(other, k)); err != nil || former {
			return orRefuse(err, "key %d was of %s once, and does not come back: make a new one", row, other)
		}
	}
	return nil
}

func orRefuse(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return refuse(format, args...)
}

// replaceGroup writes the new keys, and remembers those that left.
func (a *applier) replaceGroup(name string, t Threshold) error {
	was, _, err := a.view.Group(a.rules, name)
	if err != nil {
		return err
	}
	for _, k := range was.Keys {
		if t.has(k) {
			continue
		}
		a.removes = true
		if err := a.Set(formerKey(name, k), present); err != nil {
			return err
		}
	}
	return a.Set(key(tabGroup, name), packThreshold(t))
}

func formerKey(name string, k []byte) []byte { return append(under(tabFormer, name), k...) }

// inGroup refuses the key of an institution that a group has, or had.
func (a *applier) inGroup(k []byte) error {
	level, err := a.view.FeatureLevel()
	if err != nil || level < 2 {
		return err
	}
	for _, name := range groupNames {
		t, _, err := a.view.Group(a.rules, name)
		if err != nil {
			return err
		}
		former, err := a.view.has(formerKey(name, k))
		if err != nil {
			return err
		}
		if former || t.has(k) {
			return refuse("the key is of %s: a key has one duty", name)
		}
	}
	return nil
}

// manages reports whether an institution is the managing body of another's sector.
func (a *applier) manages(body, member string) (bool, error) {
	b, err := a.view.Institution(names.InstitutionID(body))
	if err != nil || b == nil || !b.ManagingBody {
		return false, err
	}
	m, err := a.view.Institution(names.InstitutionID(member))
	return m != nil && m.Sector == b.Sector, err
}

// forItself refuses what would name a cooperating institution beside a subject: with whom
// of a sector somebody is, is no business of the directory, which holds the sector. What it
// wrote before it was behind a managing body it may take back.
func (a *applier) forItself(inst, what string) error {
	i, err := a.known().Institution(names.InstitutionID(inst))
	if err != nil || i == nil || i.Sector == "" || i.ManagingBody {
		return err
	}
	if level, err := a.view.FeatureLevel(); err != nil || level < 2 {
		return err
	}
	return a.view.scan([]byte{tabInstitution}, func(_, b []byte) error {
		if !bytes.Contains(b, []byte(i.Sector)) { // most are not worth decoding
			return nil
		}
		o := new(registrypb.Institution)
		if err := decodeRow(b, o); err != nil {
			return err
		}
		if o.ManagingBody && o.Sector == i.Sector {
			return refuse("%s is behind %s, the managing body of sector %s: %s is the sector's, and names no member of it", inst, o.Id, o.Sector, what)
		}
		return nil
	})
}
