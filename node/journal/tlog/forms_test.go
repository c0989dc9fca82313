package tlog

import (
	"bytes"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
)

func TestOpenCheckpointRefuses(t *testing.T) {
	j := new(fakeJournal)
	j.add(3)
	note := string(openLog(t, testConfig(j, disktest.New())).Checkpoint())
	for what, bad := range map[string]string{
		"nothing":      "",
		"another size": strings.Replace(note, "\n3\n", "\n4\n", 1),
		"no signature": note[:strings.Index(note, "—")],
		"origin":       strings.ReplaceAll(note, "pcsa-ghent", "pcsa-aalst"),
		"too long":     note + strings.Repeat("— x AAAA\n", MaxCheckpoint/10),
	} {
		if c, err := OpenCheckpoint(testOrigin, testPublic, []byte(bad)); err == nil {
			t.Errorf("%s passed: %v", what, c)
		}
	}
	for _, bad := range []string{
		"a\n1\n", "a\n01\n" + strings.Repeat("A", 43) + "=\n", "a\n-1\n" + strings.Repeat("A", 43) + "=\n",
		"a\n1\n" + strings.Repeat("A", 43) + "=\nextension\n", "a\n1\nAAAA\n", "\n1\n" + strings.Repeat("A", 43) + "=\n",
		"a\n1\n" + strings.Repeat("A", 42) + "B=\n",
	} {
		if c, err := ParseCheckpoint(bad); err == nil {
			t.Errorf("%q passed: %v", bad, c)
		}
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add("demo.example/journal/a/b\n3\n" + strings.Repeat("A", 43) + "=\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseCheckpoint(text); err == nil && c.Text() != text {
			t.Errorf("%q reads as %q", text, c.Text())
		}
	})
}

func FuzzParseProof(f *testing.F) {
	f.Add(Proof{Index: 4, Path: []Hash{{1}, {2}}, Checkpoint: []byte("x\n1\ny\n")}.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParseProof(b); err == nil && !bytes.Equal(p.Marshal(), b) {
			t.Errorf("%q reads as %q", b, p.Marshal())
		}
	})
}

func FuzzTilePath(f *testing.F) {
	f.Add("tile/0/x001/234.p/5")
	f.Fuzz(func(t *testing.T, path string) {
		if tile, err := parseTilePath(path); err == nil && tilePath(tile) != path {
			t.Errorf("%q reads as %q", path, tilePath(tile))
		}
	})
}

func FuzzKept(f *testing.F) {
	f.Add(append(keptRecord([]byte("one")), keptRecord([]byte("two"))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		_, end, err := scanKept(bytes.NewReader(b), func(msg []byte) error {
			again = append(again, keptRecord(msg)...)
			return nil
		})
		if err == nil && (int(end) != len(again) || !bytes.Equal(again, b[:end])) {
			t.Error("what was read is not what is there")
		}
	})
}

// TestKeptMiddle: a checkpoint that was made unreadable is missed when later ones
// are there; one cut off at the end is not.
func TestKeptMiddle(t *testing.T) {
	one, two := keptRecord([]byte("one")), keptRecord([]byte("two"))
	both := append(bytes.Clone(one), two...)
	read := func(b []byte) (n int, err error) {
		_, _, err = scanKept(bytes.NewReader(b), func([]byte) error { n++; return nil })
		return n, err
	}
	if n, err := read(both); n != 2 || err != nil {
		t.Error(n, err)
	}
	if n, err := read(append(bytes.Clone(both[:len(both)-1]), make([]byte, 512)...)); n != 1 || err != nil {
		t.Error(n, err)
	}
	both[len(one)-1] ^= 1
	if n, err := read(both); n != 0 || err == nil {
		t.Error(n, err)
	}
}
