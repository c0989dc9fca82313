package record

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// TestRowSize: Belgium has 15.57 million rows of about eight references each.
func TestRowSize(t *testing.T) {
	var entries []entry
	for i := range 8 {
		e := entry{institution: uint64(i * 400), quality: uint64(i), period: names.Period{From: 19000, Until: names.Forever}}
		if i%2 == 0 {
			e.period.Until = 19900
		}
		entries, _ = insert(entries, e)
	}
	if n := len(packEntries(entries)); n > 70 {
		t.Errorf("a row of 8 references has %d bytes, want at most 70", n)
	}
}

func genEntry(t *rapid.T) entry {
	from := rapid.IntRange(int(names.Always), int(names.Forever)).Draw(t, "from")
	until := rapid.IntRange(from, int(names.Forever)).Draw(t, "until")
	return entry{
		institution: rapid.Uint64Range(1, 5000).Draw(t, "institution"), quality: rapid.Uint64Range(1, 300).Draw(t, "quality"),
		period: names.Period{From: names.Date(from), Until: names.Date(until)},
	}
}

// TestEntries: a row is a set, whatever the order in which it came to be.
func TestEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Custom(genEntry), 0, 20).Draw(t, "entries")
		var one, other []entry
		for i := range list {
			one, _ = insert(one, list[i])
			other, _ = insert(other, list[len(list)-1-i])
		}
		packed := packEntries(one)
		if string(packed) != string(packEntries(other)) {
			t.Fatal("order of insertion shows")
		}
		back, err := unpackEntries(packed)
		if err != nil || !slices.Equal(back, one) {
			t.Fatalf("unpacked %v, %v, want %v", back, err, one)
		}
		for _, e := range list {
			one, _ = remove(one, e)
		}
		if len(one) != 0 {
			t.Fatal("not all removed")
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(packEntries([]entry{{1, 2, names.Period{From: 3, Until: 4}}, {2, 2, names.Period{From: names.Always, Until: names.Forever}}}))
	d := names.Date(7)
	f.Add((&numberRow{deceased: &d, successor: "1", predecessors: []string{"2", "3"}}).pack())
	f.Fuzz(func(t *testing.T, b []byte) {
		if entries, err := unpackEntries(b); err == nil {
			again, err := unpackEntries(packEntries(entries))
			if err != nil || !slices.Equal(again, entries) {
				t.Fatalf("entries %v come back as %v, %v", entries, again, err)
			}
		}
		if n, err := unpackNumber(b); err == nil {
			again, err := unpackNumber(n.pack())
			if err != nil || !reflect.DeepEqual(again, n) {
				t.Fatalf("number %v comes back as %v, %v", n, again, err)
			}
		}
	})
}

func TestSchemaFields(t *testing.T) {
	fields, err := SchemaFields(` { "title" : "x\"\u00e9", "properties":{"b":{"type":["string",null,-1.5e+3]},"a":true} , "z":[] } `)
	if err != nil || !slices.Equal(fields, []names.FieldName{"b", "a"}) {
		t.Errorf("fields %v, %v", fields, err)
	}
	deep := strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100)
	for _, bad := range []string{
		``, `[]`, `{}`, `null`, `{"properties":[]}`, `{"properties":{}}`, `{"properties":{"a":1},"properties":{"b":1}}`,
		`{"properties":{"a":1,"a":2}}`, `{"\u0070roperties":{"b":1},"properties":{"a":1}}`, `{"properties":{"a b":1}}`,
		`{"properties":{"a":01}}`, `{"properties":{"a":1}}x`, `{"properties":{"a":1,}}`, `{"properties":{"a":+1}}`,
		`{"properties":{"a":.5}}`, `{"properties":{"a":"` + "\n" + `"}}`, `{"properties":{"a":"\x"}}`, `{"properties":{"a":"\u12g4"}}`,
		`{"properties":{"a":` + deep + `}}`, `{"properties":{"\u0061":1}}`,
	} {
		if fields, err := SchemaFields(bad); err == nil {
			t.Errorf("%.60q gives %v", bad, fields)
		}
	}
}

// FuzzSchemaFields compares the reader of this package with another one.
func FuzzSchemaFields(f *testing.F) {
	f.Add(`{"properties":{"a":{"x":[1,2.5e3,"\u00e9",null,true,false]}}}`)
	f.Add(`{"a":1,"properties":{"b":{}}}`)
	f.Fuzz(func(t *testing.T, s string) {
		fields, err := SchemaFields(s)
		if !utf8.ValidString(s) || len(s) > maxSchema {
			return
		}
		var m struct {
			All        map[string]json.RawMessage
			Properties map[string]json.RawMessage
		}
		theirs := json.Unmarshal([]byte(s), &m.All)
		if err != nil {
			return
		}
		if theirs != nil {
			t.Fatalf("accepted what another reader refuses: %v", theirs)
		}
		if err := json.Unmarshal(m.All["properties"], &m.Properties); err != nil || len(m.Properties) != len(fields) {
			t.Fatalf("%d fields, another reader sees %d (%v)", len(fields), len(m.Properties), err)
		}
		for _, name := range fields {
			if _, ok := m.Properties[string(name)]; !ok {
				t.Fatalf("field %q is seen by one reader only", name)
			}
		}
	})
}
