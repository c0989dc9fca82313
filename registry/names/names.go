// Package names holds the vocabulary of the network: one named type for every
// identity, code and number, so that a dataset cannot be passed where a purpose
// is meant. The words are those of docs/glossary.md.
//
// A name that comes from outside is checked with its Validate method before use.
// All names are plain ASCII and at most 63 bytes (references to law and
// deliberations: 200), so that they fit in keys, URLs, certificates and logs.
// No name identifies a person; subject numbers live in package subject, which
// keeps them out of logs.
package names

import (
	"errors"
	"fmt"
	"strings"
)

// ErrMalformed is wrapped by every error of a Validate or Parse function here.
var ErrMalformed = errors.New("malformed name")

type (
	// MeshID names one mesh. It is the SPIFFE trust domain of its members too
	// (lower case letters, digits, dots, dashes). Every signed message carries it.
	MeshID string
	// InstitutionID names an admitted institution within a mesh.
	InstitutionID string
	// InstitutionType is the kind of an institution, to which authorizations are
	// given ("pcsa", "energy-regulator").
	InstitutionType string
	// SectorID names a secondary network behind a managing body. Empty: none.
	SectorID string
	// NodeName names one node of an institution.
	NodeName string
	// DatasetID names a versioned dataset: "name/vN".
	DatasetID string
	// FieldName is a top-level property of a dataset's schema.
	FieldName string
	// Quality is the capacity in which an institution holds a file on a subject.
	Quality string
	// Purpose is an enumerated finality tied to a legal basis.
	Purpose string
	// AuthorizationID names one row of "who may obtain what".
	AuthorizationID string
	// Deliberation is the public reference of a committee decision, or of the law
	// that replaces one; free text of at most 200 bytes.
	Deliberation string
	// MandateID names a mandate: the institution that registered it, a slash, a label.
	MandateID string
	// ProviderID names an identity provider.
	ProviderID string
	// KeyID names a public signing key: see package certs/envelope.
	KeyID string
	// UserID names the human user or application on whose behalf something is
	// done, unique within its institution; at most 128 bytes.
	UserID string
)

// Mode is the way data are exchanged; an authorization names the modes it allows.
type Mode string

// The modes of domain page section 2.
const (
	Consultation Mode = "consultation"
	Batch        Mode = "batch"
	Notification Mode = "notification"
	Submission   Mode = "submission"
)

// NodeID is one node of one institution. The zero value names none.
type NodeID struct {
	Institution InstitutionID
	Node        NodeName
}

// String gives "institution/node".
func (n NodeID) String() string { return string(n.Institution) + "/" + string(n.Node) }

// ParseNodeID reads the form that NodeID.String writes.
func ParseNodeID(s string) (NodeID, error) {
	inst, node, ok := strings.Cut(s, "/")
	if !ok {
		return NodeID{}, fmt.Errorf("%w: node %q: want institution/node", ErrMalformed, clip(s))
	}
	id := NodeID{InstitutionID(inst), NodeName(node)}
	return id, id.Validate()
}

// Validate reports whether both parts are well formed.
func (n NodeID) Validate() error {
	if err := n.Institution.Validate(); err != nil {
		return err
	}
	return n.Node.Validate()
}

// Validate reports whether m is a well-formed SPIFFE trust domain.
func (m MeshID) Validate() error { return check("mesh", string(m), 63, isMeshByte) }

// Validate reports whether i is well formed.
func (i InstitutionID) Validate() error { return check("institution", string(i), 63, isLabelByte) }

// Validate reports whether t is well formed.
func (t InstitutionType) Validate() error {
	return check("institution type", string(t), 63, isLabelByte)
}

// Validate reports whether s is empty or well formed.
func (s SectorID) Validate() error {
	if s == "" {
		return nil
	}
	return check("sector", string(s), 63, isLabelByte)
}

// Validate reports whether n is well formed.
func (n NodeName) Validate() error { return check("node", string(n), 63, isLabelByte) }

// Validate reports whether d has the form name/vN, N a number from 1 on.
func (d DatasetID) Validate() error {
	name, version, ok := strings.Cut(string(d), "/v")
	if !ok || version == "" || version[0] == '0' || strings.Trim(version, "0123456789") != "" {
		return fmt.Errorf("%w: dataset %q: want name/vN, as in wages-quarterly/v1", ErrMalformed, clip(string(d)))
	}
	if len(d) > 63 {
		return fmt.Errorf("%w: dataset %q: longer than 63 bytes", ErrMalformed, clip(string(d)))
	}
	return check("dataset", name, 63, isLabelByte)
}

// Validate reports whether f is well formed.
func (f FieldName) Validate() error { return check("field", string(f), 63, isFieldByte) }

// Validate reports whether q is well formed.
func (q Quality) Validate() error { return check("quality", string(q), 63, isLabelByte) }

// Validate reports whether p is well formed.
func (p Purpose) Validate() error { return check("purpose", string(p), 63, isLabelByte) }

// Validate reports whether a is well formed.
func (a AuthorizationID) Validate() error { return check("authorization", string(a), 63, isLabelByte) }

// Validate reports whether m has the form institution/label.
func (m MandateID) Validate() error {
	registrar, label, ok := strings.Cut(string(m), "/")
	if !ok {
		return fmt.Errorf("%w: mandate %q: want institution/label", ErrMalformed, clip(string(m)))
	}
	if err := InstitutionID(registrar).Validate(); err != nil {
		return err
	}
	return check("mandate", label, 63, isLabelByte)
}

// Registrar gives the institution that registered the mandate.
func (m MandateID) Registrar() InstitutionID {
	registrar, _, _ := strings.Cut(string(m), "/")
	return InstitutionID(registrar)
}

// Validate reports whether p is well formed.
func (p ProviderID) Validate() error { return check("identity provider", string(p), 63, isLabelByte) }

// Validate reports whether d is present, printable ASCII and at most 200 bytes.
func (d Deliberation) Validate() error { return check("deliberation", string(d), 200, isPrintable) }

// Validate reports whether k is well formed.
func (k KeyID) Validate() error { return check("key", string(k), 63, isLabelByte) }

// Validate reports whether u is present, printable ASCII and at most 128 bytes.
func (u UserID) Validate() error { return check("user", string(u), 128, isPrintable) }

// Validate reports whether m is one of the known modes.
func (m Mode) Validate() error {
	switch m {
	case Consultation, Batch, Notification, Submission:
		return nil
	}
	return fmt.Errorf("%w: mode %q: want consultation, batch, notification or submission", ErrMalformed, clip(string(m)))
}

func check(what, s string, most int, ok func(byte) bool) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: %s is empty", ErrMalformed, what)
	case len(s) > most:
		return fmt.Errorf("%w: %s %q: longer than %d bytes", ErrMalformed, what, clip(s), most)
	}
	for i := range len(s) {
		if !ok(s[i]) {
			return fmt.Errorf("%w: %s %q: byte %d is not allowed", ErrMalformed, what, clip(s), i)
		}
	}
	return nil
}

// clip keeps an outsider's long input out of error texts.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

func isLabelByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
}

func isMeshByte(c byte) bool  { return isLabelByte(c) || c == '.' }
func isFieldByte(c byte) bool { return isLabelByte(c) || c == '_' || 'A' <= c && c <= 'Z' }
func isPrintable(c byte) bool { return ' ' <= c && c <= '~' }
