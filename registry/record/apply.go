package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Result is the verdict on one command.
type Result struct {
	// Accepted reports whether the command stands in the tables, now or since before.
	Accepted bool
	// Refusal says why it was not accepted and how to mend it. It never holds a
	// subject's number.
	Refusal string
	// Repeated: this very command was accepted before, at FirstIndex, and nothing
	// was changed now.
	Repeated   bool
	FirstIndex uint64
	// Public reports whether the command is of the public chain.
	Public bool
	// Author is an institution, or one of the threshold groups. Like Public and Kind
	// it is what the command claims when it was refused.
	Author string
	// RemovesRight: someone may do less than before, so whoever acknowledges the
	// command must first wait until that holds everywhere. Set for repeats too.
	RemovesRight bool
	// Kind is the field name of the command's body: "set_key", "declare_references".
	Kind string
}

// refusal is the error of a command that is not accepted.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// IsRefusal tells a refusal, which Replay gives as an error, from a failure.
func IsRefusal(err error) bool {
	var no refusal
	return errors.As(err, &no)
}

// applier is one command on its way.
type applier struct {
	*overlay
	rules  *Rules
	view   View // of the overlay
	index  uint64
	author string
	cmd    *registrypb.Command
	body   []byte           // of the record, as sent
	hash   []byte           // SHA-256 of the payload
	opened *envelope.Opened // nil when history is applied again
	// raw is the envelope; recalled: a signature on it is remembered.
	raw      []byte
	recalled bool
	// removes is set by the rules of the body when a right is taken away.
	removes bool
	// forget is set when an accepted command of no chain changed nothing.
	forget bool
	// replay takes what is not done at once; nil: everything is.
	replay *Replay
	// entries is memory for one row of the directory after another.
	entries []entry
}

func newApplier(o *overlay, r *Rules) *applier {
	return &applier{overlay: o, rules: r, view: NewView(o)}
}

// known is view, where what is decoded of the public tables is shared as long as the command has
// written none of their rows. What it gives must not be changed.
func (a *applier) known() View {
	v := a.view
	if a.overlay == nil || a.overlay.public {
		return v
	}
	if d, ok := a.overlay.base.(Decoding); ok {
		v.memo = d.Decoded()
	}
	return v
}

// Apply decides on the command in envelope, the one at index, and changes s when
// it is accepted. The error is that of s; the verdict then is unknown and the
// caller must drop what was written.
func Apply(s State, r *Rules, index uint64, raw []byte) (Result, error) {
	o := newOverlay(s)
	a := newApplier(o, r)
	a.index = index
	res, err := a.apply(raw)
	if res.Refusal, err = refusalOf(err); err != nil || res.Refusal != "" || res.Repeated {
		return res, err
	}
	return res, o.commit()
}

// refusalOf tells refusals from failures of the State.
func refusalOf(err error) (string, error) {
	var no refusal
	if errors.As(err, &no) {
		return string(no), nil
	}
	return "", err
}

func (a *applier) apply(raw []byte) (res Result, err error) {
	opened, err := a.open(raw)
	if err != nil {
		return res, err
	}
	hash := sha256.Sum256(opened.Payload)
	a.hash, a.opened = hash[:], opened
	res.Author, res.Kind = a.author, a.kind()
	res.Public = a.cmd.Chain == registrypb.Chain_PUBLIC
	known, err := a.Get(hashKey(hash[:]))
	if err != nil {
		return res, err
	}
	if known != nil {
		if len(known) != 9 {
			return res, fmt.Errorf("%w: command hash", ErrCorrupt)
		}
		res.Accepted, res.Repeated = true, true
		res.FirstIndex = binary.BigEndian.Uint64(known)
		res.RemovesRight = known[8] == 1
		return res, nil
	}
	if err := a.authorize(opened); err != nil {
		return res, err
	}
	if err := a.followsOn(); err != nil {
		return res, err
	}
	if err := a.applyBody(); err != nil {
		return res, err
	}
	if a.size > MaxWrite {
		return res, refuse("the command writes %d bytes, at most %d are accepted: send it in smaller parts", a.size, MaxWrite)
	}
	res.Accepted, res.RemovesRight = true, a.removes
	return res, a.remember(hash[:], raw, res)
}

// decode reads the payload strictly: no field twice, none unknown, so that the
// bytes have one meaning, to every version of this program that accepts them.
func (a *applier) decode(payload []byte) error {
	if err := a.parse(payload); err != nil {
		return err
	}
	a.author = a.cmd.Author
	switch {
	case a.cmd.Mesh != string(a.rules.Mesh):
		return refuse("the command is for another mesh than %s", a.rules.Mesh)
	case a.cmd.TimeUnixMs <= 0:
		return refuse("the command carries no time")
	case a.cmd.Chain < registrypb.Chain_PUBLIC || a.cmd.Chain > registrypb.Chain_ANCHORS:
		return refuse("unknown chain %d", a.cmd.Chain)
	case len(a.cmd.Nonce) > maxNonce || a.cmd.Chain == registrypb.Chain_DIRECTORY && len(a.cmd.Nonce) < minNonce:
		return refuse("a nonce of %d bytes: want %d to %d random ones on the chain DIRECTORY, and no more elsewhere", len(a.cmd.Nonce), minNonce, maxNonce)
	}
	return nil
}

// parse reads the form of the payload alone.
func (a *applier) parse(payload []byte) error {
	var seen uint64
	for b := payload; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return refuse("the command is not protobuf")
		}
		size := protowire.ConsumeFieldValue(num, typ, b[n:])
		if size < 0 {
			return refuse("the command is not protobuf")
		}
		if num > 63 || seen&(1<<num) != 0 {
			return refuse("field %d of the command is unknown, or stands there twice", num)
		}
		seen |= 1 << num
		if num >= firstBody {
			if a.body != nil || typ != protowire.BytesType {
				return refuse("the command has more than one body, or a malformed one")
			}
			a.body, _ = protowire.ConsumeBytes(b[n:])
		}
		b = b[n+size:]
	}
	a.cmd = new(registrypb.Command)
	if err := proto.Unmarshal(payload, a.cmd); err != nil {
		return refuse("the command is not protobuf")
	}
	if a.cmd.Body == nil {
		return refuse("the command has no body")
	}
	if hasUnknown(a.cmd.ProtoReflect()) {
		return refuse("the command holds fields this version does not know")
	}
	return nil
}

func hasUnknown(m protoreflect.Message) (unknown bool) {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for l, i := v.List(), 0; i < l.Len() && !unknown; i++ {
				unknown = hasUnknown(l.Get(i).Message())
			}
		default:
			unknown = hasUnknown(v.Message())
		}
		return !unknown
	})
	return unknown
}

// kind names the body as the .proto file does.
func (a *applier) kind() string {
	m := a.cmd.ProtoReflect()
	return string(m.WhichOneof(m.Descriptor().Oneofs().ByName("body")).Name())
}

// followsOn checks that the command is the next one of its chain.
func (a *applier) followsOn() error {
	if a.cmd.Chain == registrypb.Chain_ANCHORS { // the order of these does not matter: the largest stands
		if a.cmd.Sequence != 0 || len(a.cmd.Previous) > 0 {
			return refuse("%s is of no chain: it carries neither sequence nor previous", a.kind())
		}
		return nil
	}
	sequence, hash, err := a.view.Head(a.author, a.cmd.Chain)
	if err != nil {
		return err
	}
	switch {
	case a.cmd.Sequence != sequence+1:
		return refuse("sequence %d of the chain %s of %s: want %d", a.cmd.Sequence, a.cmd.Chain, a.author, sequence+1)
	case !bytes.Equal(a.cmd.Previous, hash):
		return refuse("the command does not follow on %d of the chain %s of %s: its previous hash differs", sequence, a.cmd.Chain, a.author)
	}
	return nil
}

// remember writes what makes the command part of history.
func (a *applier) remember(hash, raw []byte, res Result) error {
	if a.cmd.Chain == registrypb.Chain_ANCHORS {
		if a.forget {
			return nil
		}
		return a.Set(indexKey(tabCommand, a.index), bytes.Clone(raw))
	}
	known := binary.BigEndian.AppendUint64(nil, a.index)
	if res.RemovesRight {
		known = append(known, 1)
	} else {
		known = append(known, 0)
	}
	place, mark := directoryKey(a.author, a.index), present
	if res.Public {
		var err error
		if mark, err = a.lengthen(hash); err != nil {
			return err
		}
		place = indexKey(tabPublic, a.index)
	}
	head := append(binary.BigEndian.AppendUint64(nil, a.cmd.Sequence), hash...)
	return errors.Join(
		a.Set(hashKey(hash), known),
		a.Set(headKey(a.author, byte(a.cmd.Chain)), head),
		a.Set(place, mark),
		a.Set(indexKey(tabCommand, a.index), bytes.Clone(raw)))
}
