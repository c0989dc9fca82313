// Package record is the pure heart of the registry: the tables, and Apply, which
// lets a signed command change them. It knows no disk, no network and no clock.
//
// Replicas that apply the same commands in the same order hold the same keys and
// values, byte for byte. Apply therefore reads nothing but its arguments, ranges
// over no Go map, and re-encodes nothing that an author sent: a public row is the
// author's own record bytes, a directory row is packed by hand.
//
// # Commands
//
// A command is refused, and then changes nothing at all, unless its author may
// write it (authority.go), enough of the author's keys signed it, it follows the
// author's previous command of that chain without a gap, and it makes sense. A
// refusal is a result, not an error: an error means only that the State failed.
// Sending an accepted command again is recognised by the hash of its payload and
// changes nothing either.
//
// Verdicts do not depend on what only members see: a node that follows the public
// chain and its own institution's directory chain reaches the same verdict on
// each of those commands. (That is why a number once replaced cannot be replaced
// by another, and why limits on a subject's references are per institution.)
//
// Anchors are the exception to history: they come every second, only the last of each
// journal matters, and they are of no chain. A command of which no anchor stands any
// more, and no declared epoch, is forgotten; applying what is left, in order, still gives the same rows.
//
// # Rows
//
//	A institution/node        last anchored checkpoint: index of the command, note as sent
//	a id                      authorization, as sent      r id              it is revoked
//	B dataset 0 institution 0 purpose    subscription, as sent
//	b                         fingerprint of the Rules
//	C index                   envelope of an accepted command, as sent
//	c                         counts of subjects and references
//	D institution/node 0 number  epoch of that journal: index of the command, Unix time, declaration as sent
//	d id                      dataset, as sent
//	E institution 0 index     that command is in this institution's directory chain
//	F group 0 public key      it signed for this group once
//	f                         feature level, 4 bytes; none: 1
//	g group                   keys of a threshold group, once they changed
//	e author 0 chain          head of a chain: sequence, hash
//	G type 0 dataset 0 purpose 0 id      index of authorizations
//	H ...                     hash of all other rows, kept by the store (package statehash)
//	h hash                    index of an accepted command, and whether it took a right away
//	i id                      institution, as sent        s id              it is suspended
//	J id                      giver of a mandate       j holder 0 id       likewise
//	k id                      key: retired, public key, institution
//	l institution 0 id        index of keys
//	M scheme 0 number 0 id    mandate, as sent
//	m                         the voting members, as sent
//	N index                   how many anchors, and declared epochs, stand of that command
//	n institution/node        node, as sent
//	o dataset 0 institution   offering, as sent
//	P index                   that command is public; the hash of the public history with it (past.go)
//	p id                      identity provider, as sent
//	Q id 0 institution        what that institution says of a mandate's end, as sent
//	q institution             how many different qualities it has used
//	q institution 0 quality   it has used this one
//	R scheme 0 number         references of one subject, packed (pack.go)
//	S scheme 0 number         history of one number, packed
//	T                         end of the public history: index, hash
//	u                         settings of the autopilot, as sent
//	v                         applied index
//	W group                   its replacement that waits (recovery.go)
//	w group 0 institution     what a member said of that
//	x, X, y                   names that packed rows hold as small numbers
//
// Indexes are 8 bytes, big-endian.
package record
