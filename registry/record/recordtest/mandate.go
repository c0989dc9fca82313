package recordtest

import (
	"crypto/sha256"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Provider is the id of the identity provider of SetProvider; its key is that of its name.
const Provider = "portal"

// SetProvider is the operators' command that makes Provider believed, at levels 1 to 3.
func (w *World) SetProvider() []byte {
	return w.Command(record.Operators, &registrypb.Command_SetIdentityProvider{SetIdentityProvider: &registrypb.IdentityProvider{
		Id: Provider, Name: "Portal", PublicKeys: [][]byte{Public(Provider)}, Levels: []uint32{1, 2, 3},
	}})
}

// Terms are those of a mandate by which a person lets holder ask for datasets for a
// purpose for a hundred days, to be registered by registrar.
func (w *World) Terms(registrar, label, giver, holder, purpose string, datasets ...string) *registrypb.MandateTerms {
	today := int32(w.Time / 86_400_000)
	return &registrypb.MandateTerms{
		Id: registrar + "/" + label, Giver: SSIN(giver), Holder: holder, Purpose: purpose, Datasets: datasets,
		Period: &registrypb.Period{From: today, Until: today + 100},
	}
}

// Token is what Provider attests of a giver who agrees to terms at a node of registrar's.
// change, which may be nil, spoils it before it is signed.
func (w *World) Token(registrar, purpose string, giver *registrypb.Subject, terms []byte, signer string, change func(*registrypb.IdentityToken)) []byte {
	hash := sha256.Sum256(terms)
	t := &registrypb.IdentityToken{
		Mesh: string(Mesh), Provider: Provider, Subject: giver, Node: &registrypb.NodeRef{Institution: registrar, Node: "n1"}, Nonce: Nonce(),
		Purpose: purpose, PayloadHash: hash[:], AuthLevel: 3, IssuedUnixMs: w.Time - 1000, ExpiresUnixMs: w.Time + 60_000,
	}
	if change != nil {
		change(t)
	}
	raw, err := envelope.Sign(envelope.IdentityToken, w.marshal(t), Key(signer))
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// Mandate is the body by which a mandate is given.
func (w *World) Mandate(registrar string, terms *registrypb.MandateTerms) *registrypb.Command_GiveMandate {
	raw := w.marshal(terms)
	return &registrypb.Command_GiveMandate{GiveMandate: &registrypb.Mandate{
		Terms: raw, Token: w.Token(registrar, record.MandateGive, terms.Giver, raw, Provider, nil),
	}}
}

// Revocation is the body by which one is taken back; with token, by its giver.
func (w *World) Revocation(author, id, giver string, token bool) *registrypb.Command_RevokeMandate {
	raw := w.marshal(&registrypb.RevocationTerms{Id: id, Giver: SSIN(giver)})
	r := &registrypb.MandateRevocation{Terms: raw}
	if token {
		r.Token = w.Token(author, record.MandateRevoke, SSIN(giver), raw, Provider, nil)
	}
	return &registrypb.Command_RevokeMandate{RevokeMandate: r}
}
