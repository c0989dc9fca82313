package witness

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// begun is an epoch that this member accepts.
type begun struct {
	number      int64
	at          time.Time
	declaration *registrypb.EpochDeclaration
	envelope    []byte
}

// Refused is an epoch that a journal declared and this member did not accept.
type Refused struct {
	Node     names.NodeID
	Number   int64
	Found    time.Time
	Why      string
	Envelope []byte // of the declaration, as the journal's institution signed it
}

// begin judges a checkpoint that begins an epoch of its journal. Refusal is nil when it
// may begin. What was signed and asks too much is kept, for everybody to see.
func (w *Witness) begin(r *checkpoint.AddRequest, n *checkpoint.Note, raw []byte) (b *begun, refusal *registrypb.AddCheckpointResponse, err error) {
	b = &begun{number: n.Epoch, at: w.cfg.Now().UTC().Truncate(time.Second), envelope: raw}
	var times map[int64]time.Time
	err = w.view(func(v record.View) (err error) {
		if b.declaration, err = v.CheckDeclared(w.cfg.Mesh, n, raw); err != nil {
			return err
		}
		times, err = w.declared(v, n)
		return err
	})
	if err == nil {
		var all []time.Time
		for _, t := range times {
			all = append(all, t)
		}
		if record.TooMany(all, b.at) {
			err = errors.Join(w.keepRefused(n, b.at, record.ErrTooManyEpochs, raw), record.ErrTooManyEpochs)
		}
	}
	switch {
	case errors.Is(err, record.ErrNotDeclared):
		return nil, answer(http.StatusForbidden, err.Error()), nil
	case err != nil:
		return nil, nil, err
	}
	before, err := before(n, b.declaration)
	if err != nil {
		return nil, answer(http.StatusForbidden, err.Error()), nil
	}
	refusal, forked := follows(r, n, before)
	if forked {
		err = w.keepRefused(n, b.at, errNotGoesOn, raw)
	}
	return b, refusal, err
}

var errNotGoesOn = errors.New("the log does not go on from what the declaration says")

// before gives what the first checkpoint of an epoch must be proven to continue, see
// registrypb.EpochDeclaration; nil: nothing was left.
func before(n *checkpoint.Note, d *registrypb.EpochDeclaration) (*checkpoint.Note, error) {
	was := &checkpoint.Note{Origin: n.Origin, Mesh: n.Mesh, Node: n.Node, Epoch: n.Epoch, Size: d.ResumesAt, Root: checkpoint.Hash(d.ResumesRoot)}
	if d.After != "" {
		last, err := checkpoint.ParseText(d.After)
		if err != nil {
			return nil, err
		}
		if last.Size <= d.ResumesAt {
			was.Size, was.Root = last.Size, last.Root
		}
	}
	if was.Size == 0 {
		return nil, nil
	}
	return was, nil
}

// The rows of epochs: under 'd', the origin, 0 and the number (8 bytes) Unix time (8) and
// declaration of what was accepted; under 'x', the origin, 0 and a hash number, Unix time
// (8 each), the length of why (2), why, and the declaration of what was not.
const (
	rowDeclared = 'd'
	rowRefused  = 'x'
)

// maxRefused is how much is kept of one journal.
const maxRefused = 16

func epochPrefix(row byte, origin string) []byte { return append(append([]byte{row}, origin...), 0) }

func declaredKey(origin string, number int64) []byte {
	return binary.BigEndian.AppendUint64(epochPrefix(rowDeclared, origin), uint64(number))
}

// declared gives when each epoch of n's journal was accepted, as the registry has it or
// this member remembers: what it cosigned counts, whether it was ever anchored or not.
func (w *Witness) declared(v record.View, n *checkpoint.Note) (map[int64]time.Time, error) {
	times := make(map[int64]time.Time)
	stand, err := v.DeclaredBy(n.Node)
	if err != nil {
		return nil, err
	}
	for _, d := range stand {
		times[d.Number] = d.Time
	}
	prefix := epochPrefix(rowDeclared, n.Origin)
	err = w.db.View(func(txn *badger.Txn) error {
		return scanRows(txn, prefix, func(k, b []byte) error {
			if len(k) != len(prefix)+8 || len(b) < 8 {
				return fmt.Errorf("witness memory of %s: declared epoch", n.Origin)
			}
			number, at := int64(binary.BigEndian.Uint64(k[len(prefix):])), time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
			if t, ok := times[number]; !ok || at.After(t) {
				times[number] = at
			}
			return nil
		})
	})
	return times, err
}

// put writes the epoch in the transaction that remembers its first checkpoint.
func (b *begun) put(txn *badger.Txn, origin string) error {
	if b == nil {
		return nil
	}
	row := binary.BigEndian.AppendUint64(nil, uint64(b.at.Unix()))
	return txn.Set(declaredKey(origin, b.number), append(row, b.envelope...))
}

// keepRefused remembers what was declared and not accepted, and tells the operator, once.
func (w *Witness) keepRefused(n *checkpoint.Note, at time.Time, why error, raw []byte) error {
	sum := sha256.Sum256(raw)
	prefix := epochPrefix(rowRefused, n.Origin)
	kept := false
	err := w.db.Update(func(txn *badger.Txn) error {
		k := append(prefix, sum[:16]...)
		if _, err := txn.Get(k); !errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		count := 0
		if err := scan(txn, prefix, func([]byte) error { count++; return nil }); err != nil || count >= maxRefused {
			return err
		}
		kept = true
		row := binary.BigEndian.AppendUint64(nil, uint64(n.Epoch))
		row = binary.BigEndian.AppendUint64(row, uint64(at.Unix()))
		row = binary.BigEndian.AppendUint16(row, uint16(len(why.Error())))
		return txn.Set(k, append(append(row, why.Error()...), raw...))
	})
	if err != nil {
		return fmt.Errorf("keep the refusal of an epoch of %s: %w", n.Node, err)
	}
	if kept {
		w.cfg.Log.Error("an epoch that a journal declares is not accepted", "journal", n.Node.String(), "epoch", n.Epoch, "why", why.Error())
	}
	return nil
}

// Refused gives the epochs that this member did not accept, in order of journal. Only
// those are kept that were signed as they must be.
func (w *Witness) Refused() (all []Refused, err error) {
	leave, err := w.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	err = w.db.View(func(txn *badger.Txn) error {
		return scan(txn, []byte{rowRefused}, func(b []byte) error {
			if len(b) < 18 || len(b) < 18+int(binary.BigEndian.Uint16(b[16:])) {
				return errors.New("witness memory: refused epoch")
			}
			why := 18 + int(binary.BigEndian.Uint16(b[16:]))
			raw := append([]byte(nil), b[why:]...)
			d, _, err := record.OpenDeclaration(raw)
			if err != nil {
				return fmt.Errorf("witness memory: refused epoch: %w", err)
			}
			all = append(all, Refused{
				Node: record.NodeID(d.Node), Number: int64(binary.BigEndian.Uint64(b)), Found: time.Unix(int64(binary.BigEndian.Uint64(b[8:])), 0).UTC(),
				Why: string(b[18:why]), Envelope: raw,
			})
			return nil
		})
	})
	return all, err
}
