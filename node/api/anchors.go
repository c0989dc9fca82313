package api

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
)

// AnchorList is the last anchored checkpoint of every journal.
type AnchorList struct {
	Items []Anchor `json:"items"`
}

// Anchor is a checkpoint that a majority of the registry's members cosigned.
type Anchor struct {
	Journal   string   `json:"journal"` // institution/node
	Size      int64    `json:"size"`    // entries covered
	Root      string   `json:"root"`    // base64
	Witnesses []string `json:"witnesses"`
	// Note is the signed note, by which everything above is proved: c2sp.org/tlog-checkpoint
	// with c2sp.org/tlog-cosignature.
	Note string `json:"note"`
}

// EvidenceList is what a registry member found.
type EvidenceList struct {
	Items []Evidence `json:"items"`
	// Decisions are those that clearing peers must not have taken.
	Decisions []WrongDecision `json:"decisions"`
	// Declared are the epochs that journals declared because a disk was restored. One that
	// was accepted accuses nobody.
	Declared []DeclaredEpoch `json:"declared"`
}

// DeclaredEpoch is an epoch that a journal declared.
type DeclaredEpoch struct {
	Journal string    `json:"journal"` // institution/node
	Epoch   int64     `json:"epoch"`
	Time    time.Time `json:"time"` // when members cosigned, or this one refused
	// Accepted: a majority of members did, and it stands in the registry.
	Accepted  bool  `json:"accepted"`
	ResumesAt int64 `json:"resumes_at"` // entries that the restored log held
	Anchored  int64 `json:"anchored"`   // entries that were anchored before; those from ResumesAt on are lost
	// Says in plain words what was lost, or why it was refused.
	Says string `json:"says"`
	// Declaration is what the institution signed: an envelope of an EpochDeclaration.
	Declaration []byte `json:"declaration"`
}

// WrongDecision is a clearance that its clearing peer must not have given. The signed
// messages that show it name a subject, so whoever may read the ticket finds them in
// its trace.
type WrongDecision struct {
	Found         time.Time    `json:"found"`
	Clearer       string       `json:"clearer"`
	Ticket        names.Ticket `json:"ticket"`
	RegistryIndex uint64       `json:"registry_index"`
	Says          string       `json:"says"`
}

// Evidence is two checkpoints of one journal that contradict each other.
type Evidence struct {
	Journal string    `json:"journal"`
	Found   time.Time `json:"found"`
	Sizes   [2]int64  `json:"sizes"`
	// Certain: no honest log holds both. Otherwise the journal gave no proof that joins
	// them, and must show one.
	Certain bool `json:"certain"`
	// Says in plain words what is proven, and of whom, by the keys in the registry.
	Says string `json:"says"`
	// Text stands by itself: anybody with the public keys of the mesh can judge it.
	Text string `json:"text"`
}

// anchors lists what stands in the registry. It is public: it tells how many entries
// each journal has, and nothing of them.
func (s *Server) anchors(q *request) (response, error) {
	out := AnchorList{Items: []Anchor{}}
	if s.cfg.Witnessing == nil {
		return out, nil
	}
	notes, err := s.cfg.Witnessing.Anchors(q.Context())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", problem(CodeUnavailable, "", "This node asks the registry's members for anchors, and none answers; see GET /readyz."), err)
	}
	for _, n := range notes {
		out.Items = append(out.Items, Anchor{
			Journal: n.Node.String(), Size: n.Size, Root: base64.StdEncoding.EncodeToString(n.Root[:]),
			Witnesses: nodeNames(n.Witnesses()), Note: string(n.Bytes()),
		})
	}
	return out, nil
}

func nodeNames(ids []names.NodeID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.String()
	}
	return out
}

// evidence lists the contradictions that this node found as registry member. It is
// public, so that whoever is accused sees it too.
func (s *Server) evidence(*request) (response, error) {
	out := EvidenceList{Items: []Evidence{}, Decisions: []WrongDecision{}, Declared: []DeclaredEpoch{}}
	if s.cfg.Decisions != nil {
		out.Decisions = append(out.Decisions, s.cfg.Decisions()...)
	}
	if s.cfg.Witnessing == nil {
		return out, nil
	}
	all, err := s.cfg.Witnessing.Evidence()
	if err != nil {
		return nil, err
	}
	declared, err := s.cfg.Witnessing.Declared()
	if err != nil {
		return nil, err
	}
	out.Declared = append(out.Declared, declared...)
	return out, s.cfg.Registry.View(func(v record.View) error {
		for _, e := range all {
			says, err := judged(v, e)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, Evidence{
				Journal: e.Older.Node.String(), Found: e.Found, Sizes: [2]int64{e.Older.Size, e.Newer.Size},
				Certain: checkpoint.Compare(e.Older, e.Newer, e.Proof) == checkpoint.Forked, Says: says, Text: string(e.Text()),
			})
		}
		return nil
	})
}

// judged says what evidence proves by all keys that the registry ever had.
func judged(v record.View, e *checkpoint.Evidence) (string, error) {
	var failed error
	f, err := e.Verify(func(i names.InstitutionID) (keys []ed25519.PublicKey) {
		all, err := v.KeysOf(i)
		failed = errors.Join(failed, err)
		for _, k := range all {
			keys = append(keys, k.GetPublicKey())
		}
		return keys
	})
	if failed != nil || err != nil {
		return "", errors.Join(failed, err)
	}
	return f.String(), nil
}

// metrics tells how the node is doing, to whoever watches machines.
func (s *Server) metrics(q *request) (response, error) {
	d := document{media: mediaMetrics, body: []byte{}}
	if s.cfg.Metrics == nil {
		return d, nil
	}
	var err error
	d.body, err = s.cfg.Metrics(q.Context())
	return d, err
}

// Anchors gives the last anchored checkpoint of every journal.
func (c *Client) Anchors(ctx context.Context) (AnchorList, error) {
	return get[AnchorList](ctx, c, "/v1/anchors")
}

// Evidence gives the contradictions that the node found, as registry member.
func (c *Client) Evidence(ctx context.Context) (EvidenceList, error) {
	return get[EvidenceList](ctx, c, "/v1/evidence")
}
