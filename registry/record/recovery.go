package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// A lost threshold is replaced in public: the recovery group announces the new keys, and
// they take effect when the delay of the genesis file is over, unless the threshold that
// was said to be lost cancels it.
//
// Apply has no clock, and a command's time is its author's word: who holds the
// recovery keys could announce as if a week ago. So the members time it. Each says once
// that it sees the announcement, and again when by its own clock the delay is over since;
// both statements are signed commands, and what lies between their two times must be the
// delay at least. When more than half of the institutions that have a voting member have
// said so, the new keys stand, at that index, for every replica. To cut the delay short
// takes the recovery keys and a majority of the members, who could do worse; to hold it
// up for ever takes half of them.

// PendingRecovery is a replacement that was announced and waits.
type PendingRecovery struct {
	Group     string
	To        Threshold
	ID        []byte // SHA-256 of the announcing command's payload
	Index     uint64 // of that command
	Announcer string
	Announced time.Time // as the announcing command says
	Confirmed int       // institutions by whose clock the delay is over
	Needed    int
}

// Confirmation is what an institution has said of a recovery.
type Confirmation struct {
	Seen time.Time // zero: nothing yet
	Over bool      // by its clock the delay is over
}

// announcer gives who replaces a group. Recovery cannot replace itself, or a thief of
// its keys would stay for ever.
func announcer(group string) string {
	if group == Recovery {
		return Operators
	}
	return Recovery
}

func (a *applier) announceRecovery(r *registrypb.RecoveryAnnouncement) error {
	name := r.GetGroup().GetName()
	if _, ok := a.rules.group(name); !ok || announcer(name) != a.author {
		return refuse("%s announces for no such group: recovery replaces operators and committee, operators replace recovery", a.author)
	}
	if err := checkText("reason", r.Reason, 500); err != nil {
		return err
	}
	was, err := a.pending(name)
	if err != nil || was != nil {
		return orRefuse(err, "a replacement of %s waits already: cancel it first", name)
	}
	t, err := a.newGroup(r.Group)
	if err != nil {
		return err
	}
	p := pending{index: a.index, id: a.hash, announced: a.cmd.TimeUnixMs, to: t}
	return a.Set(key(tabRecovery, name), p.pack())
}

func (a *applier) cancelRecovery(r *registrypb.Recovery) error {
	name, _, err := a.pendingByID(r.GetAnnouncement())
	if err != nil {
		return err
	}
	if a.author != name && a.author != announcer(name) {
		return refuse("only %s or %s cancels the replacement of %s", name, announcer(name), name)
	}
	return a.endRecovery(name)
}

// confirmRecovery takes a member's two statements.
func (a *applier) confirmRecovery(r *registrypb.Recovery) error {
	name, p, err := a.pendingByID(r.GetAnnouncement())
	if err != nil {
		return err
	}
	if ok, err := a.votes(names.InstitutionID(a.author)); err != nil || !ok {
		return orRefuse(err, "%s has no voting member, whose clock would count", a.author)
	}
	said, err := a.view.confirmation(name, a.author)
	if err != nil {
		return err
	}
	at := confirmationKey(name, a.author)
	switch passed := time.UnixMilli(a.cmd.TimeUnixMs).Sub(said.Seen); {
	case said.Over:
		return refuse("%s has said already that the delay is over", a.author)
	case said.Seen.IsZero():
		return a.Set(at, packConfirmation(a.cmd.TimeUnixMs, false))
	case passed < a.rules.RecoveryDelay:
		return refuse("by the clock of %s %s have passed since it saw the announcement, want %s", a.author, passed, a.rules.RecoveryDelay)
	}
	if err := a.Set(at, packConfirmation(said.Seen.UnixMilli(), true)); err != nil {
		return err
	}
	confirmed, needed, err := a.view.confirmed(name)
	if err != nil || confirmed < needed {
		return err
	}
	if err := a.endRecovery(name); err != nil {
		return err
	}
	return a.replaceGroup(name, p.to)
}

// endRecovery forgets a replacement that waits, if one does.
func (a *applier) endRecovery(name string) error {
	p, err := a.pending(name)
	if err != nil || p == nil {
		return err
	}
	if err := a.Delete(key(tabRecovery, name)); err != nil {
		return err
	}
	// The statements are of this announcement alone.
	var said [][]byte
	prefix := under(tabConfirmation, name)
	if err := a.Scan(prefix, prefix, func(k, _ []byte) error {
		said = append(said, bytes.Clone(k))
		return nil
	}); err != nil {
		return err
	}
	own := confirmationKey(name, a.author) // which the scan may not see
	if there, err := a.Get(own); err != nil {
		return err
	} else if there != nil {
		said = append(said, own)
	}
	for _, k := range said {
		if err := a.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) pending(name string) (*pending, error) { return a.view.pending(name) }

func (a *applier) pendingByID(id []byte) (string, *pending, error) {
	for _, name := range groupNames {
		p, err := a.pending(name)
		if err != nil {
			return "", nil, err
		}
		if p != nil && bytes.Equal(p.id, id) {
			return name, p, nil
		}
	}
	return "", nil, refuse("no such replacement waits")
}

// PendingRecoveries gives the replacements that wait.
func (v View) PendingRecoveries() (all []PendingRecovery, err error) {
	for _, name := range groupNames {
		p, err := v.pending(name)
		if err != nil {
			return nil, err
		}
		if p == nil {
			continue
		}
		out := PendingRecovery{Group: name, To: p.to, ID: p.id, Index: p.index, Announcer: announcer(name), Announced: time.UnixMilli(p.announced)}
		if out.Confirmed, out.Needed, err = v.confirmed(name); err != nil {
			return nil, err
		}
		all = append(all, out)
	}
	return all, nil
}

// RecoveryConfirmation gives what inst has said of the replacement of a group.
func (v View) RecoveryConfirmation(group string, inst names.InstitutionID) (Confirmation, error) {
	return v.confirmation(group, string(inst))
}

// confirmed counts the institutions of the voting members; one that has several of them
// counts once, for it has one key.
func (v View) confirmed(name string) (confirmed, needed int, err error) {
	members, err := v.Members()
	if err != nil {
		return 0, 0, err
	}
	seen := make(map[names.InstitutionID]bool)
	for _, m := range members {
		if seen[m.Institution] {
			continue
		}
		seen[m.Institution] = true
		said, err := v.confirmation(name, string(m.Institution))
		if err != nil {
			return 0, 0, err
		}
		if said.Over {
			confirmed++
		}
	}
	return confirmed, len(seen)/2 + 1, nil
}

// pending is the row of a replacement that waits: index, id, time, group.
type pending struct {
	index     uint64
	id        []byte
	announced int64
	to        Threshold
}

func (p *pending) pack() []byte {
	b := binary.BigEndian.AppendUint64(nil, p.index)
	b = append(b, p.id...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.announced))
	return append(b, packThreshold(p.to)...)
}

const pendingHead = 8 + sha256.Size + 8

func (v View) pending(name string) (*pending, error) {
	b, err := v.g.Get(key(tabRecovery, name))
	if err != nil || b == nil {
		return nil, err
	}
	if len(b) < pendingHead {
		return nil, fmt.Errorf("%w: recovery", ErrCorrupt)
	}
	p := &pending{index: binary.BigEndian.Uint64(b), id: b[8 : 8+sha256.Size], announced: int64(binary.BigEndian.Uint64(b[8+sha256.Size:]))}
	p.to, err = unpackThreshold(b[pendingHead:])
	return p, err
}

func confirmationKey(group, inst string) []byte { return key(tabConfirmation, group, inst) }

func packConfirmation(seen int64, over bool) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(seen))
	if over {
		return append(b, 1)
	}
	return append(b, 0)
}

func (v View) confirmation(group, inst string) (Confirmation, error) {
	b, err := v.g.Get(confirmationKey(group, inst))
	switch {
	case err != nil || b == nil:
		return Confirmation{}, err
	case len(b) != 9:
		return Confirmation{}, fmt.Errorf("%w: confirmation of a recovery", ErrCorrupt)
	}
	return Confirmation{Seen: time.UnixMilli(int64(binary.BigEndian.Uint64(b))), Over: b[8] == 1}, nil
}
