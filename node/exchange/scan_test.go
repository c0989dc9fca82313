package exchange

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// What follows reads records by encoding/json, token by token: slowly, and plainly. The
// scanner must judge and filter every input as it does.

// slowFilter makes an answer's content of records that were checked before: a JSON
// array of the records with their permitted fields only. Values are copied byte
// for byte, in the order the source gave them.
func slowFilter(records []Record, permitted []names.FieldName) ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('[')
	for i, r := range records {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteByte('{')
		first := true
		err := slowEachField(r, func(name string, value json.RawMessage) error {
			if !slices.Contains(permitted, names.FieldName(name)) {
				return nil
			}
			if !first {
				out.WriteByte(',')
			}
			first = false
			// A permitted name is a names.FieldName, which needs no escaping.
			out.WriteString(`"` + name + `":`)
			out.Write(value)
			return nil
		})
		if err != nil {
			return nil, err
		}
		out.WriteByte('}')
		if out.Len() > MaxContent {
			return nil, fmt.Errorf("%w: more than %d bytes of permitted fields", errRecord, MaxContent)
		}
	}
	out.WriteByte(']')
	return out.Bytes(), nil
}

func slowCheckRecord(r Record) error {
	if !utf8.Valid(r) {
		return fmt.Errorf("%w: not UTF-8", errRecord)
	}
	if err := slowCheckDepth(r); err != nil {
		return err
	}
	if !json.Valid(r) { // stricter than a Decoder's tokens about commas
		return fmt.Errorf("%w: not JSON", errRecord)
	}
	dec := json.NewDecoder(bytes.NewReader(r))
	dec.UseNumber()
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return fmt.Errorf("%w: not a JSON object", errRecord)
	}
	return slowWalkObject(dec)
}

// slowCheckDepth bounds nesting before any recursive reader sees the bytes.
func slowCheckDepth(raw []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return fmt.Errorf("%w: deeper than %d", errRecord, MaxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// slowWalkObject reads the rest of an object whose '{' was read.
func slowWalkObject(dec *json.Decoder) error {
	seen := make(map[string]bool)
	for {
		t, err := dec.Token()
		if err != nil {
			return fmt.Errorf("%w: not JSON", errRecord)
		}
		name, ok := t.(string)
		if !ok { // the closing brace: nothing else can stand here
			return nil
		}
		if seen[name] {
			return fmt.Errorf("%w: a field stands twice", errRecord)
		}
		seen[name] = true
		if err := slowWalkValue(dec); err != nil {
			return err
		}
	}
}

func slowWalkValue(dec *json.Decoder) error {
	t, err := dec.Token()
	if err != nil {
		return fmt.Errorf("%w: not JSON", errRecord)
	}
	switch t {
	case json.Delim('{'):
		return slowWalkObject(dec)
	case json.Delim('['):
		for dec.More() {
			if err := slowWalkValue(dec); err != nil {
				return err
			}
		}
		if _, err := dec.Token(); err != nil {
			return fmt.Errorf("%w: not JSON", errRecord)
		}
	}
	return nil
}

// slowEachField calls fn with each top-level field of a JSON object, in order; value
// is exactly the bytes that stand there.
func slowEachField(r Record, fn func(name string, value json.RawMessage) error) error {
	dec := json.NewDecoder(bytes.NewReader(r))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("%w: not a JSON object", errRecord)
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return fmt.Errorf("%w: not JSON", errRecord)
		}
		name, ok := t.(string)
		if !ok {
			return fmt.Errorf("%w: not a JSON object", errRecord)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return fmt.Errorf("%w: not JSON", errRecord)
		}
		if err := fn(name, value); err != nil {
			return err
		}
	}
	return nil
}

// slowCheckContent insists that content, which a peer sent, is what filter makes: a
// bounded array of well-formed records that hold permitted fields only. It gives
// the number of records.
func slowCheckContent(content []byte, permitted []names.FieldName) (int, error) {
	if len(content) > MaxContent+2 {
		return 0, fmt.Errorf("%w: content of %d bytes, at most %d", errRecord, len(content), MaxContent)
	}
	if err := slowCheckDepth(content); err != nil {
		return 0, err
	}
	if !json.Valid(content) {
		return 0, fmt.Errorf("%w: not JSON", errRecord)
	}
	dec := json.NewDecoder(bytes.NewReader(content))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return 0, fmt.Errorf("%w: content is no JSON array", errRecord)
	}
	n := 0
	for dec.More() {
		var r Record
		if err := dec.Decode(&r); err != nil {
			return 0, fmt.Errorf("%w: not JSON", errRecord)
		}
		if n++; n > MaxRecords {
			return 0, fmt.Errorf("%w: more than %d records", errRecord, MaxRecords)
		}
		if err := slowCheckRecord(r); err != nil {
			return 0, err
		}
		err := slowEachField(r, func(name string, _ json.RawMessage) error {
			if !slices.Contains(permitted, names.FieldName(name)) {
				return fmt.Errorf("%w: a field that is not permitted", errRecord)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// alike fails unless both judge a record, and a content, in the same way.
func alike(t interface {
	Helper()
	Fatalf(string, ...any)
}, raw []byte) {
	t.Helper()
	permitted := []names.FieldName{"a", "wage", "nested"}
	if slow, quick := slowCheckRecord(raw), checkRecord(raw); (slow == nil) != (quick == nil) {
		t.Fatalf("%q: slowly %v, quickly %v", raw, slow, quick)
	} else if slow == nil {
		want, slow := slowFilter([]Record{raw, raw}, permitted)
		got, quick := filter([]Record{raw, raw}, permitted)
		if !bytes.Equal(want, got) || (slow == nil) != (quick == nil) {
			t.Fatalf("%q: slowly %s %v, quickly %s %v", raw, want, slow, got, quick)
		}
	} else if got, err := filter([]Record{raw}, permitted); err == nil {
		t.Fatalf("%q, which is refused (%v), is cut to %s", raw, slow, got)
	}
	n, slow := slowCheckContent(raw, permitted)
	m, quick := checkContent(raw, permitted)
	if n != m || (slow == nil) != (quick == nil) {
		t.Fatalf("content %q: slowly %d %v, quickly %d %v", raw, n, slow, m, quick)
	}
}

// oddities are where readers of JSON differ.
var oddities = []string{
	``, ` `, `{}`, `[]`, `[{}]`, `[{"a":1}, {"a":2} ]`, `[{"a":1},]`, `[,{"a":1}]`, `[{"a":1}{"a":2}]`, `[1]`, `[[]]`, `{"a":1}`, `{"a":1,}`, `{,}`, `{"a"}`,
	`{"a":01}`, `{"a":-}`, `{"a":-0}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":1e+}`, `{"a":1E-07}`, `{"a":+1}`, `{"a":0x1}`, `{"a":tru}`, `{"a":truex}`, `{"a":null}`,
	`{"a":"\u12"}`, `{"a":"\ud800"}`, `{"\ud800":1,"\udfff":2}`, `{"\ud83d\ude00":1,"😀":2}`, `{"a":"\x"}`, `{"a":"\"}`, "{\"a\":\"\t\"}", "{\"a\":\"\x7f\"}", "\ufeff{}",
	`{"":1,"":2}`, `{"a":1,"\u0061":2}`, `{"wage":{"a":1,"b":{"a":1}}}`, `[{"a":[{"a":1},{"a":1}]}]`, "{\"a\":1}\x00", `{"a":1} {"a":2}`, `{"a":[1,2,]}`, `{"a":[}`, `{"a":[1 2]}`,
}

func TestScannerIsAlike(t *testing.T) {
	for _, o := range oddities {
		alike(t, []byte(o))
	}
	rapid.Check(t, func(r *rapid.T) {
		raw := []byte(drawValue(r, 4))
		if rapid.Bool().Draw(r, "record") {
			raw = append(append([]byte(`{"wage":`), raw...), `, "a" : 1 }`...)
		}
		if rapid.Bool().Draw(r, "content") {
			raw = append(append([]byte(`[`), raw...), ']')
		}
		if at := rapid.IntRange(-1, len(raw)-1).Draw(r, "at"); at >= 0 && rapid.Bool().Draw(r, "spoil") {
			raw[at] = rapid.SampledFrom([]byte(`{}[]",:\0.eu`+" \x00\xff")).Draw(r, "byte")
		}
		alike(r, raw)
	})
}

func FuzzScanner(f *testing.F) {
	for _, o := range oddities {
		f.Add([]byte(o))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { alike(t, raw) })
}
