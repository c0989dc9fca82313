package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// decode reads exactly one JSON value of known fields. Its problems never repeat what
// was sent: a number may stand where it does not belong.
func decode[T any](body []byte) (*T, error) {
	v := new(T)
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return nil, problem(CodeMalformed, "body", "Send one JSON object and nothing after it.")
		}
		return v, nil
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return nil, problem(CodeMalformed, "body", fmt.Sprintf("It is no JSON from byte %d on.", syntax.Offset))
	case errors.As(err, &kind):
		return nil, problem(CodeMalformed, cmpOr(kind.Field, "body"), "Send "+jsonKind(kind.Type)+" here.")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return nil, problem(CodeMalformed, "body", "The JSON ends before its end.")
	case strings.Contains(err.Error(), "unknown field"):
		return nil, problem(CodeMalformed, "body", "It has an unknown field; known are "+strings.Join(fieldsOf(reflect.TypeFor[T]()), ", ")+".")
	case errors.Is(err, names.ErrMalformed):
		return nil, problem(CodeMalformed, "body", "Write dates as YYYY-MM-DD.")
	}
	return nil, problem(CodeMalformed, "body", "See GET /openapi.json.")
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Slice:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	default:
		return "a number"
	}
}

// fieldsOf lists the JSON names of a struct, those of inner structs with their path.
func fieldsOf(t reflect.Type) (all []string) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		ft := t.Field(i).Type
		for ft.Kind() == reflect.Slice || ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		all = append(all, name)
		if ft.Kind() == reflect.Struct {
			for _, inner := range fieldsOf(ft) {
				all = append(all, name+"."+inner)
			}
		}
	}
	return all
}

// onlyKnown refuses parameters that a route does not know: a mistyped filter must not
// silently widen a search.
func onlyKnown(rawQuery string, got url.Values, known []string) error {
	if _, err := url.ParseQuery(rawQuery); err != nil {
		return problem(CodeMalformed, "query", "Encode it as application/x-www-form-urlencoded.")
	}
	for name, values := range got {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return problem(CodeMalformed, "query", "This route takes no parameters.")
			}
			return problem(CodeMalformed, "query", "Known parameters are "+strings.Join(known, ", ")+".")
		}
		if len(values) > 1 {
			return problem(CodeMalformed, name, "Give it once.")
		}
	}
	return nil
}

// form checks one name that came in. The error of Validate is not passed on: it
// repeats what was sent.
func form(where string, err error, mend string) error {
	if err == nil {
		return nil
	}
	return problem(CodeMalformed, where, mend)
}
