// Package sealed encrypts what raft keeps on disk: the log entries and the
// snapshots, both of which hold registry commands and so the directory of persons.
// On the wire between members they are open again, under the members' TLS.
//
// A log entry's data become nonce (24 random bytes) and XChaCha20-Poly1305
// ciphertext, bound to the entry's index, term and type. A snapshot becomes a salt
// (32 random bytes) and chunks of 64 KiB plaintext, each with a tag of its own,
// under a key of that snapshot's; the nonce of a chunk is its number and whether it
// is the last, so none can be moved, left out or cut off.
//
// Keys are derived from one storage key, and are not those of the databases that
// use the same one.
package sealed

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
	"golang.org/x/crypto/chacha20poly1305"
)

// ErrSealed means that what is on disk was sealed with another storage key, or was
// damaged or exchanged. Start with the right key, or replace this replica.
var ErrSealed = errors.New("cannot be opened with this storage key")

func newCipher(key, salt []byte, info string) (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, key, salt, "crossroads registry "+info, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.NewX(k)
}

// LogStore is a raft.LogStore whose entries' data are sealed in the one below.
type LogStore struct {
	raft.LogStore
	seal cipher.AEAD
}

var (
	_ raft.LogStore          = (*LogStore)(nil)
	_ raft.MonotonicLogStore = (*LogStore)(nil)
)

// Logs seals what goes into below.
func Logs(below raft.LogStore, key []byte) (*LogStore, error) {
	c, err := newCipher(key, nil, "log")
	if err != nil {
		return nil, fmt.Errorf("seal raft log: %w", err)
	}
	return &LogStore{below, c}, nil
}

// IsMonotonic passes on what the store below says.
func (s *LogStore) IsMonotonic() bool {
	m, ok := s.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// GetLog gives the open entry. Its error wraps ErrSealed when that cannot be.
func (s *LogStore) GetLog(index uint64, l *raft.Log) error {
	if err := s.LogStore.GetLog(index, l); err != nil {
		return err
	}
	n := s.seal.NonceSize()
	if len(l.Data) < n {
		return fmt.Errorf("raft log entry %d %w", index, ErrSealed)
	}
	open, err := s.seal.Open(nil, l.Data[:n], l.Data[n:], place(l))
	if err != nil {
		return fmt.Errorf("raft log entry %d %w", index, ErrSealed)
	}
	l.Data = open
	return nil
}

// StoreLog stores one entry.
func (s *LogStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores copies; raft goes on using its own.
func (s *LogStore) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		n := s.seal.NonceSize()
		b := make([]byte, n, n+len(l.Data)+s.seal.Overhead())
		if _, err := rand.Read(b); err != nil {
			return err
		}
		c.Data = s.seal.Seal(b, b, l.Data, place(l))
		sealed[i] = &c
	}
	return s.LogStore.StoreLogs(sealed)
}

func place(l *raft.Log) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 17), l.Index)
	return append(binary.BigEndian.AppendUint64(b, l.Term), byte(l.Type))
}
