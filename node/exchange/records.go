package exchange

import (
	"errors"
	"fmt"

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

// filter makes an answer's content of records that are bounded: a JSON array of the
// records with their permitted fields only. Values are copied byte for byte, in the order
// the source gave them. It holds each record to what checkRecords holds it to.
func filter(records []Record, permitted []names.FieldName) ([]byte, error) {
	size := 2
	for _, r := range records {
		size += len(r) + 1
	}
	out := append(make([]byte, 0, min(size, MaxContent+2)), '[')
	for i, r := range records {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '{')
		first := true
		err := scanRecord(r, func(name, value []byte) error {
			if !permits(permitted, name) {
				return nil
			}
			if !first {
				out = append(out, ',')
			}
			first = false
			// A permitted name is a names.FieldName, which needs no escaping.
			out = append(append(append(out, '"'), name...), `":`...)
			out = append(out, value...)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		if out = append(out, '}'); len(out) > MaxContent {
			return nil, fmt.Errorf("%w: more than %d bytes of permitted fields", errRecord, MaxContent)
		}
	}
	return append(out, ']'), nil
}

func permits(permitted []names.FieldName, name []byte) bool {
	for _, p := range permitted {
		if string(name) == string(p) {
			return true
		}
	}
	return false
}

// checkRecords bounds what a source gave and insists that each record is one JSON
// object, valid UTF-8, no deeper than MaxDepth, naming no field twice at any depth:
// readers differ in which of two they believe.
func checkRecords(records []Record) error {
	if err := boundRecords(records); err != nil {
		return err
	}
	for i, r := range records {
		if err := checkRecord(r); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
	}
	return nil
}

// boundRecords is the part of checkRecords that reads none of them.
func boundRecords(records []Record) error {
	if len(records) > MaxRecords {
		return fmt.Errorf("%w: %d records, at most %d", errRecord, len(records), MaxRecords)
	}
	total := 0
	for _, r := range records {
		if total += len(r); total > maxSourceBytes {
			return fmt.Errorf("%w: records of more than %d bytes", errRecord, maxSourceBytes)
		}
	}
	return nil
}

func checkRecord(r Record) error { return scanRecord(r, nil) }

// checkContent insists that content, which a peer sent, is what filter makes: a
// bounded array of well-formed records that hold permitted fields only. It gives
// the number of records.
func checkContent(content []byte, permitted []names.FieldName) (int, error) {
	if len(content) > MaxContent+2 {
		return 0, fmt.Errorf("%w: content of %d bytes, at most %d", errRecord, len(content), MaxContent)
	}
	return scanContent(content, func(name, _ []byte) error {
		if !permits(permitted, name) {
			return fmt.Errorf("%w: a field that is not permitted", errRecord)
		}
		return nil
	})
}
