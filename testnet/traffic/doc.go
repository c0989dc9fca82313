// Package traffic is what the institutions of a country send each other, against a
// running test network: changes that are told to whoever must know them, declarations,
// lots, and a whole day of all kinds in their proportions (Day). It counts and times; it
// is for measuring, and compares nothing but that everything came out as it must.
package traffic
