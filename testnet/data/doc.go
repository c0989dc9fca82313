// Package data invents the people, institutions and papers of a test network.
//
// A [World] is made from a seed. The same seed, number of persons and number of
// institutions give the same world, byte for byte, on every machine. No person in
// it exists: names, numbers, addresses and lives are drawn from lists and dice.
// The subject numbers are valid by the rules of package subject, so that nothing
// in a node has to make an exception for tests.
//
// # Lives
//
// Persons are born in blocks of ten (two seniors, five adults, one young adult, two
// children), and every block is drawn from its own dice, seeded by (seed, block).
// So person 900,000 is had without making the 899,999 before, a world of any size
// streams in bounded memory, and a person is found by number without a table: the
// number is a permutation of the person's place (numbers.go).
//
// The members of a block form households that share an address and a name. Each
// adult gets a career: a row of spells of work, self-employment, unemployment,
// incapacity and inactivity that never overlap. Everything else follows from it:
// wages from jobs, pensions from careers, a living wage from inactivity, increased
// reimbursement from a living wage, an income guarantee or a handicap.
//
// Lives are told up to [Today]; what goes on then goes on until names.Forever.
//
// # Papers
//
// [World.Institutions] lists who takes part, [World.Datasets] what they hold (with
// the JSON Schemas of the schemas directory), [World.Offerings] who supplies what,
// [World.Authorizations] who may ask what (all by plainly fictitious deliberations,
// DEMO-2024/...), and [World.References] who has a file on whom: each follows from
// the lives, so that a reference and the records behind it never disagree.
//
// # Truth
//
// [World.Expected] says what the answer to a consultation must be, straight from
// the lives, and knows nothing of nodes, adapters or databases: a test asks both
// and compares.
package data
