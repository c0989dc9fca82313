package exchange

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// scanner reads JSON once, without building anything. It is as strict as json.Valid, and
// stricter: UTF-8 only, no deeper than MaxDepth, no name twice in one object. Errors say
// nothing of what was read.
type scanner struct {
	b     []byte
	at    int
	depth int
	// field, if there is one, is called with each field of the objects at depth told:
	// its name, unescaped, and exactly the bytes of its value.
	field func(name, value []byte) error
	told  int
}

var (
	errNotJSON = fmt.Errorf("%w: not JSON", errRecord)
	errTooDeep = fmt.Errorf("%w: deeper than %d", errRecord, MaxDepth)
	errTwice   = fmt.Errorf("%w: a field stands twice", errRecord)
	errObject  = fmt.Errorf("%w: not a JSON object", errRecord)
	errArray   = fmt.Errorf("%w: content is no JSON array", errRecord)
	errUTF8    = fmt.Errorf("%w: not UTF-8", errRecord)
	errMany    = fmt.Errorf("%w: more than %d records", errRecord, MaxRecords)
)

// scanRecord insists that r is one JSON object, and calls field, which may be nil, with
// its fields in order.
func scanRecord(r []byte, field func(name, value []byte) error) error {
	if !utf8.Valid(r) {
		return errUTF8
	}
	s := scanner{b: r, field: field, told: 1}
	if s.next() != '{' {
		return errObject
	}
	if err := s.object(); err != nil {
		return err
	}
	return s.end()
}

// scanContent insists that c is a JSON array of objects, and calls field with the fields
// of each. It gives their number.
func scanContent(c []byte, field func(name, value []byte) error) (n int, err error) {
	if !utf8.Valid(c) {
		return 0, errUTF8
	}
	s := scanner{b: c, field: field, told: 2}
	if s.next() != '[' {
		return 0, errArray
	}
	err = s.array(func() error {
		if n++; n > MaxRecords {
			return errMany
		}
		if s.next() != '{' {
			return errObject
		}
		return s.object()
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return 0, err
	}
	return n, nil
}

// next skips white space and gives the byte that stands there; 0 at the end.
func (s *scanner) next() byte {
	for ; s.at < len(s.b); s.at++ {
		switch c := s.b[s.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) end() error {
	if s.next(); s.at < len(s.b) {
		return errNotJSON
	}
	return nil
}

// take takes c, which must come next.
func (s *scanner) take(c byte) error {
	if s.next() != c || s.at == len(s.b) {
		return errNotJSON
	}
	s.at++
	return nil
}

func (s *scanner) value() error {
	switch c := s.next(); {
	case c == '{':
		return s.object()
	case c == '[':
		return s.array(s.value)
	case c == '"':
		_, _, err := s.text()
		return err
	case c == '-' || isDigit(c):
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	}
	return errNotJSON
}

// someNames is up to how many names of an object are compared one by one.
const someNames = 16

// object reads an object that begins here.
func (s *scanner) object() error {
	if s.depth++; s.depth > MaxDepth {
		return errTooDeep
	}
	s.at++
	var few [someNames][]byte
	var many map[string]bool
	for n := 0; ; n++ {
		if n == 0 && s.next() == '}' {
			break
		}
		if n > 0 {
			if s.next() == '}' {
				break
			}
			if err := s.take(','); err != nil {
				return err
			}
		}
		name, err := s.name()
		if err != nil {
			return err
		}
		if n < someNames {
			for _, other := range few[:n] {
				if bytes.Equal(other, name) {
					return errTwice
				}
			}
			few[n] = name
		} else {
			if many == nil {
				many = make(map[string]bool)
				for _, other := range few {
					many[string(other)] = true
				}
			}
			if many[string(name)] {
				return errTwice
			}
			many[string(name)] = true
		}
		if err := s.fieldValue(name); err != nil {
			return err
		}
	}
	s.at++
	s.depth--
	return nil
}

func (s *scanner) fieldValue(name []byte) error {
	if err := s.take(':'); err != nil {
		return err
	}
	s.next()
	start := s.at
	if err := s.value(); err != nil {
		return err
	}
	if s.field == nil || s.depth != s.told {
		return nil
	}
	return s.field(name, s.b[start:s.at])
}

// array reads an array that begins here, each element by one.
func (s *scanner) array(one func() error) error {
	if s.depth++; s.depth > MaxDepth {
		return errTooDeep
	}
	s.at++
	for n := 0; ; n++ {
		if s.next() == ']' {
			break
		}
		if n > 0 {
			if err := s.take(','); err != nil {
				return err
			}
		}
		if err := one(); err != nil {
			return err
		}
	}
	s.at++
	s.depth--
	return nil
}

// name reads a field's name and gives it unescaped.
func (s *scanner) name() ([]byte, error) {
	if s.next() != '"' {
		return nil, errNotJSON
	}
	raw, escaped, err := s.text()
	if err != nil || !escaped {
		return raw, err
	}
	var plain string
	if err := json.Unmarshal(s.b[s.at-len(raw)-2:s.at], &plain); err != nil {
		return nil, errNotJSON
	}
	return []byte(plain), nil
}

// text reads a string that begins here, and gives what stands between the quotes.
func (s *scanner) text() (raw []byte, escaped bool, err error) {
	start := s.at + 1
	for i := start; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.at = i + 1
			return s.b[start:i], escaped, nil
		case c < ' ':
			return nil, false, errNotJSON
		case c == '\\':
			escaped = true
			if i++; i == len(s.b) {
				return nil, false, errNotJSON
			}
			switch s.b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if i+4 >= len(s.b) || !areHex(s.b[i+1:i+5]) {
					return nil, false, errNotJSON
				}
				i += 4
			default:
				return nil, false, errNotJSON
			}
		}
	}
	return nil, false, errNotJSON
}

func areHex(b []byte) bool {
	for _, c := range b {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.b[s.at:], []byte(w)) {
		return errNotJSON
	}
	s.at += len(w)
	return nil
}

// number reads -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
func (s *scanner) number() error {
	if s.b[s.at] == '-' {
		s.at++
	}
	if s.has("0") {
		s.at++
	} else if !s.digits() {
		return errNotJSON
	}
	if s.has(".") {
		s.at++
		if !s.digits() {
			return errNotJSON
		}
	}
	if s.has("eE") {
		s.at++
		if s.has("+-") {
			s.at++
		}
		if !s.digits() {
			return errNotJSON
		}
	}
	return nil
}

// has reports whether one of a few bytes stands here.
func (s *scanner) has(set string) bool {
	return s.at < len(s.b) && bytes.IndexByte([]byte(set), s.b[s.at]) >= 0
}

// digits takes digits and reports whether there were any.
func (s *scanner) digits() bool {
	start := s.at
	for s.at < len(s.b) && isDigit(s.b[s.at]) {
		s.at++
	}
	return s.at > start
}

// eachField calls fn with each field of a JSON object, in order; value is exactly the
// bytes that stand there.
func eachField(r Record, fn func(name string, value json.RawMessage) error) error {
	return scanRecord(r, func(name, value []byte) error { return fn(string(name), value) })
}
