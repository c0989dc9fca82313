// Package registry is the replicated stand-in for the bank: what the mesh agrees
// on, at every node as far as that node may see it.
//
// A few nodes are members. They order signed commands by consensus (hashicorp/raft;
// this is its only importer) and hold everything. All other nodes are watchers: they
// follow any member and hold what is public, and their own institution's directory
// entries. Both judge every command themselves with record.Apply, so that nobody,
// not even the leader, can make them take over what its author did not sign.
//
//	Open, Run          a replica, from its directory and the genesis file
//	View               what it holds
//	Standing           the right to rely on that: a grant of the leader's, and short
//	Submit, Author     have a command decided
//	Changes            be told of news
//	Handle...          what a member answers others; the node wires these
//
// # What holds
//
//   - An accepted command, once Submit has answered, is never lost while a majority
//     of the members keeps its disks.
//
//   - Submitting the same bytes any number of times has one effect.
//
//   - A command that takes a right away is answered only when no standing that does
//     not know of it is left, and no clearance given under one: lease + release life
//
//   - 2 × skew after it was committed. See package lease.
//
//   - A replica that cannot be sure says ErrStale. It goes on showing its View.
//
//   - That acknowledgement is a majority's, not the leader's: each member signed the
//     state of its tables with the command in it (acknowledge.go, package agree).
//
//   - A replica whose tables are not those that most members signed stops, and says
//     where they differ (compare.go).
//
// Raft tolerates crashes, not lies. A lying leader cannot forge; it can delay or leave
// out, and what else it does is found out. See DESIGN.md.
//
// # Parts
//
// record judges commands, store keeps the tables, lease grants and holds standings,
// sealed encrypts raft's files. Here are raft's assembly (member.go, fsm.go,
// transport.go, members.go), the way to the leader (submit.go, route.go, grant.go),
// the watch on both sides (watch.go, follow.go), and Author.
package registry
