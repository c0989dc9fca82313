package runs

import "context"

const (
	// fanIn is how many runs of like size are merged into one.
	fanIn = 4
	// like: a run joins newer ones that together are not smaller than this part of it.
	like = 2
	// many runs make reading slow: then two suffice for a merge.
	many = 12
)

// Merge is a merge that is due: of neighbours in a version, which it holds.
type Merge struct {
	version *Version
	of      []*run // newest first
	oldest  bool   // nothing is older, so what was deleted need not be remembered
}

// Due gives a merge that would make reading faster, or nil. The caller says Do or
// Release; others may make versions meanwhile, but for other merges.
func (t *Tree) Due() *Merge {
	v := t.Current()
	runs := v.runs
	for start := 0; start < len(runs); start++ {
		size, n := runs[start].size, 1
		for start+n < len(runs) && runs[start+n].size <= like*size {
			size += runs[start+n].size
			n++
		}
		if n >= fanIn || n >= 2 && len(runs) > many {
			return &Merge{v, runs[start : start+n], start+n == len(runs)}
		}
	}
	v.Release()
	return nil
}

// All gives a merge of everything, or nil if there are not two runs.
func (t *Tree) All() *Merge {
	v := t.Current()
	if len(v.runs) < 2 {
		v.Release()
		return nil
	}
	return &Merge{v, v.runs, true}
}

// Release lets go of the runs to be merged.
func (m *Merge) Release() { m.version.Release() }

// Do writes the merged run. It gives up when ctx ends.
func (m *Merge) Do(ctx context.Context) (*Run, error) {
	var rows uint64
	for _, r := range m.of {
		rows += r.rows
	}
	return m.version.tree.write(rows, func(w *Writer) error {
		from := merged(m.of)
		if err := from.seek([]byte{0}); err != nil {
			return err
		}
		for n := 0; from.Valid(); n++ {
			if n%4096 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			key, value := from.Row()
			if len(value) > 0 || !m.oldest {
				if err := w.Add(key, value); err != nil {
					return err
				}
			}
			if err := from.Next(); err != nil {
				return err
			}
		}
		return nil
	})
}
