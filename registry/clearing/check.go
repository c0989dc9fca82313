package clearing

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry/lease"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Refusal says why a supplier does not accept a clearance.
type Refusal struct {
	Reason registrypb.Reason
	Detail string // for the supplier's log; no subject's number
}

// Error gives reason and detail.
func (r *Refusal) Error() string { return fmt.Sprintf("clearance refused: %s: %s", r.Reason, r.Detail) }

func refuse(r registrypb.Reason, format string, args ...any) *Refusal {
	return &Refusal{r, fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *Refusal {
	return refuse(registrypb.Reason_CLEARANCE_INVALID, format, args...)
}

func unsure(err error) *Refusal {
	return refuse(registrypb.Reason_REGISTRY_STALE, "own view of the registry: %v", err)
}

// Checked is a clearance that stood when it was checked.
type Checked struct {
	Ticket      names.Ticket
	Clearer     names.NodeID
	Requester   names.NodeID
	Supplier    names.NodeID // this node
	RequestHash []byte
	// ID is the clearance's. One request may come with several clearances, and
	// must be answered once: mark RequestHash as seen, not only ID.
	ID            []byte
	Hash          []byte // SHA-256 of the clearance's envelope
	Subject       subject.ID
	FiledUnder    []subject.ID // numbers that Subject replaced, under which own files may stand
	Dataset       names.DatasetID
	Fields        []names.FieldName // that may leave
	Withheld      []names.FieldName
	Period        names.Period
	Purpose       names.Purpose
	Mode          names.Mode
	Qualities     []names.Quality // of the own files that gave the route
	Authorization *registrypb.Authorization
	Mandate       *registrypb.MandateUse // nil where the authorization asks for none
	Request       *registrypb.Request
	// ReleaseBy is the last moment, on the own clock, at which data may leave.
	ReleaseBy time.Time

	issued             time.Time // by the clearing peer's clock
	clearance, request *envelope.Opened
	grant              *lease.Signed
	verifier           *envelope.Verifier
	second             *Checked // by the second clearing peer, where there must be one
}

// Checker checks clearances and remembers what verified: grants, which stand in many
// of them, and roots of groups that were signed together. What is remembered is
// never more than that a key signed these bytes; whether the key and all else stands
// is looked up each time. The zero value is ready and safe for concurrent use.
type Checker struct {
	verifier envelope.Verifier

	mu     sync.Mutex
	grants map[[sha256.Size]byte]*lease.Signed // that verified; at most maxGrants
}

// maxGrants is what a Checker remembers: a grant lives seconds, and each member has
// one or two.
const maxGrants = 64

// Check is everything that a supplier can verify of a clearance in its own view,
// which must be one it may rely on: that a member which is no party signed it, in
// time and within its grant, for this very request, which from sent, to this
// supplier, and that all it rests on still stands.
//
// Not checked here, because it is not public: the supplier's own reference, and
// whether the request was answered before.
func (m *Checker) Check(v record.View, now time.Time, b genesis.Bounds, mesh names.MeshID, self, from names.NodeID, request, clearance []byte) (*Checked, *Refusal) {
	p, r := ReadPart(mesh, request, clearance)
	if r != nil {
		return nil, r
	}
	return m.CheckPart(v, now, b, mesh, self, from, *p)
}

// ReadPart takes a request and a clearance apart. It judges their form alone.
func ReadPart(mesh names.MeshID, request, clearance []byte) (*Part, *Refusal) {
	c := new(registrypb.Clearance)
	opened, err := open(envelope.Clearance, clearance, c)
	if err != nil {
		// What foreign bytes say is never repeated: it could be anything.
		return nil, invalid("malformed clearance")
	}
	req, signed, err := openRequest(mesh, request)
	if err != nil {
		return nil, invalid("malformed request")
	}
	return &Part{
		Ticket: names.TicketOf(request), Request: req, RequestHash: sum(request), Signed: signed,
		Clearance: c, Hash: sum(clearance), Opened: opened,
	}, nil
}

// Part is a clearance and its request, taken apart: what Check reads from two envelopes.
// A clearance for many subjects has several, one for each group that was decided alike.
type Part struct {
	Ticket      names.Ticket
	Request     *registrypb.Request
	RequestHash []byte
	Signed      *envelope.Opened // what the requester signed of it
	Clearance   *registrypb.Clearance
	Hash        []byte           // of what the clearing peer signed
	Opened      *envelope.Opened // likewise
	// Second is what the second clearing peer cleared, of the same request; nil: nothing.
	Second *Part
}

// CheckPart is Check from where the form of both was read. What takes two clearing peers
// needs the part's Second.
func (m *Checker) CheckPart(v record.View, now time.Time, b genesis.Bounds, mesh names.MeshID, self, from names.NodeID, p Part) (*Checked, *Refusal) {
	check := func(p Part) (*Checked, *Refusal) { return m.checkOne(v, now, b, mesh, self, from, p) }
	k, no := check(p)
	if no == nil {
		no = k.withSecond(v, p, check)
	}
	if no != nil {
		return nil, no
	}
	return k, nil
}

func (m *Checker) checkOne(v record.View, now time.Time, b genesis.Bounds, mesh names.MeshID, self, from names.NodeID, p Part) (_ *Checked, r *Refusal) {
	req, c := p.Request, p.Clearance
	if record.NodeID(c.Clearer).Validate() != nil || names.AuthorizationID(c.Authorization).Validate() != nil {
		return nil, invalid("malformed clearance")
	}
	k := &Checked{
		Ticket: p.Ticket, Clearer: record.NodeID(c.Clearer), Requester: from, Supplier: self,
		Subject: subject.Raw(subject.Scheme(req.Subject.Scheme), req.Subject.Number),
		Dataset: names.DatasetID(req.Dataset), Period: record.Period(req.Period),
		Purpose: names.Purpose(req.Purpose), Mode: names.Mode(req.Mode), Request: req,
		Fields: named[names.FieldName](c.Fields), Withheld: named[names.FieldName](c.Withheld), Qualities: named[names.Quality](c.SupplierQualities),
		ID: c.Id, Mandate: c.Mandate, issued: time.UnixMilli(c.IssuedUnixMs), clearance: p.Opened, request: p.Signed, verifier: &m.verifier,
	}
	for _, id := range c.FiledUnder {
		k.FiledUnder = append(k.FiledUnder, subject.Raw(subject.Scheme(id.GetScheme()), id.GetNumber()))
	}
	k.RequestHash, k.Hash = p.RequestHash, p.Hash
	if r := k.bound(c, mesh); r != nil {
		return nil, r
	}
	var err error
	if k.grant, err = m.grant(mesh, c.Grant, trust(v)); err != nil {
		return nil, invalid("it shows no grant by a registry member")
	}
	if r := k.inTime(c, k.grant.Grant, now, b); r != nil {
		return nil, r
	}
	if k.Authorization, err = v.Authorization(names.AuthorizationID(c.Authorization)); err != nil {
		return nil, unsure(err)
	}
	if k.Authorization == nil {
		return nil, invalid("there is no such authorization")
	}
	if r := k.within(c); r != nil {
		return nil, r
	}
	if r := k.stands(v); r != nil {
		return nil, r
	}
	return k, nil
}

// Genuine reports whether from signed the request and a registry member the clearance,
// by keys in force: then both are worth keeping as evidence, even if they are refused.
func Genuine(v record.View, mesh names.MeshID, from names.NodeID, request, clearance []byte) bool {
	c := new(registrypb.Clearance)
	opened, err := open(envelope.Clearance, clearance, c)
	if err != nil {
		return false
	}
	req, signed, err := openRequest(mesh, request)
	if err != nil || record.NodeID(req.Requester).Institution != from.Institution {
		return false
	}
	clearer := record.NodeID(c.Clearer)
	if clearer.Validate() != nil {
		return false
	}
	if member, err := v.IsMember(clearer); err != nil || !member {
		return false
	}
	if ok, err := signedBy(v, nil, signed, from.Institution); err != nil || !ok {
		return false
	}
	ok, err := signedBy(v, nil, opened, clearer.Institution)
	return err == nil && ok
}

// Check is a Checker's Check that remembers nothing.
func Check(v record.View, now time.Time, b genesis.Bounds, mesh names.MeshID, self, from names.NodeID, request, clearance []byte) (*Checked, *Refusal) {
	return new(Checker).Check(v, now, b, mesh, self, from, request, clearance)
}

// grant reads a grant that stands now.
func (m *Checker) grant(mesh names.MeshID, raw []byte, trust lease.Trust) (*lease.Signed, error) {
	key := sha256.Sum256(raw)
	m.mu.Lock()
	s := m.grants[key]
	m.mu.Unlock()
	known := s != nil
	if !known {
		var err error
		if s, err = lease.Read(mesh, raw); err != nil {
			return nil, err
		}
	}
	if err := s.Check(trust); err != nil || known {
		return s, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.grants == nil || len(m.grants) >= maxGrants {
		m.grants = make(map[[sha256.Size]byte]*lease.Signed)
	}
	m.grants[key] = s
	return s, nil
}

// grantStands reports, to a clearing peer, whether the grant under which it clears counts:
// a member that was removed, suspended, or lost its key signs for nobody, and every
// supplier would refuse what is cleared under its grant. Its error wraps lease.ErrStale.
func (m *Checker) grantStands(v record.View, mesh names.MeshID, standing lease.Standing) error {
	index, err := v.AppliedIndex()
	if err != nil {
		return err
	}
	if index < standing.Index {
		return fmt.Errorf("%w: index %d is not applied yet", lease.ErrStale, standing.Index)
	}
	if _, err := m.grant(mesh, standing.Grant, trust(v)); err != nil {
		return fmt.Errorf("%w: its grant stands no more: %w", lease.ErrStale, err)
	}
	return nil
}

// Recheck is for the moment just before data leave: whether it is in time, and
// nothing that the clearance rests on has fallen away.
func (k *Checked) Recheck(v record.View, now time.Time, _ names.MeshID) *Refusal {
	if now.After(k.ReleaseBy) {
		return refuse(registrypb.Reason_CLEARANCE_EXPIRED, "data had to leave by %s", k.ReleaseBy)
	}
	return k.stands(v)
}

// bound insists that the clearance says of everything what the request says.
func (k *Checked) bound(c *registrypb.Clearance, mesh names.MeshID) *Refusal {
	req := k.Request
	for _, f := range []struct {
		what string
		same bool
	}{
		{"mesh", c.Mesh == string(mesh)},
		{"id", len(c.Id) == nonceSize},
		{"request", bytes.Equal(c.RequestHash, k.RequestHash)},
		{"ticket", c.Ticket == string(k.Ticket)},
		{"requester", record.NodeID(c.Requester) == k.Requester && record.NodeID(req.Requester) == k.Requester},
		{"supplier", c.Supplier == string(k.Supplier.Institution)},
		{"supplier", len(req.Suppliers) == 0 || slices.Contains(req.Suppliers, c.Supplier)},
		{"subject", proto.Equal(c.Subject, req.Subject)},
		{"dataset", c.Dataset == req.Dataset},
		{"period", proto.Equal(c.Period, req.Period)},
		{"purpose", c.Purpose == req.Purpose},
		{"mode", c.Mode == req.Mode},
	} {
		if !f.same {
			return invalid("it is for another %s", f.what)
		}
	}
	if len(c.FiledUnder) > maxFiledUnder {
		return invalid("it names %d numbers of one subject, at most %d are read", len(c.FiledUnder), maxFiledUnder)
	}
	for _, id := range c.FiledUnder {
		if id.GetScheme() != req.Subject.Scheme {
			return invalid("it names numbers of another scheme")
		}
	}
	return nil
}

// inTime judges all times by the own clock. The bound that a revocation waits for
// rests on the grant's time, which the clearing peer did not write.
func (k *Checked) inTime(c *registrypb.Clearance, g *registrypb.Grant, now time.Time, b genesis.Bounds) *Refusal {
	issued, granted := time.UnixMilli(c.IssuedUnixMs), time.UnixMilli(g.LeaderTimeUnixMs)
	presentBy, releaseBy := time.UnixMilli(c.PresentByUnixMs), time.UnixMilli(c.ReleaseByUnixMs)
	bound := granted.Add(b.Lease + b.ReleaseLife + b.Skew)
	switch {
	case record.NodeID(g.Holder) != k.Clearer:
		return invalid("its grant is another's")
	case g.CommitIndex > c.RegistryIndex:
		return invalid("it was decided at index %d, before that of its grant, %d", c.RegistryIndex, g.CommitIndex)
	case presentBy.Before(issued) || presentBy.After(issued.Add(b.PresentLife)),
		releaseBy.Before(presentBy) || releaseBy.After(issued.Add(b.ReleaseLife)):
		return invalid("it gives itself longer than the bounds of the mesh")
	case issued.After(now.Add(b.Skew)) || granted.After(now.Add(b.Skew)):
		return invalid("it comes from the future: compare the clocks of %s, %s and this node", k.Clearer, record.NodeID(g.Leader))
	case issued.Before(granted.Add(-b.Skew)) || issued.After(granted.Add(b.Lease+b.Skew)):
		return invalid("it was not issued within its grant")
	case !fresh(issued, time.UnixMilli(k.Request.TimeUnixMs), b):
		return invalid("the request was too old, or from the future, when it was cleared")
	case now.After(presentBy.Add(b.Skew)):
		return refuse(registrypb.Reason_CLEARANCE_EXPIRED, "it had to be presented by %s", presentBy)
	case now.After(bound):
		return refuse(registrypb.Reason_CLEARANCE_EXPIRED, "its grant is of %s", granted)
	}
	if k.ReleaseBy = releaseBy.Add(b.Skew); k.ReleaseBy.After(bound) {
		k.ReleaseBy = bound
	}
	return nil
}

// within insists that the authorization gives what the clearance says it does.
func (k *Checked) within(c *registrypb.Clearance) *Refusal {
	z, req := k.Authorization, k.Request
	fields, withheld := permitted(req.Fields, z.Fields)
	switch {
	case z.Dataset != req.Dataset || z.Purpose != req.Purpose || !slices.Contains(z.Modes, req.Mode):
		return invalid("authorization %s is for something else", z.Id)
	case len(fields) == 0 || !slices.Equal(fields, c.Fields) || !slices.Equal(withheld, c.Withheld):
		return invalid("authorization %s permits other fields", z.Id)
	case byRow(z, req, c.Mandate != nil).Outcome != registrypb.Outcome_PERMIT:
		return invalid("authorization %s asks for more than the request shows", z.Id)
	case c.Mandate != nil && (!z.MandateRequired || names.MandateID(c.Mandate.Id).Validate() != nil || names.ProviderID(c.Mandate.Provider).Validate() != nil):
		return invalid("it names a mandate that is none, or that authorization %s does not ask for", z.Id)
	case len(c.SupplierQualities) == 0:
		return invalid("it names no file of the supplier")
	}
	return nil
}

// stands looks everything up that may fall away.
func (k *Checked) stands(v record.View) *Refusal {
	for _, check := range []func(record.View) *Refusal{k.clearerStands, k.requesterStands, k.rightsStand, k.mandateStands, k.secondStands} {
		if r := check(v); r != nil {
			return r
		}
	}
	if err := k.grant.Check(trust(v)); err != nil {
		return invalid("its grant is no longer by a registry member")
	}
	return nil
}

// clearerStands: a member, in service, no party, and signed with a key in force.
func (k *Checked) clearerStands(v record.View) *Refusal {
	member, err := v.IsMember(k.Clearer)
	if err != nil {
		return unsure(err)
	}
	if !member {
		return invalid("%s is no registry member in good standing", k.Clearer)
	}
	signed, err := signedBy(v, k.verifier, k.clearance, k.Clearer.Institution)
	if err != nil {
		return unsure(err)
	}
	if !signed {
		return invalid("no key in force of %s signed it", k.Clearer.Institution)
	}
	clearer, err := v.Institution(k.Clearer.Institution)
	if err != nil {
		return unsure(err)
	}
	for _, id := range []names.InstitutionID{k.Requester.Institution, k.Supplier.Institution} {
		inst, err := v.Institution(id)
		if err != nil {
			return unsure(err)
		}
		if inst == nil {
			return invalid("%s is not admitted", id)
		}
		if party(clearer, inst) {
			return invalid("%s is a party, or of the sector of one", k.Clearer.Institution)
		}
	}
	return nil
}

// requesterStands: admitted, in service, and signed with a key in force.
func (k *Checked) requesterStands(v record.View) *Refusal {
	stands, err := v.NodeStands(k.Requester)
	if err != nil {
		return unsure(err)
	}
	if !stands {
		return refuse(registrypb.Reason_REVOKED, "%s is suspended, or its node removed", k.Requester)
	}
	signed, err := signedBy(v, k.verifier, k.request, k.Requester.Institution)
	if err != nil {
		return unsure(err)
	}
	if !signed {
		return invalid("no key in force of %s signed the request", k.Requester.Institution)
	}
	return nil
}

// rightsStand: authorization and offering are in force, and fit the parties.
func (k *Checked) rightsStand(v record.View) *Refusal {
	z, err := v.Authorization(names.AuthorizationID(k.Authorization.Id))
	if err != nil {
		return unsure(err)
	}
	requester, err := v.Institution(k.Requester.Institution)
	if err != nil {
		return unsure(err)
	}
	if z == nil || !isInForce(z, k.Request, k.issued) || z.RequesterType != requester.GetType() {
		return refuse(registrypb.Reason_REVOKED, "authorization %s is not in force for %s", k.Authorization.Id, k.Requester.Institution)
	}
	supplies, err := v.Stands(k.Supplier.Institution)
	if err != nil {
		return unsure(err)
	}
	o, err := v.Offering(k.Dataset, k.Supplier.Institution)
	if err != nil {
		return unsure(err)
	}
	if !supplies || o == nil || o.Withdrawn || !record.Period(o.Period).Overlaps(k.Period) {
		return refuse(registrypb.Reason_REVOKED, "%s is suspended, or does not offer %s for this period", k.Supplier.Institution, k.Dataset)
	}
	for _, q := range k.Qualities {
		if !slices.Contains(o.Qualities, string(q)) {
			return refuse(registrypb.Reason_REVOKED, "%s is not offered for every quality of file that it names", k.Dataset)
		}
	}
	return nil
}

// mandateStands: its provider stands behind it; and, as far as this node can know, it is
// in force. Only members hold everybody's mandates: any other node believes the clearing
// peer, as it does about the requester's integration; DESIGN.md says what bounds that.
func (k *Checked) mandateStands(v record.View) *Refusal {
	if k.Mandate == nil {
		return nil
	}
	p, err := v.IdentityProvider(names.ProviderID(k.Mandate.Provider))
	if err != nil {
		return unsure(err)
	}
	if p == nil || p.Retired || !slices.Contains(p.Levels, k.Mandate.AuthLevel) {
		return refuse(registrypb.Reason_REVOKED, "nobody in force attests mandate %s", k.Mandate.Id)
	}
	member, err := v.IsMember(k.Supplier)
	if err != nil || !member {
		if err != nil {
			return unsure(err)
		}
		return nil
	}
	m, err := v.Mandate(names.MandateID(k.Mandate.Id))
	if err != nil {
		return unsure(err)
	}
	family, err := v.Family(k.Subject)
	if err != nil {
		return unsure(err)
	}
	if m == nil || !proto.Equal(m.Use(), k.Mandate) || !slices.Contains(family, m.Giver) || !m.Opens(k.Requester.Institution, k.Purpose, k.Dataset) {
		return invalid("mandate %s is for something else", k.Mandate.Id)
	}
	if !m.InForce(names.DateOf(k.issued.UTC())) {
		return refuse(registrypb.Reason_REVOKED, "mandate %s is not in force", k.Mandate.Id)
	}
	return nil
}

// trust gives the keys in force of a leader that is a member.
func trust(v record.View) lease.Trust {
	return func(leader names.NodeID) (trusted []ed25519.PublicKey, err error) {
		member, err := v.IsMember(leader)
		if err != nil {
			return nil, err
		}
		if !member {
			return nil, fmt.Errorf("%s is no registry member in good standing", leader)
		}
		keys, err := v.KeysOf(leader.Institution)
		for _, k := range keys {
			if !k.GetRetired() {
				trusted = append(trusted, k.PublicKey)
			}
		}
		return trusted, err
	}
}

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

func named[To, From ~string](list []From) []To {
	out := make([]To, len(list))
	for i, s := range list {
		out[i] = To(s)
	}
	return out
}
