package genesis

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Limits of a genesis file.
const (
	maxKeys    = 32 // signatures that one envelope may carry
	maxMembers = 15 // as in every later record of members
	maxRoots   = 16
	maxName    = 200
)

// Validate reports whether f says something that a mesh can begin with. The error
// wraps ErrMalformed and names the field and the remedy.
func (f *File) Validate() error {
	if _, err := certs.TrustDomain(f.Mesh); err != nil {
		return field("mesh", "%v", err)
	}
	if err := f.Bounds.validate(); err != nil {
		return err
	}
	if f.RecoveryDelay <= 0 || f.RecoveryDelay > 365*24*time.Hour {
		return field("recovery_delay", "%s; want more than none and at most a year (a week suits)", f.RecoveryDelay)
	}
	if f.FeatureLevel == 1 {
		return field("feature_level", "1; it is left out when the mesh begins at the first")
	}
	used := make(map[string]string) // key: the field that holds it
	for _, g := range []struct {
		name string
		Group
	}{{"operators", f.Operators}, {"committee", f.Committee}, {"recovery", f.Recovery}} {
		if err := g.validate(g.name, used); err != nil {
			return err
		}
	}
	if err := f.validateMembers(used); err != nil {
		return err
	}
	return f.validateBundle()
}

func (b Bounds) validate() error {
	for _, d := range []struct {
		name        string
		value       time.Duration
		least, most time.Duration
	}{
		{"bounds.lease", b.Lease, 100 * time.Millisecond, time.Minute},
		{"bounds.present_life", b.PresentLife, 100 * time.Millisecond, time.Minute},
		{"bounds.release_life", b.ReleaseLife, b.PresentLife, 10 * time.Minute},
		{"bounds.skew", b.Skew, time.Millisecond, time.Minute},
	} {
		if d.value < d.least || d.value > d.most {
			return field(d.name, "%s; want %s to %s", d.value, d.least, d.most)
		}
		if d.value%time.Millisecond != 0 {
			return field(d.name, "%s; want whole milliseconds, which messages carry", d.value)
		}
	}
	return nil
}

func (g Group) validate(name string, used map[string]string) error {
	if len(g.Keys) == 0 || len(g.Keys) > maxKeys {
		return field(name+".keys", "%d keys; want 1 to %d", len(g.Keys), maxKeys)
	}
	if g.Threshold < 1 || g.Threshold > len(g.Keys) {
		return field(name+".threshold", "%d; want 1 to the number of keys, %d", g.Threshold, len(g.Keys))
	}
	for i, k := range g.Keys {
		if err := claim(used, fmt.Sprintf("%s.keys[%d]", name, i), k); err != nil {
			return err
		}
	}
	return nil
}

// claim checks a signing key and that nobody else has it: a key with two duties
// would make two of the independent parties one.
func claim(used map[string]string, name string, k ed25519.PublicKey) error {
	if err := envelope.CheckKey(k); err != nil {
		return field(name, "%v; make a new key", err)
	}
	if other, ok := used[string(k)]; ok {
		return field(name, "the same key as %s; every duty needs a key of its own", other)
	}
	used[string(k)] = name
	return nil
}

func (f *File) validateMembers(used map[string]string) error {
	if len(f.Members) == 0 || len(f.Members) > maxMembers {
		return field("members", "%d members; want 1 to %d (3, 5 or 7 suit)", len(f.Members), maxMembers)
	}
	institutions := make(map[names.InstitutionID]bool)
	gossip := make(map[certs.BoxPublicKey]bool)
	for i, m := range f.Members {
		at := fmt.Sprintf("members[%d]", i)
		if err := m.validate(at); err != nil {
			return err
		}
		if err := claim(used, at+".public_key", m.PublicKey); err != nil {
			return err
		}
		if institutions[m.Institution] {
			return field(at+".institution", "%s is there twice; one institution has one vote", m.Institution)
		}
		if gossip[m.GossipKey] {
			return field(at+".gossip_key", "another member has the same; every node needs a key of its own")
		}
		institutions[m.Institution], gossip[m.GossipKey] = true, true
	}
	return nil
}

func (m Member) validate(at string) error {
	for _, c := range []struct {
		name string
		err  error
	}{
		{".institution", m.Institution.Validate()},
		{".node", m.Node.Validate()},
		{".name", checkName(m.Name)},
		{".type", m.Type.Validate()},
		{".sector", m.Sector.Validate()},
		{".address", checkAddress(m.Address)},
	} {
		if c.err != nil {
			return field(at+c.name, "%v", c.err)
		}
	}
	if m.ManagingBody && m.Sector == "" {
		return field(at+".managing_body", "it has no sector; name the sector it speaks for")
	}
	schemes := make(map[string]bool)
	for i, s := range m.NumberSchemes {
		// Which schemes there are is not known here; the form of their names is.
		if err := names.Quality(s).Validate(); err != nil || schemes[s] {
			return field(fmt.Sprintf("%s.number_schemes[%d]", at, i), "%.40q; want a scheme like ssin, once", s)
		}
		schemes[s] = true
	}
	if _, err := certs.ParseBoxPublicKey(m.GossipKey[:]); err != nil {
		return field(at+".gossip_key", "%v; make a new key", err)
	}
	return nil
}

func checkName(s string) error {
	switch {
	case strings.TrimSpace(s) == "" || len(s) > maxName:
		return fmt.Errorf("%d bytes; want 1 to %d", len(s), maxName)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%.40q has a character that does not print", s)
	}
	return nil
}

func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || len(s) > 255 || checkName(host) != nil {
		return fmt.Errorf("%.60q; want host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%.60q; want a port from 1 to 65535", s)
	}
	return nil
}

func (f *File) validateBundle() error {
	b, err := f.X509Bundle()
	if err != nil {
		return field("bundle", "%v; want certificates in PEM", err)
	}
	roots := b.X509Authorities()
	if len(roots) == 0 || len(roots) > maxRoots {
		return field("bundle", "%d certificates; want 1 to %d", len(roots), maxRoots)
	}
	for i, c := range roots {
		if !c.IsCA {
			return field("bundle", "certificate %d (%s) is no certificate authority", i+1, c.Subject)
		}
	}
	// A second way to write the same roots would be a second file.
	if again, err := b.Marshal(); err != nil || string(again) != f.Bundle {
		return field("bundle", "want each root once, as PEM blocks and nothing else")
	}
	return nil
}

// field makes an error about one field of the file.
func field(name, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrMalformed, name, fmt.Sprintf(format, args...))
}
