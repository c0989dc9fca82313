package exchange

import (
	"bytes"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// plain is what is left of a schema that asks for nothing but an object of values that
// hold no others, as those of most datasets do. It reads a record once, without building
// anything. What it accepts matches the schema. What it does not accept may match too,
// being written in an unusual way: the schema itself judges then.
type plain struct {
	fields   map[string]plainField
	required int  // of fields
	open     bool // other fields may stand there too
}

type plainField struct {
	required bool
	types    jsonschema.Types
	any      bool // of any type
	words    [][]byte
	null     bool // may be null as far as words tell
	listed   bool // words and null say what it may be
	pattern  jsonschema.Regexp
	least    int // characters
	most     int
	min, max int64
}

// types as a schema names them.
var (
	typeNull    = typesOf("null")
	typeBoolean = typesOf("boolean")
	typeNumber  = typesOf("number")
	typeInteger = typesOf("integer")
	typeString  = typesOf("string")
)

func typesOf(name string) (t jsonschema.Types) {
	t.Add(name)
	return t
}

// plainOf gives the plain form of a schema, or nil if it has none.
func plainOf(s *jsonschema.Schema) *plain {
	if s.Types == nil || *s.Types != typesOf("object") || !only(s, "Types", "Required", "Properties", "AdditionalProperties") {
		return nil
	}
	p := &plain{fields: make(map[string]plainField), open: true}
	if s.AdditionalProperties != nil {
		if is, ok := s.AdditionalProperties.(bool); !ok || is {
			return nil
		}
		p.open = false
	}
	for name, f := range s.Properties {
		field, ok := plainFieldOf(f)
		if !ok {
			return nil
		}
		p.fields[name] = field
	}
	for _, name := range s.Required {
		f, ok := p.fields[name]
		if !ok || f.required {
			return nil
		}
		f.required = true
		p.fields[name] = f
		p.required++
	}
	return p
}

func plainFieldOf(s *jsonschema.Schema) (f plainField, ok bool) {
	if !only(s, "Bool", "Types", "Enum", "Pattern", "MinLength", "MaxLength", "Minimum", "Maximum") || s.Bool != nil && !*s.Bool {
		return f, false
	}
	f.any, f.pattern, f.most, f.min, f.max = s.Types == nil, s.Pattern, math.MaxInt, math.MinInt64, math.MaxInt64
	if !f.any {
		f.types = *s.Types
	}
	if s.Enum != nil {
		f.listed = true
		for _, v := range s.Enum.Values {
			switch v := v.(type) {
			case nil:
				f.null = true
			case string:
				f.words = append(f.words, []byte(v))
			default:
				return f, false
			}
		}
	}
	if s.MinLength != nil {
		f.least = *s.MinLength
	}
	if s.MaxLength != nil {
		f.most = *s.MaxLength
	}
	return f, bound(s.Minimum, &f.min) && bound(s.Maximum, &f.max)
}

// bound takes a bound over, if there is one; false: it is no int64.
func bound(r *big.Rat, to *int64) bool {
	if r == nil {
		return true
	}
	*to = r.Num().Int64()
	return r.IsInt() && r.Num().IsInt64()
}

// ofNoEffect are fields of a compiled schema that judge no value.
var ofNoEffect = []string{"DraftVersion", "Location", "ID", "Anchor", "Title", "Description", "Default", "Comment", "ReadOnly", "WriteOnly", "Examples", "Deprecated"}

// only reports whether nothing of a schema judges but the fields that are named.
func only(s *jsonschema.Schema, fields ...string) bool {
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.IsExported() && !v.Field(i).IsZero() && !slices.Contains(fields, f.Name) && !slices.Contains(ofNoEffect, f.Name) {
			return false
		}
	}
	return true
}

// accepts reports whether a record, which was checked before, surely matches.
func (p *plain) accepts(r Record) bool {
	missing := p.required
	err := scanRecord(r, func(name, value []byte) error {
		f, known := p.fields[string(name)]
		if !known && !p.open || known && !f.accepts(value) {
			return errSchema
		}
		if f.required {
			missing--
		}
		return nil
	})
	return err == nil && missing == 0
}

func (f *plainField) is(t jsonschema.Types) bool { return f.any || f.types&t != 0 }

// accepts reports whether a value, which is well formed, surely matches.
func (f *plainField) accepts(v []byte) bool {
	switch c := v[0]; {
	case c == '"':
		text := v[1 : len(v)-1]
		return f.is(typeString) && bytes.IndexByte(text, '\\') < 0 && f.acceptsText(text)
	case c == 'n':
		return f.is(typeNull) && (!f.listed || f.null)
	case c == 't' || c == 'f':
		return f.is(typeBoolean) && !f.listed
	case c == '-' || isDigit(c):
		return !f.listed && f.acceptsNumber(v)
	}
	return false
}

func (f *plainField) acceptsText(text []byte) bool {
	if f.listed && !slices.ContainsFunc(f.words, func(w []byte) bool { return bytes.Equal(w, text) }) {
		return false
	}
	if n := utf8.RuneCount(text); n < f.least || n > f.most {
		return false
	}
	return f.pattern == nil || f.pattern.MatchString(string(text))
}

// maxPlainDigits is how many digits of a number are surely an int64.
const maxPlainDigits = 18

// acceptsNumber takes 12 and 12.50, and -12 but not -12.50, nor 1e3.
func (f *plainField) acceptsNumber(v []byte) bool {
	whole, part, broken := bytes.Cut(v, []byte{'.'})
	if len(whole) > maxPlainDigits || bytes.ContainsAny(v, "eE") || broken && v[0] == '-' {
		return false
	}
	n, err := strconv.ParseInt(string(whole), 10, 64)
	if err != nil || n < f.min {
		return false
	}
	if !broken {
		return n <= f.max && (f.is(typeInteger) || f.is(typeNumber))
	}
	return len(part) > 0 && n < f.max && f.is(typeNumber)
}
