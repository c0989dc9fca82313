package journal

import "encoding/binary"

// In a second that is crowded nearly every entry has a ticket and a subject of its own, and
// a row for each would cost more than all else that is done for the entry. So what goes
// into the index together of such a second shares rows by the first ten bits of the
// keyed hash, in the form of many.go:
//
//	period (4) ‖ 'T' or 'S' ‖ first 10 bits of the hash, 6 zeros (2) ‖ second (8) ‖ sequence of the first entry (8)
//	  → for each entry as there, with one hash
//
// Whoever looks for a ticket or subject reads, beside its own rows, one in 1,024 of what
// was crowded in the months it asks for, at 20 bytes an entry.
const (
	crowd     = 2048 // entries of one second that go into the index together
	crowdMask = 0xc0 // of the second byte of the hash
)

// crowds gives the seconds that are crowded in rows.
func crowds(rows []row) map[int64]bool {
	count := make(map[int64]int)
	full := make(map[int64]bool)
	if len(rows) < crowd {
		return full
	}
	for _, r := range rows {
		second := r.terms.time.UnixMilli() / 1000
		if count[second]++; count[second] == crowd {
			full[second] = true
		}
	}
	return full
}

func addCrowded(made map[postingKey]*posting, month period, kind byte, mac [macSize]byte, r row) {
	ms := r.terms.time.UnixMilli()
	k := postingKey{month: month, kind: kind, second: ms / 1000}
	k.mac[0], k.mac[1] = mac[0], mac[1]&crowdMask
	p := made[k]
	if p == nil || len(p.value) > maxPosting {
		p = &posting{before: p, value: make([]byte, 0, 256)}
		p.first, p.last = r.sequence, r.sequence
		made[k] = p
	}
	p.add(r, ms%1000)
	p.value = binary.AppendUvarint(p.value, 1)
	p.value = append(p.value, mac[1:1+manySuffix]...)
}

// sharing gives the kinds of rows that a term of a kind shares with others.
func sharing(kind byte) []byte {
	switch kind {
	case byTicket:
		return []byte{crowdedTickets}
	case bySubject:
		return []byte{amongMany, crowdedSubjects}
	}
	return nil
}
