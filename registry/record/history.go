package record

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Kinds are the public tables whose records have a history.
var Kinds = []string{"authorization", "autopilot", "dataset", "group", "institution", "key", "level", "members", "node", "offering", "provider", "subscription"}

// RecordID names a record of a public table. An offering's ID is institution:dataset, a
// subscription's institution:dataset:purpose; the records of autopilot, level and members have none, for there is one each.
type RecordID struct{ Kind, ID string }

// Touches gives the records that a public command concerns.
func Touches(c *registrypb.Command) []RecordID {
	one := func(kind, id string) []RecordID { return []RecordID{{kind, id}} }
	switch b := c.Body.(type) {
	case *registrypb.Command_SetInstitution:
		ids := one("institution", b.SetInstitution.GetId())
		if k := b.SetInstitution.GetFirstKey(); k != nil {
			ids = append(ids, RecordID{"key", k.Id})
		}
		return ids
	case *registrypb.Command_SetSuspended:
		return one("institution", b.SetSuspended.GetInstitution())
	case *registrypb.Command_SetMembers:
		return one("members", "")
	case *registrypb.Command_SetDataset:
		return one("dataset", b.SetDataset.GetId())
	case *registrypb.Command_SetAuthorization:
		return one("authorization", b.SetAuthorization.GetId())
	case *registrypb.Command_RevokeAuthorization:
		return one("authorization", b.RevokeAuthorization.GetId())
	case *registrypb.Command_SetKey:
		return one("key", b.SetKey.GetId())
	case *registrypb.Command_SetNode:
		return one("node", NodeID(b.SetNode.GetRef()).String())
	case *registrypb.Command_SetOffering:
		return one("offering", b.SetOffering.GetInstitution()+":"+b.SetOffering.GetDataset())
	case *registrypb.Command_SetSubscription:
		s := b.SetSubscription
		return one("subscription", s.GetInstitution()+":"+s.GetDataset()+":"+s.GetPurpose())
	case *registrypb.Command_SetIdentityProvider:
		return one("provider", b.SetIdentityProvider.GetId())
	case *registrypb.Command_SetFeatureLevel:
		return one("level", "")
	case *registrypb.Command_SetAutopilot:
		return one("autopilot", "")
	case *registrypb.Command_SetGroup:
		return one("group", b.SetGroup.GetName())
	case *registrypb.Command_AnnounceRecovery:
		return one("group", b.AnnounceRecovery.GetGroup().GetName())
	case *registrypb.Command_CancelRecovery, *registrypb.Command_ConfirmRecovery:
		return one("group", "") // which one, only the announcement says: see RecordHistory
	}
	return nil
}

// Change is one signed command that concerned a record.
type Change struct {
	Index    uint64
	Time     time.Time // as its author says
	Author   string
	Sequence uint64
	SignedBy []names.KeyID // keys of the author, then or later, whose signature holds
	Hash     []byte        // SHA-256 of the payload
	Command  *registrypb.Command
	Envelope []byte
}

// RecordHistory calls fn with every accepted public command that concerned a record, in
// order. It reads the whole public history: some microseconds for each command.
func (v View) RecordHistory(r *Rules, of RecordID, fn func(Change) error) error {
	keys := newKeyring(v, r)
	announced := make(map[string]string) // hash of an announcement: the group
	return v.Commands(0, func(index uint64, raw []byte) error {
		c, hash, opened, err := openHistoric(raw)
		if err != nil {
			return err
		}
		ids := Touches(c)
		switch b := c.Body.(type) {
		case *registrypb.Command_AnnounceRecovery:
			announced[string(hash)] = b.AnnounceRecovery.GetGroup().GetName()
		case *registrypb.Command_CancelRecovery:
			ids[0].ID = announced[string(b.CancelRecovery.GetAnnouncement())]
		case *registrypb.Command_ConfirmRecovery:
			ids[0].ID = announced[string(b.ConfirmRecovery.GetAnnouncement())]
		}
		if !slices.Contains(ids, of) {
			return nil
		}
		signed, err := keys.signed(c.Author, opened)
		if err != nil {
			return err
		}
		return fn(changeOf(index, c, hash, signed, raw))
	})
}

// SubjectHistory calls fn with every command of an institution's directory chain that
// declared references of a subject or changed its numbers, under any of its numbers, with
// the rows on others left out. It reads that whole chain: stop is asked between commands,
// and its error ends the work.
func (v View) SubjectHistory(r *Rules, inst names.InstitutionID, about subject.ID, stop func() error, fn func(Change) error) error {
	return v.directoryHistory(r, inst, about, stop, fn, func(w *rewind, c *registrypb.Command, _ []byte) (envelope []byte, concerns bool) {
		w.concerned(c)
		return nil, len(c.GetDeclareReferences().GetReferences())+len(c.GetSetNumbers().GetEvents()) > 0
	})
}

// MandateHistory is SubjectHistory for the commands by which the institution registered or
// took back mandates that the subject gave. Each is of one subject, and so its envelope is
// told too. What other institutions said of these mandates is on their own chains.
func (v View) MandateHistory(r *Rules, inst names.InstitutionID, giver subject.ID, stop func() error, fn func(Change) error) error {
	return v.directoryHistory(r, inst, giver, stop, fn, func(w *rewind, c *registrypb.Command, raw []byte) (envelope []byte, concerns bool) {
		return raw, w.opens(c)
	})
}

// directoryHistory reads an institution's directory chain. pick says which commands concern
// the subject, takes the rows on others out of them, and gives what may be told of the envelope.
func (v View) directoryHistory(r *Rules, inst names.InstitutionID, about subject.ID, stop func() error, fn func(Change) error,
	pick func(w *rewind, c *registrypb.Command, raw []byte) (envelope []byte, concerns bool)) error {
	family, err := v.Family(about)
	if err != nil {
		return err
	}
	keys := newKeyring(v, r)
	w := &rewind{view: v, rules: r, family: family}
	return v.DirectoryCommands(inst, 0, func(index uint64, raw []byte) error {
		if err := stop(); err != nil {
			return err
		}
		c, hash, opened, err := openHistoric(raw)
		if err != nil {
			return err
		}
		told, concerns := pick(w, c, raw)
		if !concerns {
			return nil
		}
		signed, err := keys.signed(c.Author, opened)
		if err != nil {
			return err
		}
		return fn(changeOf(index, c, hash, signed, told))
	})
}

func changeOf(index uint64, c *registrypb.Command, hash []byte, signed []names.KeyID, raw []byte) Change {
	return Change{
		Index: index, Time: time.UnixMilli(c.TimeUnixMs), Author: c.Author, Sequence: c.Sequence,
		SignedBy: signed, Hash: hash, Command: c, Envelope: raw,
	}
}

func openHistoric(raw []byte) (*registrypb.Command, []byte, *envelope.Opened, error) {
	opened, err := envelope.Open(envelope.Command, raw)
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := historic(raw)
	hash := sha256.Sum256(opened.Payload)
	return c, hash[:], opened, err
}

// keyring remembers the keys of authors, those in force and those that were.
type keyring struct {
	view  View
	rules *Rules
	of    map[string][]ed25519.PublicKey
}

func newKeyring(v View, r *Rules) *keyring {
	return &keyring{v, r, make(map[string][]ed25519.PublicKey)}
}

func (k *keyring) signed(author string, opened *envelope.Opened) (ids []names.KeyID, err error) {
	keys, ok := k.of[author]
	if !ok {
		if keys, err = k.load(author); err != nil {
			return nil, err
		}
		k.of[author] = keys
	}
	claimed := opened.KeyIDs()
	for _, pub := range keys {
		if id := envelope.KeyID(pub); slices.Contains(claimed, id) && opened.VerifiedBy(pub) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b names.KeyID) int { return cmp.Compare(a, b) })
	return ids, nil
}

func (k *keyring) load(author string) (keys []ed25519.PublicKey, err error) {
	if !strings.HasPrefix(author, "@") {
		records, err := k.view.KeysOf(names.InstitutionID(author))
		for _, r := range records {
			keys = append(keys, r.PublicKey)
		}
		return keys, err
	}
	g, _, err := k.view.Group(k.rules, author)
	if err != nil {
		return nil, err
	}
	former, err := k.view.FormerKeys(author)
	return append(slices.Clone(g.Keys), former...), err
}
