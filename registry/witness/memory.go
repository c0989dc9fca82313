package witness

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/dgraph-io/badger/v4"

	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// The rows of the memory: under 'c' and the origin the last note cosigned, with this
// member's cosignature; under 'e', the origin, 0 and a hash the text of an evidence; and
// those of epochs, see epoch.go.
const (
	rowLatest   = 'c'
	rowEvidence = 'e'
)

// maxEvidence is how much is kept of one journal: the first shows all there is to know.
const maxEvidence = 16

func latestKey(origin string) []byte { return append([]byte{rowLatest}, origin...) }

func evidencePrefix(origin string) []byte {
	return append(append([]byte{rowEvidence}, origin...), 0)
}

// latest gives the note that this member cosigned last of a journal, or nil.
func (w *Witness) latest(origin string) (n *checkpoint.Note, err error) {
	err = w.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(latestKey(origin))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return item.Value(func(b []byte) error {
			n, err = checkpoint.Parse(b)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("witness memory of %s: %w", origin, err)
	}
	return n, nil
}

// remember makes n the last one of its journal, and with it the epoch that it begins, if
// any, durably. The caller holds the lock.
func (w *Witness) remember(n *checkpoint.Note, b *begun) error {
	err := w.db.Update(func(txn *badger.Txn) error {
		if err := b.put(txn, n.Origin); err != nil {
			return err
		}
		return txn.Set(latestKey(n.Origin), n.Bytes())
	})
	if err != nil {
		return fmt.Errorf("witness memory of %s: %w", n.Origin, err)
	}
	return nil
}

// page gives the notes after an origin, in order, and where to go on.
func (w *Witness) page(after string) (notes [][]byte, next string, err error) {
	err = w.db.View(func(txn *badger.Txn) error {
		opts := badger.DefaultIteratorOptions
		opts.Prefix, opts.PrefetchSize = []byte{rowLatest}, pageSize
		it := txn.NewIterator(opts)
		defer it.Close()
		it.Seek(latestKey(after))
		for ; it.Valid(); it.Next() {
			origin := string(it.Item().Key()[1:])
			if origin == after {
				continue
			}
			if len(notes) == pageSize {
				return nil
			}
			b, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			notes, next = append(notes, b), origin
		}
		next = ""
		return nil
	})
	return notes, next, err
}

// accuse keeps two checkpoints that contradict each other, durably, and tells the
// operator, once. If both are known to, what counts is who cosigned them: cosignatures
// that were not seen before are added, for whoever cosigned both is a liar too.
func (w *Witness) accuse(a, b *checkpoint.Note, proof []checkpoint.Hash) error {
	a, err := w.proven(a)
	if err != nil {
		return err
	}
	if b, err = w.proven(b); err != nil {
		return err
	}
	e := checkpoint.NewEvidence(a, b, proof, w.cfg.Self, w.cfg.Now())
	sum := sha256.Sum256([]byte(e.Older.Text + e.Newer.Text))
	prefix := evidencePrefix(a.Origin)
	known := false
	err = w.db.Update(func(txn *badger.Txn) error {
		k := append(prefix, sum[:16]...)
		had, err := evidenceAt(txn, k)
		if err != nil {
			return err
		}
		if had != nil {
			older, err := had.Older.Join(e.Older)
			newer, nerr := had.Newer.Join(e.Newer)
			if known = !older && !newer; known || err != nil || nerr != nil {
				return errors.Join(err, nerr)
			}
			e = had
			return txn.Set(k, e.Text())
		}
		count := 0
		if err := scan(txn, prefix, func([]byte) error { count++; return nil }); err != nil {
			return err
		}
		if known = count >= maxEvidence; known {
			return nil
		}
		return txn.Set(k, e.Text())
	})
	if err != nil {
		return fmt.Errorf("keep evidence against %s: %w", a.Node, err)
	}
	if !known {
		w.cfg.Log.Error("two checkpoints of a journal contradict each other; GET /v1/evidence shows them",
			"journal", a.Node.String(), "sizes", fmt.Sprintf("%d and %d", e.Older.Size, e.Newer.Size),
			"certain", checkpoint.Compare(e.Older, e.Newer, proof) == checkpoint.Forked, "evidence", string(e.Text()))
	}
	return nil
}

// proven gives a note with those cosignatures alone that a member's key made: another
// line under its name would stand in the way of the true one.
func (w *Witness) proven(n *checkpoint.Note) (proven *checkpoint.Note, err error) {
	err = w.view(func(v record.View) error {
		var failed error
		proven = n.Only(checkpoint.MaxSignatures, func(m names.NodeID) bool {
			keys, err := v.KeysOf(m.Institution)
			failed = errors.Join(failed, err)
			return slices.ContainsFunc(keys, func(k *registrypb.Key) bool { _, ok := n.CosignedBy(m, k.PublicKey); return ok })
		})
		return failed
	})
	return proven, err
}

func evidenceAt(txn *badger.Txn, k []byte) (e *checkpoint.Evidence, err error) {
	item, err := txn.Get(k)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err == nil {
		err = item.Value(func(b []byte) error {
			e, err = checkpoint.ParseEvidence(b)
			return err
		})
	}
	return e, err
}

// Evidence gives all evidence this member holds, in order of journal.
func (w *Witness) Evidence() (all []*checkpoint.Evidence, err error) {
	leave, err := w.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	err = w.db.View(func(txn *badger.Txn) error {
		return scan(txn, []byte{rowEvidence}, func(b []byte) error {
			e, err := checkpoint.ParseEvidence(b)
			all = append(all, e)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("witness memory: %w", err)
	}
	return all, nil
}

func scan(txn *badger.Txn, prefix []byte, fn func(value []byte) error) error {
	return scanRows(txn, prefix, func(_, b []byte) error { return fn(b) })
}

func scanRows(txn *badger.Txn, prefix []byte, fn func(key, value []byte) error) error {
	opts := badger.DefaultIteratorOptions
	opts.Prefix = prefix
	it := txn.NewIterator(opts)
	defer it.Close()
	for it.Seek(prefix); it.Valid(); it.Next() {
		if err := it.Item().Value(func(b []byte) error { return fn(it.Item().Key(), b) }); err != nil {
			return err
		}
	}
	return nil
}
