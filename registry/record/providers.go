package record

import (
	"bytes"
	"crypto/ed25519"
	"slices"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// setProvider writes an identity provider. One that was retired stays so: what its
// id once stood for must not come back under other keys.
func (a *applier) setProvider(p *registrypb.IdentityProvider) error {
	if err := checkProvider(p); err != nil {
		return err
	}
	was, err := a.view.IdentityProvider(names.ProviderID(p.Id))
	switch {
	case err != nil:
		return err
	case was == nil && p.Retired:
		return refuse("there is no identity provider %s to retire", p.Id)
	case was != nil && was.Retired:
		return refuse("identity provider %s is retired, for ever: give another an id of its own", p.Id)
	case was != nil:
		a.removes = p.Retired ||
			slices.ContainsFunc(was.PublicKeys, func(k []byte) bool { return !hasKey(p.PublicKeys, k) }) ||
			slices.ContainsFunc(was.Levels, func(l uint32) bool { return !slices.Contains(p.Levels, l) })
	}
	return a.Set(key(tabProvider, p.Id), bytes.Clone(a.body))
}

func checkProvider(p *registrypb.IdentityProvider) error {
	if err := valid(names.ProviderID(p.GetId()).Validate()); err != nil {
		return err
	}
	if err := checkText("name of "+p.Id, p.Name, 200); err != nil {
		return err
	}
	if len(p.PublicKeys) == 0 || len(p.PublicKeys) > maxProvided {
		return refuse("%d keys of %s, want 1 to %d", len(p.PublicKeys), p.Id, maxProvided)
	}
	for i, k := range p.PublicKeys {
		if envelope.CheckKey(k) != nil || hasKey(p.PublicKeys[:i], k) {
			return refuse("key %d of %s is not %d bytes that stand for a sound Ed25519 key, or stands there twice", i+1, p.Id, ed25519.PublicKeySize)
		}
	}
	if len(p.Levels) == 0 {
		return refuse("%s names no level of authentication that it may attest", p.Id)
	}
	for i, l := range p.Levels {
		if l < 1 || l > maxLevel || i > 0 && l <= p.Levels[i-1] {
			return refuse("levels of %s: want some of 1 to %d, ascending", p.Id, maxLevel)
		}
	}
	return nil
}

func hasKey(keys [][]byte, k []byte) bool {
	return slices.ContainsFunc(keys, func(o []byte) bool { return bytes.Equal(o, k) })
}

// IdentityProvider gives an identity provider, also a retired one.
func (v View) IdentityProvider(id names.ProviderID) (*registrypb.IdentityProvider, error) {
	p := new(registrypb.IdentityProvider)
	ok, err := v.message(key(tabProvider, string(id)), p)
	if err != nil || !ok {
		return nil, err
	}
	return p, nil
}

// IdentityProviders calls fn with every identity provider, retired ones too, in
// order of id.
func (v View) IdentityProviders(fn func(*registrypb.IdentityProvider) error) error {
	return v.scan([]byte{tabProvider}, func(_, b []byte) error {
		p := new(registrypb.IdentityProvider)
		if err := decodeRow(b, p); err != nil {
			return err
		}
		return fn(p)
	})
}
