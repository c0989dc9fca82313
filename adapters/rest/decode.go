package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/crossroads-mesh/crossroads/node/exchange"
)

// decode reads {"records":[{...}, ...]} and nothing else. Records keep their bytes.
// How deep they nest is bounded by encoding/json (10,000, without recursion here)
// and then, for each record, by the exchange, which also refuses repeated fields.
func decode(body []byte) ([]json.RawMessage, error) {
	wrong := func(what string) ([]json.RawMessage, error) {
		return nil, fmt.Errorf("%w: %s", ErrAnswer, what)
	}
	if !utf8.Valid(body) || !json.Valid(body) {
		return wrong("not JSON in UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	for _, want := range []json.Token{json.Delim('{'), "records", json.Delim('[')} {
		if t, err := dec.Token(); err != nil || t != want {
			return wrong(`want {"records":[...]}`)
		}
	}
	records := []json.RawMessage{}
	for dec.More() {
		var r json.RawMessage
		if err := dec.Decode(&r); err != nil {
			return wrong("not JSON")
		}
		if len(r) == 0 || r[0] != '{' {
			return wrong("a record that is no object")
		}
		if records = append(records, r); len(records) > exchange.MaxRecords {
			return wrong(fmt.Sprintf("more than %d records", exchange.MaxRecords))
		}
	}
	for _, want := range []json.Token{json.Delim(']'), json.Delim('}')} {
		if t, err := dec.Token(); err != nil || t != want {
			return wrong(`something beside "records", so this may be a part only`)
		}
	}
	if _, err := dec.Token(); err != io.EOF {
		return wrong("something after the answer")
	}
	return records, nil
}
