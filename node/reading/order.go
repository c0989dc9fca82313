package reading

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	// MaxOrder is the largest inspection order that is read, in bytes.
	MaxOrder = 16 << 10
	// MaxOrderLife is the longest that one may hold.
	MaxOrderLife = 90 * 24 * time.Hour
	maxReason    = 500
)

// errOrder is wrapped by every reason not to follow an order.
var errOrder = errors.New("the inspection order")

// CheckOrder reports whether an order makes sense; who signed it is another matter.
// The error wraps ErrMalformed and says what to mend.
func CheckOrder(o *nodepb.InspectionOrder, schemes subject.Schemes) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: inspection order: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	executor := record.NodeID(o.GetExecutor())
	issued, expires := at(o.GetIssuedUnixMs()), at(o.GetExpiresUnixMs())
	switch {
	case names.MeshID(o.GetMesh()).Validate() != nil:
		return bad("it names no mesh")
	case names.AuthorizationID(o.GetId()).Validate() != nil:
		return bad("id: use at most 63 lower case letters, digits and dashes")
	case o.GetReason() == "" || len(o.GetReason()) > maxReason || strings.ContainsFunc(o.GetReason(), unicode.IsControl):
		return bad("reason: want one line of at most %d bytes", maxReason)
	case executor.Institution.Validate() != nil, executor.Node != "" && executor.Node.Validate() != nil:
		return bad("executor: want institution, or institution/node")
	case o.GetIssuedUnixMs() <= 0 || !issued.Before(expires) || expires.Sub(issued) > MaxOrderLife:
		return bad("it must expire after it is issued, and within %d days", int(MaxOrderLife.Hours()/24))
	case len(o.ProtoReflect().GetUnknown()) > 0:
		return bad("it has fields that are not known here")
	}
	switch scope := o.GetScope().(type) {
	case *nodepb.InspectionOrder_Ticket:
		if names.Ticket(scope.Ticket).Validate() != nil {
			return bad("ticket: want 26 characters")
		}
	case *nodepb.InspectionOrder_Subject:
		id, err := schemes.Parse(subject.Scheme(scope.Subject.GetScheme()), scope.Subject.GetNumber())
		if err != nil || id.Number() != scope.Subject.GetNumber() {
			return bad("subject: want a known scheme and a number in its canonical form")
		}
	case *nodepb.InspectionOrder_Institution:
		i := scope.Institution
		if names.InstitutionID(i.GetId()).Validate() != nil || i.GetFromUnixMs() <= 0 || i.GetFromUnixMs() >= i.GetUntilUnixMs() {
			return bad("institution: want its id, and a period that begins before it ends")
		}
	default:
		return bad("it names no ticket, subject or institution")
	}
	return nil
}

// OpenOrder reads an order without believing it. The error wraps ErrMalformed.
func OpenOrder(raw []byte, schemes subject.Schemes) (*envelope.Opened, *nodepb.InspectionOrder, error) {
	if len(raw) == 0 || len(raw) > MaxOrder {
		return nil, nil, fmt.Errorf("%w: an inspection order has 1 to %d bytes, this has %d", ErrMalformed, MaxOrder, len(raw))
	}
	opened, err := envelope.Open(envelope.InspectionOrder, raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	o := new(nodepb.InspectionOrder)
	if err := proto.Unmarshal(opened.Payload, o); err != nil {
		return nil, nil, fmt.Errorf("%w: no inspection order", ErrMalformed)
	}
	return opened, o, CheckOrder(o, schemes)
}

// NewOrder makes the envelope of an order that nobody has signed yet.
func NewOrder(o *nodepb.InspectionOrder, schemes subject.Schemes) ([]byte, error) {
	if err := CheckOrder(o, schemes); err != nil {
		return nil, err
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(o)
	if err != nil {
		return nil, err
	}
	return envelope.Sign(envelope.InspectionOrder, payload)
}

// valid gives an order that the committee signed for executor, now.
func valid(raw []byte, mesh names.MeshID, committee genesis.Group, executor names.NodeID, now time.Time, skew time.Duration, schemes subject.Schemes) (*nodepb.InspectionOrder, error) {
	opened, o, err := OpenOrder(raw, schemes)
	if err != nil {
		return nil, err
	}
	if n := opened.CountVerified(committee.Keys); committee.Threshold < 1 || n < committee.Threshold {
		return nil, fmt.Errorf("%w: %d of the committee's keys signed it, want %d", errOrder, n, committee.Threshold)
	}
	named := record.NodeID(o.Executor)
	switch {
	case o.Mesh != string(mesh):
		return o, fmt.Errorf("%w %s is another mesh's", errOrder, o.Id)
	case named.Institution != executor.Institution || named.Node != "" && named.Node != executor.Node:
		return o, fmt.Errorf("%w %s is for another to execute", errOrder, o.Id)
	case now.Add(skew).Before(at(o.IssuedUnixMs)):
		return o, fmt.Errorf("%w %s is from the future", errOrder, o.Id)
	case !now.Before(at(o.ExpiresUnixMs).Add(skew)):
		return o, fmt.Errorf("%w %s has expired", errOrder, o.Id)
	}
	return o, nil
}
