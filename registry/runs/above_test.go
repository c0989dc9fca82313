package runs

import (
	"encoding/binary"
	"testing"
)

// What was added is always found; of what was not, hardly anything is, with as many rows
// as a store keeps above its runs.
func TestAbove(t *testing.T) {
	key := func(i int) []byte { return binary.BigEndian.AppendUint32([]byte("directory/"), uint32(i)) }
	var a Above
	if a.May(key(0)) {
		t.Error("there is a row where nothing was added")
	}
	const rows, others = 2048, 20_000
	for i := range rows {
		a.Add(key(i))
		if !a.May(key(i)) {
			t.Fatalf("key %d was added", i)
		}
	}
	wrong := 0
	for i := range rows + others {
		switch may := a.May(key(i)); {
		case i < rows && !may:
			t.Fatalf("key %d was forgotten", i)
		case i >= rows && may:
			wrong++
		}
	}
	if wrong > others/500 {
		t.Errorf("%d of %d keys are taken for others", wrong, others)
	}
}
