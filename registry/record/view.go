package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// View reads the tables. Its methods give nil and no error when there is no such
// row; an error means that the Getter failed or a row is corrupt. What they give
// is the caller's own. A View is good as long as its Getter, and as safe for
// concurrent use.
type View struct {
	g     Getter
	names *Interned // may be nil
	memo  *Memo     // nil: nothing is remembered

	shared *Memo // of this state, for Remembering; may be nil
	state  any   // see At
}

// NewView makes a view of what g holds.
func NewView(g Getter) View { return View{g: g} }

// NewCachedView makes a view that remembers in names what packed rows hold as
// small numbers, and whose Remembering remembers in memo, which may be nil. Names must be
// of this very state, memo of one with the same public tables.
func NewCachedView(g Getter, names *Interned, memo *Memo) View {
	return View{g: g, names: names, shared: memo}
}

// At gives the same view, which knows by what its state is told from all others: a pointer
// to what is of that state alone.
func (v View) At(state any) View {
	v.state = state
	return v
}

// State tells the state of the view from others: two views between which it is the same
// give the same of all tables. Nil: that is not known. Whoever keeps it should do so for
// moments; it is good for comparing alone.
func (v View) State() any { return v.state }

// message reads a row that holds an author's bytes; false: there is none.
func (v View) message(k []byte, m proto.Message) (bool, error) {
	b, err := v.g.Get(k)
	if err != nil || b == nil {
		return false, err
	}
	return true, decodeRow(b, m)
}

func decodeRow(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %s", ErrCorrupt, m.ProtoReflect().Descriptor().Name())
	}
	return nil
}

func (v View) has(k []byte) (bool, error) {
	b, err := v.g.Get(k)
	return b != nil, err
}

// scan calls fn with every row under prefix.
func (v View) scan(prefix []byte, fn func(k, b []byte) error) error {
	return ended(v.g.Scan(prefix, prefix, fn))
}

func ended(err error) error {
	if errors.Is(err, ErrStop) {
		return nil
	}
	return err
}

// Institution gives an admitted institution; Suspended is as it now stands.
func (v View) Institution(id names.InstitutionID) (*registrypb.Institution, error) {
	if v.memo == nil {
		return v.institution(id)
	}
	return remember(v.memo, v.memo.institutions, id, func() (*registrypb.Institution, error) { return v.institution(id) })
}

func (v View) institution(id names.InstitutionID) (*registrypb.Institution, error) {
	i := new(registrypb.Institution)
	ok, err := v.message(key(tabInstitution, string(id)), i)
	if err != nil || !ok {
		return nil, err
	}
	return i, v.complete(i)
}

func (v View) complete(i *registrypb.Institution) (err error) {
	i.FirstKey = nil // the keys table tells
	i.Suspended, err = v.has(key(tabSuspended, i.Id))
	return err
}

// Institutions calls fn with every institution, in order of id.
func (v View) Institutions(fn func(*registrypb.Institution) error) error {
	return v.scan([]byte{tabInstitution}, func(_, b []byte) error {
		i := new(registrypb.Institution)
		if err := errors.Join(decodeRow(b, i), v.complete(i)); err != nil {
			return err
		}
		return fn(i)
	})
}

// Stands reports whether id is admitted and not suspended.
func (v View) Stands(id names.InstitutionID) (bool, error) {
	i, err := v.Institution(id)
	return i != nil && !i.Suspended, err
}

// Key gives a signing key, also a retired one.
func (v View) Key(id names.KeyID) (*registrypb.Key, error) {
	if v.memo == nil {
		return v.key(id)
	}
	return remember(v.memo, v.memo.keys, id, func() (*registrypb.Key, error) { return v.key(id) })
}

func (v View) key(id names.KeyID) (*registrypb.Key, error) {
	b, err := v.g.Get(key(tabKey, string(id)))
	if err != nil || b == nil {
		return nil, err
	}
	return unpackKey(string(id), b)
}

// KeysOf gives all keys of an institution, retired ones too, in order of id.
func (v View) KeysOf(inst names.InstitutionID) ([]*registrypb.Key, error) {
	if v.memo == nil {
		return v.listKeysOf(inst)
	}
	return rememberAll(v.memo, v.memo.keysOf, inst, func() ([]*registrypb.Key, error) { return v.listKeysOf(inst) })
}

func (v View) listKeysOf(inst names.InstitutionID) (keys []*registrypb.Key, err error) {
	prefix := under(tabKeyIndex, string(inst))
	err = v.scan(prefix, func(k, _ []byte) error {
		found, err := v.Key(names.KeyID(k[len(prefix):]))
		if err == nil && found == nil {
			err = fmt.Errorf("%w: index of keys", ErrCorrupt)
		}
		keys = append(keys, found)
		return err
	})
	return keys, err
}

// Node gives a node, also a removed one.
func (v View) Node(id names.NodeID) (*registrypb.Node, error) {
	if v.memo == nil {
		return v.node(id)
	}
	return remember(v.memo, v.memo.nodes, id, func() (*registrypb.Node, error) { return v.node(id) })
}

func (v View) node(id names.NodeID) (*registrypb.Node, error) {
	n := new(registrypb.Node)
	ok, err := v.message(nodeKey(id), n)
	if err != nil || !ok {
		return nil, err
	}
	return n, nil
}

// NodeStands reports whether id is a node that was not removed, of an institution
// that is admitted and not suspended.
func (v View) NodeStands(id names.NodeID) (bool, error) {
	n, err := v.Node(id)
	if err != nil || n == nil || n.Removed {
		return false, err
	}
	return v.Stands(id.Institution)
}

// Nodes calls fn with every node, removed ones too, in order of institution and name.
func (v View) Nodes(fn func(*registrypb.Node) error) error { return v.nodes([]byte{tabNode}, fn) }

// NodesOf gives all nodes of an institution, removed ones too, in order of name.
func (v View) NodesOf(inst names.InstitutionID) ([]*registrypb.Node, error) {
	if v.memo == nil {
		return v.listNodesOf(inst)
	}
	return rememberAll(v.memo, v.memo.nodesOf, inst, func() ([]*registrypb.Node, error) { return v.listNodesOf(inst) })
}

func (v View) listNodesOf(inst names.InstitutionID) (nodes []*registrypb.Node, err error) {
	err = v.nodes(key(tabNode, string(inst)+"/"), func(n *registrypb.Node) error {
		nodes = append(nodes, n)
		return nil
	})
	return nodes, err
}

func (v View) nodes(prefix []byte, fn func(*registrypb.Node) error) error {
	return v.scan(prefix, func(_, b []byte) error {
		n := new(registrypb.Node)
		if err := decodeRow(b, n); err != nil {
			return err
		}
		return fn(n)
	})
}

// Members gives the voting members as operators set them, whether or not they
// still stand: see IsMember.
func (v View) Members() ([]names.NodeID, error) {
	members, err := v.sharedMembers()
	return slices.Clone(members), err
}

// sharedMembers is Members for those who change nothing.
func (v View) sharedMembers() ([]names.NodeID, error) {
	if v.memo == nil {
		return v.readMembers()
	}
	return remember(v.memo, v.memo.members, struct{}{}, v.readMembers)
}

func (v View) readMembers() ([]names.NodeID, error) {
	m := new(registrypb.Members)
	if ok, err := v.message([]byte{tabMembers}, m); err != nil || !ok {
		return nil, err
	}
	ids := make([]names.NodeID, len(m.Voters))
	for i, ref := range m.Voters {
		ids[i] = NodeID(ref)
	}
	return ids, nil
}

// IsMember reports whether id is a voting member whose node and institution stand.
func (v View) IsMember(id names.NodeID) (bool, error) {
	members, err := v.sharedMembers()
	if err != nil {
		return false, err
	}
	for _, m := range members {
		if m == id {
			return v.NodeStands(id)
		}
	}
	return false, nil
}

// Head gives the sequence of the last accepted command of a chain and the hash of
// its payload: 0 and nil when there is none.
func (v View) Head(author string, chain registrypb.Chain) (sequence uint64, hash []byte, err error) {
	b, err := v.g.Get(headKey(author, byte(chain)))
	switch {
	case err != nil || b == nil:
		return 0, nil, err
	case len(b) != 40:
		return 0, nil, fmt.Errorf("%w: head of a chain", ErrCorrupt)
	}
	return binary.BigEndian.Uint64(b), b[8:], nil
}

// AppliedIndex gives the index up to which everything is decided; 0: nothing yet.
func (v View) AppliedIndex() (uint64, error) {
	b, err := v.g.Get([]byte{tabApplied})
	switch {
	case err != nil || b == nil:
		return 0, err
	case len(b) != 8:
		return 0, fmt.Errorf("%w: applied index", ErrCorrupt)
	}
	return binary.BigEndian.Uint64(b), nil
}

// NodeID gives the name of the node that ref names.
func NodeID(ref *registrypb.NodeRef) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(ref.GetInstitution()), Node: names.NodeName(ref.GetNode())}
}

// Period gives the period that p holds.
func Period(p *registrypb.Period) names.Period {
	return names.Period{From: names.Date(p.GetFrom()), Until: names.Date(p.GetUntil())}
}
