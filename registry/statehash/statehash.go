// Package statehash gives the tables of a replica a hash that is kept up to date row
// by row: what it costs depends on the rows that change, never on those that stand.
//
// # The hash
//
// A row is a key and a value, canonical bytes both, the same at every replica; files,
// and how a database lays rows out, have no part in it. With len(key) in 8 bytes,
// big-endian, a row's element is
//
//	seed     SHA-256("crossroads registry row 1\n" ‖ len(key) ‖ key ‖ value)
//	element  the first 64 numbers of chacha8rand (c2sp.org/chacha8rand) from that seed
//
// read as a vector of 64 numbers modulo 2^64. The Sum of a set of rows is
// the sum of their elements, number by number: to change a row is to subtract the old
// element and to add the new one, in any order. Rows fall by their key into Buckets, the
// first PublicBuckets for the tables that every node holds. A bucket's Digest is
// SHA-256 over its Sum, and the Root that members sign is SHA-256 over all digests:
//
//	digest   SHA-256("crossroads registry bucket 1\n" ‖ Sum)
//	root     SHA-256("crossroads registry state 1\n" ‖ number of digests (8) ‖ digests)
//
// # Why a sum may be trusted, although authors choose rows
//
// Whoever wants two different tables under one root needs two sets of rows with one Sum,
// that is a combination of elements with coefficients -1, 0 and 1 that is zero. One sum
// of 256 bits would be no obstacle: by the generalised birthday attack (Wagner 2002),
// who may choose among enough rows finds one in about 2^(2·√256) = 2^32 steps. This is why
// the Sum is so wide: for L bits the attack costs about 2^(2·√L), and L = 4096 gives 2^128,
// with lists of 2^64 rows at hand; with no more than 2^30 rows in the combination,
// many times Belgium, 2^(30+4096/31) = 2^162. Halving with linear algebra modulo 2,
// which a power of two as modulus invites, needs (64+1)^64 rows with 64 lanes of 64 bits
// (wide lanes are the better choice here: 1024 lanes of 4 bits would need 1025^4). For
// lattice reduction it is the short integer solution problem with q^n = 2^4096 and a
// solution of length below 2^15, which asks for a root Hermite factor under 1.0025, out of
// reach. The construction is that of LtHash (Lewi, Kim, Maykov, Weis 2019; Bellare and
// Micciancio 1997 before it), at a quarter of its width, since that one aims at 200 bits; as
// there, elements are taken for random, here SHA-256 stretched by ChaCha with 8 rounds.
// There is no secret in it: members who collude with authors know all there is to know.
package statehash

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

const (
	// Lanes is how many numbers modulo 2^64 a Sum has.
	Lanes = 64
	// SumSize is the size of a Sum in bytes.
	SumSize = 8 * Lanes
	// Buckets is how many buckets there are, PublicBuckets those of the public tables.
	Buckets, PublicBuckets = 256, 16
)

// Sum is the hash of a set of rows; zero that of none.
type Sum [Lanes]uint64

// Digest is the hash of one bucket.
type Digest [sha256.Size]byte

// Root is the hash of all buckets, or of the public ones.
type Root [sha256.Size]byte

// Hasher makes elements. It is not safe for concurrent use.
type Hasher struct {
	buf    []byte
	stream rand.ChaCha8
}

var rowTag = []byte("crossroads registry row 1\n")

// seed makes h ready to give the element of a row.
func (h *Hasher) seed(key, value []byte) {
	h.buf = append(h.buf[:0], rowTag...)
	h.buf = binary.BigEndian.AppendUint64(h.buf, uint64(len(key)))
	h.buf = append(h.buf, key...)
	var seed [sha256.Size]byte
	if len(value) < 4<<10 {
		h.buf = append(h.buf, value...)
		seed = sha256.Sum256(h.buf)
	} else { // without a copy of a whole command
		s := sha256.New()
		s.Write(h.buf)
		s.Write(value)
		s.Sum(seed[:0])
	}
	h.stream.Seed(seed)
}

// Add adds a row to s, which must not hold its key.
func (h *Hasher) Add(s *Sum, key, value []byte) {
	h.seed(key, value)
	for i := range s {
		s[i] += h.stream.Uint64()
	}
}

// Remove takes a row away from s, which must hold it.
func (h *Hasher) Remove(s *Sum, key, value []byte) {
	h.seed(key, value)
	for i := range s {
		s[i] -= h.stream.Uint64()
	}
}

// Merge adds all that is in t to s.
func (s *Sum) Merge(t *Sum) {
	for i := range s {
		s[i] += t[i]
	}
}

// Bytes gives s as it is hashed and kept: little-endian numbers.
func (s *Sum) Bytes() []byte {
	b := make([]byte, 0, SumSize)
	for _, n := range s {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

// SumOf reads what Bytes gave.
func SumOf(b []byte) (s Sum, err error) {
	if len(b) != SumSize {
		return s, fmt.Errorf("a state hash of %d bytes, want %d", len(b), SumSize)
	}
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s, nil
}

// Digest gives the hash of a bucket.
func (s *Sum) Digest() Digest {
	return sha256.Sum256(append([]byte("crossroads registry bucket 1\n"), s.Bytes()...))
}

// RootOf gives the hash over digests: those of all buckets, or of the public ones.
func RootOf(digests []Digest) Root {
	b := binary.BigEndian.AppendUint64([]byte("crossroads registry state 1\n"), uint64(len(digests)))
	for _, d := range digests {
		b = append(b, d[:]...)
	}
	return sha256.Sum256(b)
}

// Bucket gives the bucket of a row by its key, and a second number from 0 to 255 that
// divides a bucket further. They spread rows and protect nothing.
func Bucket(key []byte, public bool) (bucket, part int) {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range key {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h ^= h >> 29 // FNV's high bits hardly know of the last byte
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 32
	part = int(h >> 8 & 255)
	if public {
		return int(h>>16) % PublicBuckets, part
	}
	return PublicBuckets + int(h>>16&0xffffff)%(Buckets-PublicBuckets), part
}

// State is the hash of a whole replica: a Sum for each bucket.
type State [Buckets]Sum

// Digests gives the digest of every bucket.
func (s *State) Digests() []Digest {
	d := make([]Digest, Buckets)
	for i := range s {
		d[i] = s[i].Digest()
	}
	return d
}
