package genesis

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// wire is the file's JSON, field by field in the order of the file. Keys and
// durations are read as strings first, so that an error can name their field.
type wire struct {
	Format        string       `json:"format"`
	Mesh          names.MeshID `json:"mesh"`
	Bounds        wireBounds   `json:"bounds"`
	Operators     wireGroup    `json:"operators"`
	Committee     wireGroup    `json:"committee"`
	Recovery      wireGroup    `json:"recovery"`
	RecoveryDelay string       `json:"recovery_delay"`
	FeatureLevel  uint32       `json:"feature_level,omitempty"`
	Members       []wireMember `json:"members"`
	Bundle        string       `json:"bundle"`
}

type wireBounds struct {
	Lease       string `json:"lease"`
	PresentLife string `json:"present_life"`
	ReleaseLife string `json:"release_life"`
	Skew        string `json:"skew"`
}

type wireGroup struct {
	Threshold int      `json:"threshold"`
	Keys      []string `json:"keys"`
}

type wireMember struct {
	Institution   names.InstitutionID   `json:"institution"`
	Node          names.NodeName        `json:"node"`
	Name          string                `json:"name"`
	Type          names.InstitutionType `json:"type"`
	Sector        names.SectorID        `json:"sector,omitempty"`
	ManagingBody  bool                  `json:"managing_body,omitempty"`
	NumberSchemes []string              `json:"number_schemes,omitempty"`
	Address       string                `json:"address"`
	PublicKey     string                `json:"public_key"`
	GossipKey     string                `json:"gossip_key"`
}

// file reads the strings of w. Whether they make sense together is for Validate.
func (w *wire) file() (*File, error) {
	f := &File{Mesh: w.Mesh, FeatureLevel: w.FeatureLevel, Bundle: w.Bundle}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
	}{
		{"bounds.lease", w.Bounds.Lease, &f.Bounds.Lease},
		{"bounds.present_life", w.Bounds.PresentLife, &f.Bounds.PresentLife},
		{"bounds.release_life", w.Bounds.ReleaseLife, &f.Bounds.ReleaseLife},
		{"bounds.skew", w.Bounds.Skew, &f.Bounds.Skew},
		{"recovery_delay", w.RecoveryDelay, &f.RecoveryDelay},
	} {
		v, err := time.ParseDuration(d.text)
		if err != nil {
			return nil, field(d.name, "%.40q; want a duration like 2s or 500ms", d.text)
		}
		*d.to = v
	}
	for _, g := range []struct {
		name string
		from wireGroup
		to   *Group
	}{{"operators", w.Operators, &f.Operators}, {"committee", w.Committee, &f.Committee}, {"recovery", w.Recovery, &f.Recovery}} {
		g.to.Threshold = g.from.Threshold
		for i, text := range g.from.Keys {
			k, err := parseKey(fmt.Sprintf("%s.keys[%d]", g.name, i), text)
			if err != nil {
				return nil, err
			}
			g.to.Keys = append(g.to.Keys, k)
		}
	}
	for i, m := range w.Members {
		at := fmt.Sprintf("members[%d]", i)
		key, err := parseKey(at+".public_key", m.PublicKey)
		if err != nil {
			return nil, err
		}
		gossip, err := parseGossipKey(at+".gossip_key", m.GossipKey)
		if err != nil {
			return nil, err
		}
		f.Members = append(f.Members, Member{
			m.Institution, m.Node, m.Name, m.Type, m.Sector, m.ManagingBody, m.NumberSchemes, m.Address, key, gossip,
		})
	}
	return f, nil
}

func parseKey(name, text string) (ed25519.PublicKey, error) {
	k, err := certs.ParsePublicKey([]byte(text))
	if err != nil {
		return nil, field(name, "%v; want an Ed25519 public key in base64", err)
	}
	return k, nil
}

func parseGossipKey(name, text string) (certs.BoxPublicKey, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return certs.BoxPublicKey{}, field(name, "want an X25519 public key in base64")
	}
	k, err := certs.ParseBoxPublicKey(raw)
	if err != nil {
		return k, field(name, "%v; want an X25519 public key in base64", err)
	}
	return k, nil
}

// encode writes f, whole or in part, in the one form of the file.
func (f *File) encode() ([]byte, error) {
	w := &wire{
		Format: Format,
		Mesh:   f.Mesh,
		Bounds: wireBounds{
			Lease:       f.Bounds.Lease.String(),
			PresentLife: f.Bounds.PresentLife.String(),
			ReleaseLife: f.Bounds.ReleaseLife.String(),
			Skew:        f.Bounds.Skew.String(),
		},
		Operators:     encodeGroup(f.Operators),
		Committee:     encodeGroup(f.Committee),
		Recovery:      encodeGroup(f.Recovery),
		RecoveryDelay: f.RecoveryDelay.String(),
		FeatureLevel:  f.FeatureLevel,
		Bundle:        f.Bundle,
	}
	for _, m := range f.Members {
		w.Members = append(w.Members, wireMember{
			m.Institution, m.Node, m.Name, m.Type, m.Sector, m.ManagingBody, m.NumberSchemes, m.Address,
			certs.EncodePublicKey(m.PublicKey), m.GossipKey.String(),
		})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(w)
	return b.Bytes(), err
}

func encodeGroup(g Group) wireGroup {
	w := wireGroup{Threshold: g.Threshold}
	for _, k := range g.Keys {
		w.Keys = append(w.Keys, certs.EncodePublicKey(k))
	}
	return w
}

// explain says where and why b could not be decoded.
func explain(b []byte, err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early; get the whole file again"
	case errors.As(err, &syntax):
		return fmt.Sprintf("line %d: not JSON: %v", line(b, syntax.Offset), syntax)
	case errors.As(err, &kind):
		return fmt.Sprintf("line %d: %s: want %s, not a JSON %s", line(b, kind.Offset), kind.Field, kind.Type, kind.Value)
	}
	text := strings.TrimPrefix(err.Error(), "json: ")
	if name, ok := strings.CutPrefix(text, "unknown field "); ok {
		if at := bytes.Index(b, []byte(name)); at >= 0 {
			return fmt.Sprintf("line %d: field %s is not known; a newer version may know it", line(b, int64(at)), name)
		}
	}
	return text
}

func line(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(max(offset, 0), int64(len(b)))], []byte("\n"))
}

// firstDifference names the first line that is not as it would be written.
func firstDifference(got, want []byte) string {
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(g), len(w)) {
		if !bytes.Equal(g[i], w[i]) {
			return fmt.Sprintf("line %d: want %.80q, got %.80q; the file has exactly one form, do not edit it", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("it has %d lines, want %d; the file has exactly one form, do not edit it", len(g), len(w))
}
