package record

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Level is the feature level up to which this program knows the rules. A new rule
// of Apply, or a new kind of record, belongs to a level: until operators raise the mesh
// to it, every program judges as if the rule were not there.
//
//	1  the kinds of command up to set_anchors
//	2  feature levels; groups that change their keys and recovery; law in place of a
//	   committee; a managing body writes its sector's offerings; merged numbers;
//	   autopilot; no file or mandate of a cooperating institution's own; and every other kind of command
const Level = 2

// ErrOldProgram means that operators raised the mesh to a feature level whose rules
// this program does not know. It stopped before it could judge otherwise than the
// others; nothing is lost. Mend it by installing a newer release.
var ErrOldProgram = errors.New("this program is older than the mesh")

// firstLevelKinds is the last field number of a Command's body at level 1.
const firstLevelKinds = 22

func (r *Rules) knows() uint32 {
	if r.Knows > 0 {
		return r.Knows
	}
	return Level
}

func (r *Rules) tooOld(level uint32) error {
	return fmt.Errorf("%w: the mesh is at feature level %d, this program knows %d: install a newer release and start again; it goes on where it stands", ErrOldProgram, level, r.knows())
}

// checkLevel reports whether this program may judge over a state.
func (r *Rules) checkLevel(g Getter) error {
	level, err := NewView(g).FeatureLevel()
	if err == nil && level > r.knows() {
		err = r.tooOld(level)
	}
	return err
}

// FeatureLevel gives the level of the rules in force; a mesh begins at 1, or where its
// genesis file says.
func (v View) FeatureLevel() (uint32, error) {
	b, err := v.g.Get([]byte{tabLevel})
	switch {
	case err != nil:
		return 0, err
	case b == nil:
		return 1, nil
	case len(b) != 4:
		return 0, fmt.Errorf("%w: feature level", ErrCorrupt)
	}
	return binary.BigEndian.Uint32(b), nil
}

func packLevel(level uint32) []byte { return binary.BigEndian.AppendUint32(nil, level) }

// levelOfKind gives the level from which on a command of this kind is known.
func levelOfKind(c *registrypb.Command) uint32 {
	m := c.ProtoReflect()
	n := m.WhichOneof(m.Descriptor().Oneofs().ByName("body")).Number()
	if _, raise := c.Body.(*registrypb.Command_SetFeatureLevel); raise || n <= firstLevelKinds {
		return 1
	}
	return 2
}

// reached refuses what belongs to a level that the mesh is not at.
func (a *applier) reached(level uint32, what string) error {
	now, err := a.view.FeatureLevel()
	if err == nil && now < level {
		err = refuse("%s takes feature level %d, the mesh is at %d: operators raise it with set_feature_level", what, level, now)
	}
	return err
}

// setFeatureLevel raises the rules by one level, so that a slip of the pen cannot stop
// every program there is. A program that does not know the new level fails here: that
// it judges no further is the point.
func (a *applier) setFeatureLevel(l *registrypb.FeatureLevel) error {
	now, err := a.view.FeatureLevel()
	if err != nil {
		return err
	}
	if l.Level != now+1 {
		return refuse("the mesh is at feature level %d, and is raised one at a time: want %d", now, now+1)
	}
	if l.Level > a.rules.knows() {
		return a.rules.tooOld(l.Level)
	}
	return a.Set([]byte{tabLevel}, packLevel(l.Level))
}

// Raises gives the feature level to which a command would raise the mesh; 0: it is
// another kind of command, or none.
func Raises(raw []byte) uint32 {
	return parsed(raw, bodySetFeatureLevel).GetSetFeatureLevel().GetLevel()
}

// NamesMembers gives the members that a command would write, or none.
func NamesMembers(raw []byte) (ids []names.NodeID) {
	for _, v := range parsed(raw, bodySetMembers).GetSetMembers().GetVoters() {
		ids = append(ids, NodeID(v))
	}
	return ids
}

// The numbers of bodies in record.proto, none of which is below firstBody.
const firstBody = 10

var (
	bodySetFeatureLevel = bodyNumber("set_feature_level")
	bodySetMembers      = bodyNumber("set_members")
)

func bodyNumber(name protoreflect.Name) protowire.Number {
	return new(registrypb.Command).ProtoReflect().Descriptor().Fields().ByName(name).Number()
}

// parsed reads the command in an envelope, if its body is the wanted one, believing nothing;
// nil: there is none.
func parsed(raw []byte, want protowire.Number) *registrypb.Command {
	opened, err := envelope.Open(envelope.Command, raw)
	if err != nil || !holds(opened.Payload, want) {
		return nil
	}
	a := &applier{rules: new(Rules)}
	if err := a.parse(opened.Payload); err != nil {
		return nil
	}
	return a.cmd
}

// holds reports whether a message has a field at its top.
func holds(payload []byte, want protowire.Number) bool {
	for b := payload; len(b) > 0; {
		num, _, n := protowire.ConsumeField(b)
		if n < 0 {
			return false
		}
		if num == want {
			return true
		}
		b = b[n:]
	}
	return false
}

// KnownLevel gives the highest feature level that this program knows.
func (r *Rules) KnownLevel() uint32 { return r.knows() }
