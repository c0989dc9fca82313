package seen

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// What was added is always found; of what was not, hardly anything is, in sets large and
// small, full or nearly empty.
func TestKeys(t *testing.T) {
	for _, size := range []int{0, 2048, 100_000} {
		for _, rows := range []int{1, max(size, 64)} {
			t.Run(fmt.Sprint(rows, " of ", size), func(t *testing.T) { testKeys(t, size, rows) })
		}
	}
}

func testKeys(t *testing.T, size, rows int) {
	key := func(i int) []byte { return binary.BigEndian.AppendUint32([]byte("directory/"), uint32(i)) }
	a := For(size)
	if a.May(key(0)) {
		t.Error("there is a row where nothing was added")
	}
	const others = 50_000
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
	if wrong > others/1000 {
		t.Errorf("%d of %d keys are taken for others", wrong, others)
	}
}
