package sql

import (
	"bytes"
	dbsql "database/sql"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// kind is how the values of a column become JSON.
type kind int

const (
	kindOther kind = iota // by the Go type of each value
	kindDate
	kindTimestamp
	kindBoolean
	kindDecimal
	kindJSON
)

// noScale: a decimal that keeps the digits it has.
const noScale = -1

type column struct {
	name  string
	kind  kind
	scale int // of a decimal
}

// columnOf reads the declared type: "NUMERIC" with its size apart from PostgreSQL,
// "DECIMAL(12,2)" as it was written from SQLite.
func columnOf(t *dbsql.ColumnType) column {
	c := column{name: t.Name(), scale: noScale}
	declared, size, _ := strings.Cut(strings.ToUpper(t.DatabaseTypeName()), "(")
	switch strings.TrimSpace(declared) {
	case "DATE":
		c.kind = kindDate
	case "TIMESTAMP", "TIMESTAMPTZ", "DATETIME":
		c.kind = kindTimestamp
	case "BOOL", "BOOLEAN":
		c.kind = kindBoolean
	case "JSON", "JSONB":
		c.kind = kindJSON
	case "NUMERIC", "DECIMAL":
		c.kind = kindDecimal
		if _, scale, ok := t.DecimalSize(); ok && scale >= 0 && scale <= 100 {
			c.scale = int(scale)
		} else if size != "" {
			c.scale = declaredScale(size)
		}
	}
	return c
}

// declaredScale reads "12,2)"; "12)" is without decimals.
func declaredScale(size string) int {
	_, scale, ok := strings.Cut(strings.TrimSuffix(strings.TrimSpace(size), ")"), ",")
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(scale))
	if err != nil || n < 0 || n > 100 {
		return noScale
	}
	return n
}

// record writes one row as a JSON object.
func record(columns []column, values []any) (json.RawMessage, error) {
	b := make([]byte, 0, 32*len(columns))
	b = append(b, '{')
	for i, c := range columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, c.name...) // a names.FieldName: needs no escaping
		b = append(b, '"', ':')
		var err error
		if b, err = c.append(b, values[i]); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// wrong never shows the value.
func (c column) wrong(what string) error {
	return fmt.Errorf("%w: column %s: %s", ErrQuery, c.name, what)
}

func (c column) append(b []byte, v any) ([]byte, error) {
	if v == nil {
		return append(b, "null"...), nil
	}
	switch c.kind {
	case kindDate:
		return c.appendDate(b, v)
	case kindTimestamp:
		if t, ok := v.(time.Time); ok && t.Year() >= 1 && t.Year() <= 9999 {
			return strconv.AppendQuote(b, t.UTC().Format(time.RFC3339Nano)), nil
		}
		return nil, c.wrong("not a time")
	case kindBoolean:
		switch v {
		case true, int64(1):
			return append(b, "true"...), nil
		case false, int64(0):
			return append(b, "false"...), nil
		}
		return nil, c.wrong("neither true nor false")
	case kindDecimal:
		return c.appendDecimal(b, v)
	case kindJSON:
		return c.appendJSON(b, v)
	}
	switch v := v.(type) {
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case float64:
		return c.appendFloat(b, v)
	case string:
		return c.appendText(b, v)
	case time.Time:
		return nil, c.wrong("a time of no declared type; select the column itself, or format it in the query")
	}
	return nil, c.wrong("binary; encode it in the query")
}

func (c column) appendDate(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case time.Time:
		if h, m, s := v.Clock(); h+m+s+v.Nanosecond() == 0 && v.Year() >= 1 && v.Year() <= 9999 {
			return v.AppendFormat(b, `"2006-01-02"`), nil
		}
	case string:
		if d, err := names.ParseDate(v); err == nil {
			return strconv.AppendQuote(b, d.String()), nil
		}
	}
	return nil, c.wrong("not a date from 0001-01-01 to 9999-12-31 without a time of day")
}

func (c column) appendText(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, c.wrong("not UTF-8")
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, c.wrong("not text")
	}
	return append(b, text...), nil
}

func (c column) appendFloat(b []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, c.wrong("not a number")
	}
	text, err := json.Marshal(f)
	if err != nil {
		return nil, c.wrong("not a number")
	}
	return append(b, text...), nil
}

// exactDigits is how many decimal digits binary floating point carries for sure.
const exactDigits = 15

// appendDecimal writes the digits of the database, with the declared number of
// decimals. A value that would have to be rounded is refused.
func (c column) appendDecimal(b []byte, v any) ([]byte, error) {
	at := len(b)
	switch v := v.(type) {
	case int64:
		b = strconv.AppendInt(b, v, 10)
	case string:
		b = append(b, v...)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, c.wrong("not a number")
		}
		b = strconv.AppendFloat(b, v, 'f', -1, 64)
		if significant(b[at:]) > exactDigits {
			return nil, c.wrong("more digits than SQLite keeps exactly; store it as an integer or as text")
		}
	default:
		return nil, c.wrong("not a decimal")
	}
	if !isDecimal(b[at:]) {
		return nil, c.wrong("not a decimal")
	}
	if c.scale == noScale {
		return b, nil
	}
	return c.scaled(b, at)
}

// scaled gives the decimal at the end of b, from at on, the declared number of decimals.
// Zero has no sign then.
func (c column) scaled(b []byte, at int) ([]byte, error) {
	decimals := 0
	if point := bytes.IndexByte(b[at:], '.'); point >= 0 {
		if decimals = len(b) - at - point - 1; decimals > c.scale {
			if len(bytes.Trim(b[len(b)-decimals+c.scale:], "0")) > 0 {
				return nil, c.wrong("more decimals than declared")
			}
			b, decimals = b[:len(b)-decimals+c.scale], c.scale
		}
		if decimals == 0 {
			b = b[:at+point]
		}
	}
	if decimals == 0 && c.scale > 0 {
		b = append(b, '.')
	}
	for ; decimals < c.scale; decimals++ {
		b = append(b, '0')
	}
	if b[at] == '-' && significant(b[at:]) == 0 {
		b = append(b[:at], b[at+1:]...)
	}
	return b, nil
}

// significant counts a decimal's digits, without the zeros that it begins or ends with.
func significant(decimal []byte) int {
	digits := bytes.Trim(decimal, "-.0")
	return len(digits) - bytes.Count(digits, []byte{'.'})
}

// isDecimal accepts what is a decimal number in JSON too: -0.50 and 12, not .5,
// 1e9, 007 or NaN.
func isDecimal(s []byte) bool {
	whole, fraction, point := bytes.Cut(bytes.TrimPrefix(s, []byte{'-'}), []byte{'.'})
	if len(whole) == 0 || len(whole) > 1 && whole[0] == '0' || point && len(fraction) == 0 || len(s) > 200 {
		return false
	}
	return areDigits(whole) && areDigits(fraction)
}

func areDigits(s []byte) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func (c column) appendJSON(b []byte, v any) ([]byte, error) {
	var raw []byte
	switch v := v.(type) {
	case []byte:
		raw = v
	case string:
		raw = []byte(v)
	}
	if !json.Valid(raw) || !utf8.Valid(raw) {
		return nil, c.wrong("not JSON")
	}
	return append(b, raw...), nil
}
