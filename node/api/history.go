package api

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Change is one signed command that concerned a record.
type Change struct {
	Index    uint64        `json:"index"`
	Time     time.Time     `json:"time"` // as its author says
	Author   string        `json:"author"`
	Sequence uint64        `json:"sequence"`
	SignedBy []names.KeyID `json:"signed_by"` // of the author's keys, those whose signature holds
	SHA256   string        `json:"sha256"`    // of the command's payload
	Kind     string        `json:"kind"`
	// Command is its body; of one on a mandate, the terms that were signed.
	Command json.RawMessage `json:"command"`
	Mandate names.MandateID `json:"mandate,omitempty"` // which it gives or takes back
	// Envelope is the command as it was signed, so that anybody can verify it.
	Envelope []byte `json:"envelope,omitempty"`
}

// KeyGroup is a threshold group.
type KeyGroup struct {
	Name      string      `json:"name"`
	Threshold int         `json:"threshold"`
	Keys      []PublicKey `json:"keys"`
	Former    []PublicKey `json:"former,omitempty"` // signed once, and do so no more
	// Recovery is the replacement of the group that was announced and waits.
	Recovery *PendingRecovery `json:"recovery,omitempty"`
}

// PublicKey is one key.
type PublicKey struct {
	ID        names.KeyID `json:"id"`
	PublicKey string      `json:"public_key"`
}

// PendingRecovery is what waits.
type PendingRecovery struct {
	ID        string      `json:"id"`
	Index     uint64      `json:"index"`
	Announcer string      `json:"announcer"`
	Announced time.Time   `json:"announced"`
	Threshold int         `json:"threshold"`
	Keys      []PublicKey `json:"keys"`
	Confirmed int         `json:"confirmed"` // institutions by whose clock the delay is over
	Needed    int         `json:"needed"`
	Delay     string      `json:"delay"`
}

// maxChanges bounds one answer.
const maxChanges = 1000

// history tells who changed a public record, when, by which signed command.
func (s *Server) history(q *request) (response, error) {
	of := record.RecordID{Kind: q.URL.Query().Get("kind"), ID: q.URL.Query().Get("id")}
	if !slices.Contains(record.Kinds, of.Kind) {
		return nil, problem(CodeMalformed, "kind", "Want one of "+strings.Join(record.Kinds, ", ")+".")
	}
	single := of.Kind == "members" || of.Kind == "level" || of.Kind == "autopilot"
	if len(of.ID) > 256 || (of.ID == "") != single {
		return nil, problem(CodeMalformed, "id", "Want the record's ID; an offering's is institution:dataset, a subscription's institution:dataset:purpose, a node's institution/name, and "+of.Kind+" has "+cmpOr(map[bool]string{true: "none"}[single], "one")+".")
	}
	out := List[Change]{Items: []Change{}}
	err := s.readView(q, func(v record.View, age time.Duration) (err error) {
		if err := out.stamp(v, age); err != nil {
			return err
		}
		return v.RecordHistory(s.cfg.Reads.Rules(), of, func(c record.Change) error {
			if len(out.Items) == maxChanges { // the newest matter
				out.Items = out.Items[1:]
			}
			change, err := changeOf(c)
			out.Items = append(out.Items, change)
			return err
		})
	})
	return out, err
}

// referenceHistory tells what this institution itself has declared of a subject over
// time. The look-up is journaled.
func (s *Server) referenceHistory(q *request) (response, error) {
	return s.ownHistory(q, "history of own references", record.View.SubjectHistory)
}

// mandateHistory tells which mandates of a subject this institution itself has registered
// and taken back. The look-up is journaled. What others registered is not looked for, and so
// looks as if it were not there.
func (s *Server) mandateHistory(q *request) (response, error) {
	return s.ownHistory(q, "history of own mandates", record.View.MandateHistory)
}

func (s *Server) ownHistory(q *request, what string, read func(record.View, *record.Rules, names.InstitutionID, subject.ID, func() error, func(record.Change) error) error) (response, error) {
	in, err := decode[SubjectQuery](q.body)
	if err != nil {
		return nil, err
	}
	id, err := s.subject(in.Subject)
	if err != nil {
		return nil, err
	}
	if err := s.readingOf(q, "", id, what); err != nil {
		return nil, err
	}
	out := List[Change]{Items: []Change{}}
	err = s.cfg.Reads.Read(q.Context(), registryAsIs, func(v record.View, age time.Duration) error {
		if err := out.stamp(v, age); err != nil {
			return err
		}
		return read(v, s.cfg.Reads.Rules(), s.cfg.Self.Institution, id, q.Context().Err, func(c record.Change) error {
			if len(out.Items) == maxChanges {
				out.Items = out.Items[1:]
			}
			change, err := changeOf(c)
			out.Items = append(out.Items, change)
			return err
		})
	})
	return out, err
}

func changeOf(c record.Change) (Change, error) {
	alone := &registrypb.Command{Body: c.Command.Body}
	m := proto.Message(alone).ProtoReflect()
	out := Change{
		Index: c.Index, Time: c.Time.UTC(), Author: c.Author, Sequence: c.Sequence, SignedBy: c.SignedBy, SHA256: hex.EncodeToString(c.Hash),
		Kind: string(m.WhichOneof(m.Descriptor().Oneofs().ByName("body")).Name()), Envelope: c.Envelope,
	}
	if out.SignedBy == nil {
		out.SignedBy = []names.KeyID{}
	}
	form := protojson.MarshalOptions{UseProtoNames: true}
	var err error
	if terms, id, _ := record.MandateOf(c.Command); terms != nil { // the command holds them as the bytes that were signed
		out.Mandate = id
		var read []byte
		if read, err = form.Marshal(terms); err == nil {
			out.Command, err = json.Marshal(map[string]json.RawMessage{out.Kind: read})
		}
		return out, err
	}
	out.Command, err = form.Marshal(alone)
	return out, err
}

// groups tells who signs for the mesh, and what replacement waits.
func (s *Server) groups(q *request) (response, error) {
	return list(s, q, func(v record.View, add func(KeyGroup)) error {
		pending, err := v.PendingRecoveries()
		if err != nil {
			return err
		}
		rules := s.cfg.Reads.Rules()
		for _, name := range record.GroupNames() {
			g, _, err := v.Group(rules, name)
			if err != nil {
				return err
			}
			former, err := v.FormerKeys(name)
			if err != nil {
				return err
			}
			out := KeyGroup{Name: name, Threshold: g.M, Keys: publicKeys(g.Keys), Former: publicKeys(former)}
			for _, p := range pending {
				if p.Group == name {
					out.Recovery = &PendingRecovery{
						ID: hex.EncodeToString(p.ID), Index: p.Index, Announcer: p.Announcer, Announced: p.Announced.UTC(),
						Threshold: p.To.M, Keys: publicKeys(p.To.Keys), Confirmed: p.Confirmed, Needed: p.Needed, Delay: rules.RecoveryDelay.String(),
					}
				}
			}
			add(out)
		}
		return nil
	})
}

func publicKeys[K ~[]byte](keys []K) []PublicKey {
	out := make([]PublicKey, 0, len(keys))
	for _, k := range keys {
		out = append(out, PublicKey{ID: envelope.KeyID([]byte(k)), PublicKey: certs.EncodePublicKey([]byte(k))})
	}
	return out
}
