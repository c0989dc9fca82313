package exchange

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Limits on what a source may give and an answer may hold.
const (
	// MaxContent is the largest content of one answer, in bytes.
	MaxContent = 1 << 20
	// MaxRecords is how many records an answer may hold.
	MaxRecords = 10_000
	// MaxDepth is how deep a record may nest; the record itself is depth 1.
	MaxDepth = 32
	// maxSourceBytes bounds what a source may give before it is filtered.
	maxSourceBytes = 8 << 20
)

// errRecord is wrapped by every error about the form of a record. The texts never
// repeat what the record holds.
var errRecord = errors.New("malformed record")

// filter makes an answer's content of records that were checked before: a JSON
// array of the records with their permitted fields only. Values are copied byte
// for byte, in the order the source gave them.
func filter(records []Record, permitted []names.FieldName) ([]byte, error) {
	var out bytes.Buffer
	out.WriteByte('[')
	for i, r := range records {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteByte('{')
		first := true
		err := eachField(r, func(name string, value json.RawMessage) error {
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

// checkRecords bounds what a source gave and insists that each record is one JSON
// object, valid UTF-8, no deeper than MaxDepth, naming no field twice at any depth:
// readers differ in which of two they believe.
func checkRecords(records []Record) error {
	if len(records) > MaxRecords {
		return fmt.Errorf("%w: %d records, at most %d", errRecord, len(records), MaxRecords)
	}
	total := 0
	for i, r := range records {
		if total += len(r); total > maxSourceBytes {
			return fmt.Errorf("%w: records of more than %d bytes", errRecord, maxSourceBytes)
		}
		if err := checkRecord(r); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
	}
	return nil
}

func checkRecord(r Record) error {
	if !utf8.Valid(r) {
		return fmt.Errorf("%w: not UTF-8", errRecord)
	}
	if err := checkDepth(r); err != nil {
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
	return walkObject(dec)
}

// checkDepth bounds nesting before any recursive reader sees the bytes.
func checkDepth(raw []byte) error {
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

// walkObject reads the rest of an object whose '{' was read.
func walkObject(dec *json.Decoder) error {
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
		if err := walkValue(dec); err != nil {
			return err
		}
	}
}

func walkValue(dec *json.Decoder) error {
	t, err := dec.Token()
	if err != nil {
		return fmt.Errorf("%w: not JSON", errRecord)
	}
	switch t {
	case json.Delim('{'):
		return walkObject(dec)
	case json.Delim('['):
		for dec.More() {
			if err := walkValue(dec); err != nil {
				return err
			}
		}
		if _, err := dec.Token(); err != nil {
			return fmt.Errorf("%w: not JSON", errRecord)
		}
	}
	return nil
}

// eachField calls fn with each top-level field of a JSON object, in order; value
// is exactly the bytes that stand there.
func eachField(r Record, fn func(name string, value json.RawMessage) error) error {
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

// checkContent insists that content, which a peer sent, is what filter makes: a
// bounded array of well-formed records that hold permitted fields only. It gives
// the number of records.
func checkContent(content []byte, permitted []names.FieldName) (int, error) {
	if len(content) > MaxContent+2 {
		return 0, fmt.Errorf("%w: content of %d bytes, at most %d", errRecord, len(content), MaxContent)
	}
	if err := checkDepth(content); err != nil {
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
		if err := checkRecord(r); err != nil {
			return 0, err
		}
		err := eachField(r, func(name string, _ json.RawMessage) error {
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
