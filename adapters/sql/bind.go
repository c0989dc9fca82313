package sql

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The named parameters of a query.
const (
	paramSubject = "subject"
	paramFrom    = "from"
	paramUntil   = "until"
)

// dialect is what differs between the databases in the text of a query.
type dialect struct {
	mark     byte // of a numbered placeholder: ?1, $1
	postgres bool // dollar quotes, E'' strings, nested comments; no `x` and [x] names
}

var (
	sqliteDialect   = dialect{mark: '?'}
	postgresDialect = dialect{mark: '$', postgres: true}
)

var (
	errUnended    = errors.New("a quote or comment does not end")
	errStatements = errors.New("more than one statement")
	errNoSubject  = errors.New("the parameter :subject is missing, so the query would answer for everybody")
	errEmpty      = errors.New("empty")
	// A read-only connection still lets ATTACH make files, SET change settings ...
	errNoSelect = errors.New("want one SELECT, or WITH ... SELECT")
)

// bind replaces the named parameters by the driver's numbered ones, one number
// for each name, and gives the names in that order. It changes nothing else.
func bind(query string, d dialect) (statement string, order []string, err error) {
	numbers := map[string]int{}
	statement, err = replace(query, d, func(name string) string {
		if numbers[name] == 0 {
			order = append(order, name)
			numbers[name] = len(order)
		}
		return d.placeholder(numbers[name])
	})
	if err == nil && numbers[paramSubject] == 0 {
		err = errNoSubject
	}
	if err != nil {
		return "", nil, err
	}
	return statement, order, nil
}

func (d dialect) placeholder(n int) string { return string(d.mark) + strconv.Itoa(n) }

// replace writes what by gives in place of each named parameter.
func replace(query string, d dialect, by func(name string) string) (string, error) {
	if strings.TrimSpace(query) == "" {
		return "", errEmpty
	}
	b := binder{in: query, dialect: d, by: by}
	for b.i < len(b.in) {
		if err := b.step(); err != nil {
			return "", err
		}
	}
	if !b.began {
		return "", errNoSelect
	}
	return b.out.String(), nil
}

type binder struct {
	dialect
	in    string
	i     int
	out   strings.Builder
	began bool // the first word was seen
	ended bool // a semicolon was seen
	by    func(name string) string
}

// step copies one token.
func (b *binder) step() error {
	c, rest := b.in[b.i], b.in[b.i:]
	switch {
	case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		b.copy(1)
		return nil
	case strings.HasPrefix(rest, "--"):
		n := strings.IndexByte(rest, '\n')
		if n < 0 {
			n = len(rest)
		}
		b.copy(n)
		return nil
	case strings.HasPrefix(rest, "/*"):
		return b.comment()
	case c == ';':
		b.ended = true
		b.i++ // drivers do not all take it
		return nil
	case b.ended:
		return errStatements
	case c == 0:
		return fmt.Errorf("a zero byte at %d", b.i)
	case c == '\'':
		return b.quoted('\'', b.postgres && b.escapes())
	case c == '"' || c == '`' && !b.postgres:
		return b.quoted(c, false)
	case c == '[' && !b.postgres:
		return b.quoted(']', false)
	case c == '$' && b.postgres:
		return b.dollar()
	case c == ':':
		return b.colon()
	case !b.postgres && (c == '?' || c == '$' || c == '@'):
		return fmt.Errorf("%q at byte %d: only the named parameters :subject, :from and :until are bound", c, b.i)
	case isName(c):
		// A whole word, so that a $ or E inside a name is no mark.
		n := 1
		for n < len(rest) && (isName(rest[n]) || rest[n] == '$' && b.postgres) {
			n++
		}
		return b.word(n)
	}
	b.copy(1)
	return nil
}

// word copies one, and insists that the first is that of a question.
func (b *binder) word(n int) error {
	first := strings.ToUpper(b.in[b.i : b.i+n])
	if !b.began && first != "SELECT" && first != "WITH" {
		return errNoSelect
	}
	b.began = true
	b.copy(n)
	return nil
}

func (b *binder) copy(n int) {
	b.out.WriteString(b.in[b.i : b.i+n])
	b.i += n
}

// escapes reports whether the string that begins here is PostgreSQL's E'...',
// where a backslash escapes.
func (b *binder) escapes() bool {
	if b.i == 0 || b.in[b.i-1]|0x20 != 'e' {
		return false
	}
	return b.i == 1 || !isName(b.in[b.i-2])
}

// quoted copies up to the closing quote; a doubled one stands for itself.
func (b *binder) quoted(end byte, backslash bool) error {
	for n := b.i + 1; n < len(b.in); n++ {
		switch c := b.in[n]; {
		case c == '\\' && backslash:
			n++
		case c == end && end != ']' && n+1 < len(b.in) && b.in[n+1] == end:
			n++
		case c == end:
			b.copy(n + 1 - b.i)
			return nil
		}
	}
	return errUnended
}

// comment copies /* ... */, which nest in PostgreSQL.
func (b *binder) comment() error {
	depth := 0
	for n := b.i; n+1 < len(b.in); n++ {
		switch b.in[n : n+2] {
		case "/*":
			if depth == 0 || b.postgres {
				depth++
				n++
			}
		case "*/":
			depth--
			n++
			if depth == 0 {
				b.copy(n + 1 - b.i)
				return nil
			}
		}
	}
	return errUnended
}

// dollar copies a dollar-quoted string, and refuses $1.
func (b *binder) dollar() error {
	rest := b.in[b.i:]
	n := 1
	for n < len(rest) && isName(rest[n]) {
		n++
	}
	if n > 1 && '0' <= rest[1] && rest[1] <= '9' || n == len(rest) || rest[n] != '$' {
		return fmt.Errorf("$ at byte %d: only the named parameters :subject, :from and :until are bound", b.i)
	}
	tag := rest[:n+1]
	end := strings.Index(rest[len(tag):], tag)
	if end < 0 {
		return errUnended
	}
	b.copy(2*len(tag) + end)
	return nil
}

// colon replaces a parameter, and copies :: and := and a lone colon.
func (b *binder) colon() error {
	rest := b.in[b.i:]
	if len(rest) > 1 && (rest[1] == ':' || rest[1] == '=') {
		b.copy(2)
		return nil
	}
	n := 1
	for n < len(rest) && isName(rest[n]) {
		n++
	}
	name := rest[1:n]
	if name == "" || b.postgres && '0' <= name[0] && name[0] <= '9' { // the slice of an array
		b.copy(1)
		return nil
	}
	switch name {
	case paramSubject, paramFrom, paramUntil:
	default:
		return fmt.Errorf("parameter at byte %d is unknown: want :subject, :from or :until", b.i)
	}
	b.out.WriteString(b.by(name))
	b.i += n
	return nil
}

func isName(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c >= 0x80
}
