package record

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The purposes of the tokens by which a giver agrees.
const (
	MandateGive   = "mandate-give"
	MandateRevoke = "mandate-revoke"
)

// Limits of mandates. They are rules, as the others are.
const (
	// MaxMandateDays is how long after a giver agreed a mandate may last.
	MaxMandateDays = 366
	// MinMandateLevel is how strongly a giver must have been authenticated.
	MinMandateLevel = 2

	maxMandateSets   = 64 // datasets
	maxMandateTerms  = 8 << 10
	maxMandateToken  = 4 << 10
	tokenLife        = 10 * time.Minute // as package identity has it
	tokenSlack       = 5 * time.Minute  // between the author's clock and the provider's
	tokenNonce       = 32
	tokenPayloadHash = sha256.Size
)

// giveMandate registers a mandate for ever: what a clearance names by its id must mean
// the same in ten years. Verdicts rest on the author's own rows and on public ones, so a
// follower of the author comes to the same.
func (a *applier) giveMandate(m *registrypb.Mandate) error {
	terms, err := mandateTerms(m)
	if err != nil {
		return err
	}
	if err := a.checkTerms(terms); err != nil {
		return err
	}
	giver, err := a.subject(terms.Giver, 1)
	if err != nil {
		return err
	}
	token, err := a.token(m.Token, m.Terms, MandateGive, terms.Giver)
	if err != nil {
		return err
	}
	agreed := names.DateOf(time.UnixMilli(token.IssuedUnixMs).UTC())
	if last := agreed + MaxMandateDays; names.Date(terms.Period.Until) > last {
		return refuse("a mandate lasts at most %d days from the day it is given: until %s", MaxMandateDays, last)
	}
	index := key(tabMandateGiver, terms.Id)
	if known, err := a.view.has(index); err != nil || known {
		return cmp.Or(err, refuse("mandate %s exists and never changes: revoke it, and give another under a new id", terms.Id))
	}
	return errors.Join(
		a.Set(mandateKey(giver, terms.Id), bytes.Clone(a.body)),
		a.Set(index, giver.Key()),
		a.Set(key(tabMandateHolder, terms.Holder, terms.Id), giver.Key()))
}

func mandateTerms(m *registrypb.Mandate) (*registrypb.MandateTerms, error) {
	t := new(registrypb.MandateTerms)
	if len(m.GetTerms()) > maxMandateTerms || proto.Unmarshal(m.GetTerms(), t) != nil || hasUnknown(t.ProtoReflect()) {
		return nil, refuse("the terms of the mandate are malformed, longer than %d bytes, or hold fields this version does not know", maxMandateTerms)
	}
	return t, nil
}

func (a *applier) checkTerms(t *registrypb.MandateTerms) error {
	id := names.MandateID(t.Id)
	if err := valid(cmp.Or(id.Validate(), names.InstitutionID(t.Holder).Validate(), names.Purpose(t.Purpose).Validate())); err != nil {
		return err
	}
	if string(id.Registrar()) != a.author {
		return refuse("%s registers mandates under its own name: %s/...", a.author, a.author)
	}
	if err := checkList[names.DatasetID]("datasets of the mandate", t.Datasets, 1, maxMandateSets); err != nil {
		return err
	}
	if err := checkPeriod(t.Period); err != nil {
		return refuse("mandate %s: %v", t.Id, err)
	}
	holder, err := a.view.Institution(names.InstitutionID(t.Holder))
	if err != nil {
		return err
	}
	if holder == nil {
		return refuse("the holder %s is not admitted", t.Holder)
	}
	for _, inst := range []string{a.author, t.Holder} {
		if err := a.forItself(inst, "a mandate"); err != nil {
			return err
		}
	}
	if t.OnBehalf != nil {
		if _, err := a.subject(t.OnBehalf, 1); err != nil {
			return err
		}
	}
	return nil
}

// revokeMandate says that a mandate is taken back. Whether it counts depends on the
// mandate, which a follower of the author need not see: so the row is written for
// whoever says so, and judged when the mandate is looked at.
func (a *applier) revokeMandate(r *registrypb.MandateRevocation) error {
	terms, err := revocationTerms(r)
	if err != nil {
		return err
	}
	if err := valid(names.MandateID(terms.Id).Validate()); err != nil {
		return err
	}
	if _, err := a.subject(terms.Giver, 1); err != nil {
		return err
	}
	if len(r.Token) > 0 {
		if _, err := a.token(r.Token, r.Terms, MandateRevoke, terms.Giver); err != nil {
			return err
		}
	}
	row := key(tabMandateEnd, terms.Id, a.author)
	was, err := a.Get(row)
	if err != nil {
		return err
	}
	before := new(registrypb.MandateRevocation)
	if was != nil {
		if err := decodeRow(was, before); err != nil {
			return err
		}
		if len(before.Token) > 0 || len(r.Token) == 0 && bytes.Equal(before.Terms, r.Terms) {
			return refuse("%s has revoked mandate %s before", a.author, terms.Id)
		}
	}
	a.removes = true
	return a.Set(row, bytes.Clone(a.body))
}

func revocationTerms(r *registrypb.MandateRevocation) (*registrypb.RevocationTerms, error) {
	t := new(registrypb.RevocationTerms)
	if len(r.GetTerms()) > maxMandateTerms || proto.Unmarshal(r.GetTerms(), t) != nil || hasUnknown(t.ProtoReflect()) {
		return nil, refuse("the terms of the revocation are malformed")
	}
	return t, nil
}

// MandateOf reads what a command on mandates says: the terms that its signer and its giver's
// token signed, which are MandateTerms or RevocationTerms, the id of the mandate and its
// giver. Terms are nil if it is another kind of command.
func MandateOf(c *registrypb.Command) (terms proto.Message, id names.MandateID, giver *registrypb.Subject) {
	switch b := c.Body.(type) {
	case *registrypb.Command_GiveMandate:
		if t, err := mandateTerms(b.GiveMandate); err == nil {
			return t, names.MandateID(t.Id), t.Giver
		}
	case *registrypb.Command_RevokeMandate:
		if t, err := revocationTerms(b.RevokeMandate); err == nil {
			return t, names.MandateID(t.Id), t.Giver
		}
	}
	return nil, "", nil
}

// token checks that a giver agreed to exactly these terms, at a node of the author's. The
// nonce is for that node to judge: terms have an id, so that one token gives or takes one
// mandate however often it is shown. Time is that which the author claims, near what the
// provider says: replicas have no clock.
func (a *applier) token(raw, terms []byte, purpose string, giver *registrypb.Subject) (*registrypb.IdentityToken, error) {
	t, opened, err := openToken(raw)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(terms)
	claimed := time.UnixMilli(a.cmd.TimeUnixMs)
	issued, expires := time.UnixMilli(t.IssuedUnixMs), time.UnixMilli(t.ExpiresUnixMs)
	for _, c := range []struct {
		wrong bool
		says  string
	}{
		{t.Mesh != string(a.rules.Mesh), "it is of another mesh"},
		{t.Node.GetInstitution() != a.author || names.NodeName(t.Node.GetNode()).Validate() != nil, "it was made out to another institution's node"},
		{t.Purpose != purpose, "it is for another purpose than " + purpose},
		{!bytes.Equal(t.PayloadHash, hash[:]), "its subject agreed to other terms"},
		{!proto.Equal(t.Subject, giver), "its subject is not the giver"},
		{t.AuthLevel < MinMandateLevel, "its subject was authenticated too weakly"},
		{expires.Before(issued) || expires.Sub(issued) > tokenLife, "it holds longer than a token may"},
		{claimed.Before(issued.Add(-tokenSlack)) || claimed.After(expires.Add(tokenSlack)), "it was not in force at the time of the command"},
	} {
		if c.wrong {
			return nil, refuse("the giver's identity token: %s", c.says)
		}
	}
	vouched, err := a.view.vouches(t, opened)
	if err != nil {
		return nil, err
	}
	if !vouched {
		return nil, refuse("the giver's identity token: no provider in force signed it")
	}
	return t, nil
}

func openToken(raw []byte) (*registrypb.IdentityToken, *envelope.Opened, error) {
	if len(raw) == 0 || len(raw) > maxMandateToken {
		return nil, nil, refuse("the giver's identity token has %d bytes, want 1 to %d", len(raw), maxMandateToken)
	}
	opened, err := envelope.Open(envelope.IdentityToken, raw)
	if err != nil {
		return nil, nil, refuse("the giver's identity token is none")
	}
	t := new(registrypb.IdentityToken)
	if proto.Unmarshal(opened.Payload, t) != nil || hasUnknown(t.ProtoReflect()) || len(t.Nonce) != tokenNonce || len(t.PayloadHash) != tokenPayloadHash {
		return nil, nil, refuse("the giver's identity token is malformed")
	}
	return t, opened, nil
}

// vouches reports whether a provider in force stands behind a token, with a key and a
// level that it may attest.
func (v View) vouches(t *registrypb.IdentityToken, opened *envelope.Opened) (bool, error) {
	id := names.ProviderID(t.Provider)
	if id.Validate() != nil {
		return false, nil
	}
	p, err := v.IdentityProvider(id)
	if err != nil || p == nil || p.Retired || !slices.Contains(p.Levels, t.AuthLevel) {
		return false, err
	}
	return slices.ContainsFunc(p.PublicKeys, func(k []byte) bool { return opened.VerifiedBy(k) }), nil
}

// mandateKey ends the subject's key with a zero byte, which no number holds, so that the
// mandates of one giver lie together and apart from all others.
func mandateKey(giver subject.ID, id string) []byte {
	return append(append(subjectKey(tabMandate, giver), 0), id...)
}
