package record

import (
	"encoding/binary"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// The tables; see the package documentation.
const (
	tabAnchor        byte = 'A'
	tabAuthorization byte = 'a'
	tabRules         byte = 'b'
	tabCommand       byte = 'C'
	tabCounts        byte = 'c'
	tabDataset       byte = 'd'
	tabDeclared      byte = 'D' // epochs of journals
	tabDirectory     byte = 'E'
	tabHead          byte = 'e'
	tabGrantIndex    byte = 'G'
	tabHash          byte = 'h'
	tabInstitution   byte = 'i'
	tabKey           byte = 'k'
	tabAnchored      byte = 'N' // how many anchors stand of a command
	tabKeyIndex      byte = 'l'
	tabMandate       byte = 'M' // by giver
	tabMandateGiver  byte = 'J' // by id: whose it is
	tabMandateHolder byte = 'j' // by holder: whose it is
	tabMandateEnd    byte = 'Q' // revocations, by id and author
	tabMembers       byte = 'm'
	tabNode          byte = 'n'
	tabOffering      byte = 'o'
	tabPublic        byte = 'P'
	tabQualities     byte = 'q' // qualities that an institution has used, and how many
	tabProvider      byte = 'p'
	tabReferences    byte = 'R'
	tabRevoked       byte = 'r'
	tabNumber        byte = 'S'
	tabAutopilot     byte = 'u'
	tabConfirmation  byte = 'w' // what members said of a recovery
	tabFormer        byte = 'F' // keys that once signed for a group
	tabGroup         byte = 'g'
	tabLevel         byte = 'f'
	tabRecovery      byte = 'W' // a replacement that waits
	tabSuspended     byte = 's'
	tabPast          byte = 'T'
	tabSubscription  byte = 'B'
	tabApplied       byte = 'v'
	tabIntern        byte = 'x' // name to number
	tabInterned      byte = 'X' // number to name
	tabInternNext    byte = 'y'
)

// present is the value of rows that say all by being there.
var present = []byte{1}

// key joins parts with zero bytes, which no name holds.
func key(table byte, parts ...string) []byte {
	k := []byte{table}
	for i, p := range parts {
		if i > 0 {
			k = append(k, 0)
		}
		k = append(k, p...)
	}
	return k
}

// under gives the prefix of the keys that go on after parts.
func under(table byte, parts ...string) []byte { return append(key(table, parts...), 0) }

func indexKey(table byte, index uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{table}, index)
}

func directoryKey(inst string, index uint64) []byte {
	return binary.BigEndian.AppendUint64(under(tabDirectory, inst), index)
}

// indexOf reads the index at the end of a key.
func indexOf(k []byte) (uint64, error) {
	if len(k) < 9 {
		return 0, ErrCorrupt
	}
	return binary.BigEndian.Uint64(k[len(k)-8:]), nil
}

func subjectKey(table byte, id subject.ID) []byte {
	return id.AppendKey(append(make([]byte, 0, 2+len(id.Scheme())+len(id.Number())), table))
}

func nodeKey(n names.NodeID) []byte { return key(tabNode, n.String()) }

func headKey(author string, chain byte) []byte { return append(under(tabHead, author), chain) }

func hashKey(hash []byte) []byte { return append([]byte{tabHash}, hash...) }
