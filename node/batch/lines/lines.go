// Package lines reads the file of a lot, a line at a time, in memory that does not grow
// with it. Three forms are read:
//
//	CSV           comma or another separator; a header, or columns by their place
//	JSON Lines    one JSON object on each line
//	fixed         records of fixed columns, each on a line or of a fixed length
//
// Of each line two things are taken: the subject's number, and a reference of the
// institution's own that comes back with the result. A line that cannot be read is no
// error: it is told of as such, in its place. Every line counts, empty ones too.
package lines

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits, in bytes.
const (
	MaxLine      = 16 << 10
	MaxNumber    = 64 // separators included
	MaxReference = 64
)

// Form is how a file is written.
type Form string

// The forms.
const (
	CSV   Form = "csv"
	JSONL Form = "jsonl"
	Fixed Form = "fixed"
)

// ErrFormat is wrapped by errors that say what is wrong with a description, or with the
// file as a whole.
var ErrFormat = errors.New("lot file")

// Format describes a file.
type Format struct {
	Form Form
	// Number and Reference say where they stand. CSV: a column of the header, or its place
	// from 1 when there is no header. JSONL: a field of the object. Fixed: first and last
	// column, as 1-11. An empty Number is "number", or of a fixed record an error; an empty
	// Reference is none.
	Number, Reference string
	// Separator of CSV. 0: comma.
	Separator rune
	// Length of a fixed record in bytes. 0: each is a line.
	Length int
}

// Line is what was taken from one line.
type Line struct {
	Number    string
	Reference string
	Bad       bool // it could not be read; Number and Reference are empty
}

// Reader reads lines. It is for one goroutine.
type Reader struct {
	in    *bufio.Reader
	parse func(raw []byte) (Line, bool)
	fixed int
}

// NewReader reads a description, and what the file has of a header. The error wraps
// ErrFormat and never repeats what the file holds.
func NewReader(in io.Reader, f Format) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10)}
	if mark, err := r.in.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = r.in.Discard(3)
	}
	switch f.Form {
	case CSV:
		return r, r.csv(f)
	case JSONL:
		number, reference := f.Number, f.Reference
		if number == "" {
			number = "number"
		}
		r.parse = func(raw []byte) (Line, bool) { return object(raw, number, reference) }
		return r, nil
	case Fixed:
		return r, r.columns(f)
	}
	return nil, fmt.Errorf("%w: form: want csv, jsonl or fixed", ErrFormat)
}

// Next gives the next line, or io.EOF. Any other error is the reader's.
func (r *Reader) Next() (Line, error) {
	raw, long, err := r.line()
	if err != nil {
		return Line{}, err
	}
	if long || !utf8.Valid(raw) {
		return Line{Bad: true}, nil
	}
	l, ok := r.parse(raw)
	if !ok || len(l.Number) > MaxNumber || len(l.Reference) > MaxReference || !printable(l.Reference) {
		return Line{Bad: true}, nil
	}
	return l, nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// line gives one line without its end; long: it was cut. The bytes are good until the next.
func (r *Reader) line() (raw []byte, long bool, err error) {
	if r.fixed > 0 {
		raw = make([]byte, r.fixed)
		n, err := io.ReadFull(r.in, raw)
		if errors.Is(err, io.ErrUnexpectedEOF) && len(bytes.TrimRight(raw[:n], "\r\n")) == 0 {
			return nil, false, io.EOF // the file's last line end
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, true, nil
		}
		return raw, false, err
	}
	var whole []byte
	for {
		part, err := r.in.ReadSlice('\n')
		if len(whole)+len(part) <= MaxLine+2 {
			whole = append(whole, part...)
		} else {
			long = true
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(whole) == 0 && !long:
			return nil, false, io.EOF
		case err != nil && err != io.EOF:
			return nil, false, err
		}
		whole = bytes.TrimSuffix(bytes.TrimSuffix(whole, []byte("\n")), []byte("\r"))
		return whole, long, nil
	}
}

func (r *Reader) csv(f Format) error {
	separator := f.Separator
	if separator == 0 {
		separator = ','
	}
	if separator == '"' || separator == '\n' || separator == '\r' || separator > 127 {
		return fmt.Errorf("%w: separator: want one ASCII character such as , or ;", ErrFormat)
	}
	name := f.Number
	if name == "" {
		name = "number"
	}
	number, byPlace := place(name)
	reference, refByPlace := place(f.Reference)
	if f.Reference != "" && byPlace != refByPlace {
		return fmt.Errorf("%w: number and reference: name both columns, or give the place of both", ErrFormat)
	}
	if f.Reference == "" {
		reference = -1
	}
	if !byPlace {
		raw, long, err := r.line()
		if err == io.EOF || long {
			return fmt.Errorf("%w: it has no header; give the columns by their place, from 1", ErrFormat)
		}
		if err != nil {
			return err
		}
		header, ok := cells(raw, byte(separator))
		if !ok {
			return fmt.Errorf("%w: its header is no CSV", ErrFormat)
		}
		find := func(name string) int {
			for i, h := range header {
				if strings.EqualFold(strings.TrimSpace(h), name) {
					return i
				}
			}
			return -1
		}
		if number = find(name); number < 0 {
			return fmt.Errorf("%w: its header has no column %q", ErrFormat, name)
		}
		if f.Reference != "" {
			if reference = find(f.Reference); reference < 0 {
				return fmt.Errorf("%w: its header has no column %q", ErrFormat, f.Reference)
			}
		}
	}
	r.parse = func(raw []byte) (Line, bool) {
		row, ok := cells(raw, byte(separator))
		if !ok || number >= len(row) || reference >= len(row) {
			return Line{}, false
		}
		l := Line{Number: strings.TrimSpace(row[number])}
		if reference >= 0 {
			l.Reference = strings.TrimSpace(row[reference])
		}
		return l, true
	}
	return nil
}

// place reads the place of a column, from 1.
func place(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 1000 {
		return -1, false
	}
	return n - 1, true
}

// cells takes a line of CSV apart. A quoted cell cannot go over the end of its line: that
// would let one missing quote swallow the lines after it.
func cells(raw []byte, separator byte) ([]string, bool) {
	if bytes.IndexByte(raw, '"') < 0 {
		return strings.Split(string(raw), string(separator)), true
	}
	c := csv.NewReader(bytes.NewReader(raw))
	c.Comma = rune(separator)
	c.FieldsPerRecord = -1
	row, err := c.Read()
	return row, err == nil
}

func object(raw []byte, number, reference string) (l Line, ok bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return l, false
	}
	if l.Number, ok = text(fields[number]); !ok {
		return l, false
	}
	if reference != "" && fields[reference] != nil {
		l.Reference, ok = text(fields[reference])
	}
	return l, ok
}

// text reads a string, or an integer as it is written.
func text(raw json.RawMessage) (s string, ok bool) {
	if json.Unmarshal(raw, &s) == nil {
		return s, len(raw) > 0 && string(raw) != "null"
	}
	for _, c := range raw {
		if c < '0' || c > '9' {
			return "", false
		}
	}
	return string(raw), len(raw) > 0
}

func (r *Reader) columns(f Format) error {
	if f.Length < 0 || f.Length > MaxLine {
		return fmt.Errorf("%w: length: want 1 to %d bytes, or 0 for lines", ErrFormat, MaxLine)
	}
	r.fixed = f.Length
	from, to, err := span(f.Number)
	if err != nil {
		return fmt.Errorf("%w: number: %w", ErrFormat, err)
	}
	refFrom, refTo := 0, 0
	if f.Reference != "" {
		if refFrom, refTo, err = span(f.Reference); err != nil {
			return fmt.Errorf("%w: reference: %w", ErrFormat, err)
		}
	}
	if f.Length > 0 && max(to, refTo) > f.Length {
		return fmt.Errorf("%w: a column lies beyond the length of a record", ErrFormat)
	}
	r.parse = func(raw []byte) (Line, bool) {
		if len(raw) < to {
			return Line{}, false
		}
		l := Line{Number: strings.TrimSpace(string(raw[from:to]))}
		if refTo > 0 { // of a line, blanks at the end may have been cut off
			l.Reference = strings.TrimSpace(string(raw[min(refFrom, len(raw)):min(refTo, len(raw))]))
		}
		return l, true
	}
	return nil
}

// span reads first and last column, from 1, as 1-11.
func span(s string) (from, to int, err error) {
	a, b, ok := strings.Cut(s, "-")
	if from, err = strconv.Atoi(a); err == nil && ok {
		to, err = strconv.Atoi(b)
	}
	if !ok || err != nil || from < 1 || to < from || to > MaxLine {
		return 0, 0, errors.New("want first and last column, as 1-11")
	}
	return from - 1, to, nil
}
