package batch

import (
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/batch/spool"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// files are a lot's spooled input, open.
type files struct {
	input *spool.Reader
	twins *nodepb.Twins

	mu   sync.Mutex
	uses int
	shut bool
}

func inputName(files string) string { return files + ".input" }

func resultName(files string, chunk int) string { return fmt.Sprintf("%s.%d.result", files, chunk) }

// open gives the lot's input. It is opened once; close closes it when nobody uses it.
func (c *Consultant) open(l *lot) (*files, error) {
	l.filesOnce.Lock()
	defer l.filesOnce.Unlock()
	if l.files != nil {
		return l.files, nil
	}
	r, err := c.cfg.Spool.Reader(inputName(l.kept.Files))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	f := &files{input: r, twins: new(nodepb.Twins)}
	chunks := int(l.kept.Chunks)
	raw, err := r.Frame(chunks)
	if err == nil {
		err = unmarshal(raw, f.twins)
	}
	if err == nil && (r.Len() != chunks+1 || len(f.twins.Lines) != len(f.twins.First)) {
		err = spool.ErrDamaged
	}
	if err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	l.files = f
	return f, nil
}

func (l *lot) close() {
	l.filesOnce.Lock()
	defer l.filesOnce.Unlock()
	if l.files != nil {
		l.files.end()
		l.files = nil
	}
}

// begin says that somebody reads; false: the files were closed.
func (f *files) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut {
		return false
	}
	f.uses++
	return true
}

func (f *files) done() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.uses--; f.uses == 0 && f.shut {
		_ = f.input.Close()
	}
}

func (f *files) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut = true; f.uses == 0 {
		_ = f.input.Close()
	}
}

// block gives the lines of a chunk.
func (f *files) block(i int) (*nodepb.InputBlock, error) {
	raw, err := f.input.Frame(i)
	b := new(nodepb.InputBlock)
	if err == nil {
		err = unmarshal(raw, b)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return b, nil
}

// twinOf gives the line, from 1, that an earlier one is the same as; 0: none. line is from 0.
func (f *files) twinOf(line uint32) uint64 {
	if i, ok := slices.BinarySearch(f.twins.Lines, line); ok {
		return uint64(f.twins.First[i]) + 1
	}
	return 0
}

// find gives the first line, from 0, of each of the numbers that the file holds.
func (f *files) find(numbers map[string]bool, chunks, chunkLines int) (map[string]uint32, error) {
	found := map[string]uint32{}
	for i := range chunks {
		b, err := f.block(i)
		if err != nil {
			return nil, err
		}
		for at, l := range b.Lines {
			if l.Number != "" && numbers[l.Number] {
				if _, ok := found[l.Number]; !ok {
					found[l.Number] = uint32(i*chunkLines + at)
				}
			}
		}
	}
	return found, nil
}

func unmarshal(raw []byte, m proto.Message) error {
	if err := proto.Unmarshal(raw, m); err != nil {
		return spool.ErrDamaged
	}
	return nil
}
