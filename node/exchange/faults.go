package exchange

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// MaxFaults is how many faults of one record are told.
const MaxFaults = 50

// Fault says what is wrong at one place of a record, and how to mend it. It is made of
// what the dataset's schema says, which is public; nothing that the record holds stands
// in it, not even the name of a field that the schema does not know: either may be a
// subject's number.
type Fault struct {
	// Path is a JSON pointer (RFC 6901) into the record, as /period/from. Empty: the
	// record as a whole. A name that the schema does not know is a star.
	Path string
	// Code is the schema's keyword that fails, as required, type, minimum; or form, when
	// the record is not one JSON object.
	Code string
	// Wrong and Mend are sentences, of at most 300 bytes.
	Wrong, Mend string
}

// Faults finds everything that is wrong with a record, in the order of the paths: the
// first MaxFaults of total. The error means that the schema itself cannot be used.
func (v *Validator) Faults(dataset names.DatasetID, schema string, r Record) (faults []Fault, total int, err error) {
	if err := checkRecord(r); err != nil {
		return []Fault{{Code: "form", Wrong: sentence(strings.TrimPrefix(err.Error(), errRecord.Error()+": ")), Mend: fmt.Sprintf("Send one JSON object in UTF-8, at most %d deep, that names no field twice.", MaxDepth)}}, 1, nil
	}
	c, err := v.schemas.get(dataset, schema)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrContent, err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(r))
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrContent, errNotJSON)
	}
	var failed *jsonschema.ValidationError
	switch err := c.schema.Validate(doc); {
	case err == nil:
		return nil, 0, nil
	case !errors.As(err, &failed):
		return nil, 0, fmt.Errorf("%w: %w", ErrContent, errSchema)
	}
	f := finder{doc: doc, known: knownNames(schema)}
	f.leaves(failed)
	slices.SortStableFunc(f.found, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Code, b.Code)) })
	f.found = slices.Compact(f.found)
	return f.found[:min(len(f.found), MaxFaults)], len(f.found), nil
}

// finder turns what a validation found into faults.
type finder struct {
	doc   any
	known map[string]bool // names that the schema knows
	found []Fault
}

// leaves visits what failed by itself: most errors only say that another one is below.
func (f *finder) leaves(v *jsonschema.ValidationError) {
	switch k := v.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			f.add(v, name, "It is missing.", "Add it.")
		}
		return
	case *kind.DependentRequired:
		f.dependent(v, k.Prop, k.Missing)
		return
	case *kind.Dependency:
		f.dependent(v, k.Prop, k.Missing)
		return
	case *kind.AdditionalProperties, *kind.PropertyNames, *kind.AnyOf, *kind.OneOf, *kind.Not, *kind.Contains, *kind.MinContains:
		f.leaf(v) // what is below are ways not taken, or repeats a name
		return
	}
	if len(v.Causes) == 0 {
		f.leaf(v)
	}
	for _, c := range v.Causes {
		f.leaves(c)
	}
}

func (f *finder) dependent(v *jsonschema.ValidationError, of string, missing []string) {
	for _, name := range missing {
		f.add(v, name, "It is missing, and "+strconv.Quote(of)+" is there.", "Add it, or leave the other out.")
	}
}

// leaf says what is wrong at one place.
func (f *finder) leaf(v *jsonschema.ValidationError) {
	say := func(wrong, mend string) { f.add(v, "", wrong, mend) }
	switch k := v.ErrorKind.(type) {
	case *kind.Type:
		say("It is of type "+k.Got+".", "Give it as "+strings.Join(k.Want, " or ")+".")
	case *kind.Enum:
		say("It is none of the values that there are.", "Use one of "+values(k.Want)+".")
	case *kind.Const:
		say("It is not the one value that there is.", "Use "+values([]any{k.Want})+".")
	case *kind.AdditionalProperties:
		say(fmt.Sprintf("%s that the schema does not know.", count(len(k.Properties), "field")), "Leave out what is none of the dataset's fields; see GET /v1/datasets.")
	case *kind.FalseSchema:
		say("It must not be there.", "Leave it out.")
	case *kind.PropertyNames:
		say("It has a field whose name is not allowed.", "Leave it out, or name it as the schema does.")
	case *kind.Pattern:
		say("It has the wrong form.", "Write it so that it matches "+k.Want+".")
	case *kind.Format:
		say("It has the wrong form.", "Write it as "+k.Want+".")
	case *kind.MinLength:
		say(fmt.Sprintf("It is %s long.", count(k.Got, "character")), fmt.Sprintf("Use at least %d.", k.Want))
	case *kind.MaxLength:
		say(fmt.Sprintf("It is %s long.", count(k.Got, "character")), fmt.Sprintf("Use at most %d.", k.Want))
	case *kind.MinItems:
		say(fmt.Sprintf("It has %s.", count(k.Got, "item")), fmt.Sprintf("Give at least %d.", k.Want))
	case *kind.MaxItems:
		say(fmt.Sprintf("It has %s.", count(k.Got, "item")), fmt.Sprintf("Give at most %d.", k.Want))
	case *kind.AdditionalItems:
		say(fmt.Sprintf("%s too many.", count(k.Count, "item")), "Leave them out.")
	case *kind.UniqueItems:
		say(fmt.Sprintf("Items %d and %d are the same.", k.Duplicates[0], k.Duplicates[1]), "Give each once.")
	case *kind.MinProperties:
		say(fmt.Sprintf("It has %s.", count(k.Got, "field")), fmt.Sprintf("Give at least %d.", k.Want))
	case *kind.MaxProperties:
		say(fmt.Sprintf("It has %s.", count(k.Got, "field")), fmt.Sprintf("Give at most %d.", k.Want))
	case *kind.Minimum:
		say("It is too small.", "Use at least "+number(k.Want)+".")
	case *kind.Maximum:
		say("It is too large.", "Use at most "+number(k.Want)+".")
	case *kind.ExclusiveMinimum:
		say("It is too small.", "Use more than "+number(k.Want)+".")
	case *kind.ExclusiveMaximum:
		say("It is too large.", "Use less than "+number(k.Want)+".")
	case *kind.MultipleOf:
		say("It is no multiple of "+number(k.Want)+".", "Use one.")
	case *kind.AnyOf, *kind.OneOf:
		say("It is not of exactly the form, or one of the forms, that there are.", "Compare it with the dataset's schema; see GET /v1/datasets.")
	default:
		say("It does not match the schema.", "Compare it with the dataset's schema; see GET /v1/datasets.")
	}
}

// add notes a fault of the place that v names, or of a field there.
func (f *finder) add(v *jsonschema.ValidationError, field, wrong, mend string) {
	code := "schema"
	if path := v.ErrorKind.KeywordPath(); len(path) > 0 {
		code = path[0]
	}
	path := f.pointer(v.InstanceLocation)
	if field != "" {
		path += "/" + escape(field)
	}
	f.found = append(f.found, Fault{Path: clip(path), Code: code, Wrong: clip(wrong), Mend: clip(mend)})
}

// pointer writes a place of the record down: positions in lists, and names that the
// schema knows.
func (f *finder) pointer(at []string) string {
	var b strings.Builder
	here := f.doc
	for _, token := range at {
		b.WriteByte('/')
		switch v := here.(type) {
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(v) {
				return b.String() + "*"
			}
			here = v[i]
			b.WriteString(token)
			continue
		case map[string]any:
			here = v[token]
		default:
			here = nil
		}
		if f.known[token] {
			b.WriteString(escape(token))
		} else {
			b.WriteByte('*')
		}
	}
	return b.String()
}

// knownNames gives every name that a schema has a property for, at any depth.
func knownNames(schema string) map[string]bool {
	known := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			if p, ok := v["properties"].(map[string]any); ok {
				for name := range p {
					known[name] = true
				}
			}
			for _, x := range v {
				walk(x)
			}
		}
	}
	var doc any
	if json.Unmarshal([]byte(schema), &doc) == nil {
		walk(doc)
	}
	return known
}

// values lists what a schema allows.
func values(all []any) string {
	var words []string
	for _, v := range all {
		b, err := json.Marshal(v)
		if err != nil {
			continue
		}
		words = append(words, string(b))
	}
	return strings.Join(words, ", ")
}

func number(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	return strings.TrimRight(r.FloatString(9), "0")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func escape(token string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(token)
}

// maxFaultText bounds each text of a fault, in bytes.
const maxFaultText = 300

func clip(s string) string {
	if len(s) > maxFaultText {
		return strings.ToValidUTF8(s[:maxFaultText-3], "") + "..."
	}
	return s
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }
