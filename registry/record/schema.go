package record

import (
	"errors"
	"fmt"
	"strings"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// errSchema is wrapped by every error of SchemaFields.
var errSchema = errors.New("schema")

const maxDepth = 64 // of nested JSON

// SchemaFields gives the fields of a dataset: the names under "properties" at the
// top of its JSON schema, in the order in which they stand there.
//
// It reads JSON by itself, strictly, because replicas must agree on the verdict
// for ever and general decoders become stricter or laxer with their versions. It
// checks the form of the whole text, but not that it is a meaningful schema: that
// is for whoever validates records with it.
func SchemaFields(schema string) ([]names.FieldName, error) {
	if len(schema) > maxSchema {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are accepted", errSchema, len(schema), maxSchema)
	}
	p := &jsonParser{s: schema}
	var fields []names.FieldName
	found, twice := false, false
	ok := p.object(0, func(name string) bool {
		if name != "properties" {
			return !strings.Contains(name, `\`) && p.value(1) // escaped, it might be the same name
		}
		twice, found = found, true
		seen := make(map[string]bool)
		return p.object(1, func(field string) bool {
			if seen[field] {
				twice = true
			}
			seen[field] = true
			fields = append(fields, names.FieldName(field))
			return p.value(2)
		})
	})
	p.space()
	switch {
	case !ok || p.i != len(p.s):
		return nil, fmt.Errorf("%w: not a JSON object with an object of properties (near byte %d)", errSchema, p.i)
	case twice:
		return nil, fmt.Errorf("%w: properties, or one of them, stands there twice", errSchema)
	case len(fields) == 0 || len(fields) > maxFields:
		return nil, fmt.Errorf("%w: %d top-level properties, want 1 to %d", errSchema, len(fields), maxFields)
	}
	for _, f := range fields {
		if err := f.Validate(); err != nil {
			return nil, fmt.Errorf("%w: %w", errSchema, err)
		}
	}
	return fields, nil
}

// jsonParser checks the grammar of RFC 8259. Its methods report whether what they
// expect stands at i, and move past it.
type jsonParser struct {
	s string
	i int
}

func (p *jsonParser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *jsonParser) space() {
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\t' || p.s[p.i] == '\n' || p.s[p.i] == '\r') {
		p.i++
	}
}

func (p *jsonParser) take(c byte) bool {
	p.space()
	if p.peek() != c {
		return false
	}
	p.i++
	return true
}

// object reads an object; member reads the value of each.
func (p *jsonParser) object(depth int, member func(name string) bool) bool {
	if depth > maxDepth || !p.take('{') {
		return false
	}
	if p.take('}') {
		return true
	}
	for {
		p.space()
		start := p.i
		if !p.str() {
			return false
		}
		name := p.s[start+1 : p.i-1] // an escaped name is no field name
		if !p.take(':') || !member(name) {
			return false
		}
		if !p.take(',') {
			return p.take('}')
		}
	}
}

func (p *jsonParser) array(depth int) bool {
	if depth > maxDepth || !p.take('[') {
		return false
	}
	if p.take(']') {
		return true
	}
	for {
		if !p.value(depth + 1) {
			return false
		}
		if !p.take(',') {
			return p.take(']')
		}
	}
}

func (p *jsonParser) value(depth int) bool {
	p.space()
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth, func(string) bool { return p.value(depth + 1) })
	case c == '[':
		return p.array(depth)
	case c == '"':
		return p.str()
	case c == 't':
		return p.word("true")
	case c == 'f':
		return p.word("false")
	case c == 'n':
		return p.word("null")
	}
	return p.number()
}

func (p *jsonParser) word(w string) bool {
	if len(p.s)-p.i < len(w) || p.s[p.i:p.i+len(w)] != w {
		return false
	}
	p.i += len(w)
	return true
}

// str reads a string; that it is UTF-8 was checked with the message around it.
func (p *jsonParser) str() bool {
	if p.peek() != '"' {
		return false
	}
	for p.i++; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			return true
		case c < ' ':
			return false
		case c == '\\':
			p.i++
			if !p.escape() {
				return false
			}
		}
	}
	return false
}

// escape checks what follows a backslash, and stays on its last byte.
func (p *jsonParser) escape() bool {
	switch p.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			p.i++
			c := p.peek() | 0x20
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') || p.peek() < '0' {
				return false
			}
		}
		return true
	}
	return false
}

func (p *jsonParser) number() bool {
	if p.peek() == '-' {
		p.i++
	}
	if p.peek() == '0' {
		p.i++
	} else if !p.digits() {
		return false
	}
	if p.peek() == '.' {
		p.i++
		if !p.digits() {
			return false
		}
	}
	if p.peek() == 'e' || p.peek() == 'E' {
		p.i++
		if p.peek() == '+' || p.peek() == '-' {
			p.i++
		}
		return p.digits()
	}
	return true
}

// digits reads one or more digits.
func (p *jsonParser) digits() bool {
	start := p.i
	for '0' <= p.peek() && p.peek() <= '9' {
		p.i++
	}
	return p.i > start
}
