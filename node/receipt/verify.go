package receipt

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Report is what a receipt shows, and whether it holds.
type Report struct {
	Journal string       `json:"journal"`
	Mesh    names.MeshID `json:"mesh"`
	Genesis string       `json:"genesis"` // SHA-256 of the genesis file it was verified with
	// Holds: everything in the receipt verifies. The story may still have notes.
	Holds bool         `json:"holds"`
	Story *trace.Story `json:"story"`
	// Named are the institutions that signed, with their full names.
	Named map[names.InstitutionID]string `json:"named"`
}

// Verify judges a receipt with nothing but a genesis file, which the caller must have
// from elsewhere than the receipt.
func Verify(r *Receipt, g *genesis.File) *Report {
	roots := newRoots(g, r.Registry)
	self, _ := names.ParseNodeID(r.Journal)
	seg := r.segment()
	story := trace.Build(r.Ticket, map[names.NodeID]trace.Segment{self: seg}, trace.Means{Keys: roots.keysOf, Anchored: roots.anchored, Alone: true})
	var found []trace.Finding
	find := func(by, format string, args ...any) {
		f := trace.Finding{Kind: trace.Disagreement, Says: fmt.Sprintf(format, args...)}
		if by != "" {
			f.By = []string{by}
		}
		if !slices.ContainsFunc(found, func(x trace.Finding) bool { return x.Says == f.Says }) {
			found = append(found, f)
		}
	}
	if r.Mesh != g.Mesh {
		find("", "The receipt is of mesh %s, the genesis file of %s.", r.Mesh, g.Mesh)
	}
	if len(roots.bad) > 0 {
		find("", "Of the registry commands in the receipt, these are not signed by those who may give them: %s.", strings.Trim(fmt.Sprint(roots.bad), "[]"))
	}
	rep := &Report{Journal: r.Journal, Mesh: r.Mesh, Genesis: g.Hash(), Story: story, Named: map[names.InstitutionID]string{}}
	for _, s := range seg.Entries {
		e, err := trace.Decode(s)
		if err != nil {
			continue // the story says so
		}
		for _, ref := range []*registrypb.NodeRef{e.Requester, e.Clearer, e.Supplier} {
			if n := roots.names[names.InstitutionID(ref.GetInstitution())]; n != "" {
				rep.Named[names.InstitutionID(ref.GetInstitution())] = n
			}
		}
		for _, c := range clearancesIn(e) {
			roots.judge(c, r.Mesh, find)
		}
	}
	story.Add(found...)
	rep.Holds = !slices.ContainsFunc(story.Findings, func(f trace.Finding) bool {
		return f.Kind == trace.Altered || f.Kind == trace.Disagreement || f.Kind == trace.Unverified
	})
	return rep
}

// clearancesIn gives what was cleared, other than what a supplier refused.
func clearancesIn(e *nodepb.Entry) (all []*registrypb.Clearance) {
	if e.Event == nodepb.Event_REFUSED {
		return nil
	}
	for _, raw := range e.Evidence {
		opened, err := envelope.Open(envelope.Clearance, raw)
		if err != nil {
			continue
		}
		c := new(registrypb.Clearance)
		if proto.Unmarshal(opened.Payload, c) == nil {
			all = append(all, c)
		}
	}
	return all
}

// judge checks that a clearance is by somebody who may clear, and within the
// authorization that it cites.
func (r *roots) judge(c *registrypb.Clearance, mesh names.MeshID, find func(by, format string, args ...any)) {
	clearer := record.NodeID(c.Clearer).String()
	if c.Mesh != string(mesh) {
		find(clearer, "The clearance for %s is of another mesh.", c.Supplier)
	}
	if !r.isMember(record.NodeID(c.Clearer)) {
		find(clearer, "%s cleared this, and nothing in the receipt shows that it is a member of the registry.", clearer)
	}
	if c.Clearer.GetInstitution() == c.Requester.GetInstitution() || c.Clearer.GetInstitution() == c.Supplier {
		find(clearer, "%s cleared an exchange to which it is a party.", clearer)
	}
	versions := r.authorizations[c.Authorization]
	if len(versions) == 0 {
		find(clearer, "%s cited authorization %s, of which the receipt holds no decision of the committee.", clearer, c.Authorization)
		return
	}
	if !slices.ContainsFunc(versions, func(a *registrypb.Authorization) bool { return covers(a, c) }) {
		find(clearer, "%s permitted more than authorization %s gives.", clearer, c.Authorization)
	}
}

func covers(a *registrypb.Authorization, c *registrypb.Clearance) bool {
	return a.Dataset == c.Dataset && a.Purpose == c.Purpose && slices.Contains(a.Modes, c.Mode) &&
		!slices.ContainsFunc(c.Fields, func(f string) bool { return !slices.Contains(a.Fields, f) })
}

// Write renders the report for people.
func (r *Report) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	word, says := "HOLDS", "Every entry is what was committed to, and every signature goes back to the genesis file."
	if !r.Holds {
		word, says = "DOES NOT HOLD", "Something in it is altered, forged or missing: see the findings."
	}
	fmt.Fprintf(b, "Receipt from the journal of %s, mesh %s  %s\n%s\n\n", r.Journal, r.Mesh, word, says)
	if err := b.Flush(); err != nil {
		return err
	}
	if err := r.Story.Write(w); err != nil {
		return err
	}
	for _, j := range r.Story.Journals {
		fmt.Fprintf(b, "\n  In the published log, cosigned by most members of the registry: %d of %d entries.\n", j.Anchored, j.Entries)
	}
	fmt.Fprintf(b, "\n  Who is who\n")
	ids := make([]names.InstitutionID, 0, len(r.Named))
	for id := range r.Named {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		fmt.Fprintf(b, "  %-24s %s\n", id, printable(r.Named[id]))
	}
	fmt.Fprintf(b, "\n  Verified with the genesis file whose SHA-256 is\n  %s\n", r.Genesis)
	fmt.Fprintf(b, "  Not shown by a receipt: what the other parties' journals say, and what was revoked or retired\n  by commands that are not in it. Ask for a trace.\n")
	return b.Flush()
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
