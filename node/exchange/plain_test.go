package exchange

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

// plainSchema has every keyword that a plain form knows.
const plainSchema = `{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"t","type":"object","properties":{
	"whole":{"type":"integer","minimum":-3,"maximum":92},"amount":{"type":"number","minimum":0,"maximum":10},
	"code":{"type":"string","pattern":"^[0-9]{3}$","description":"d"},"word":{"type":"string","enum":["one","two"]},
	"end":{"type":["string","null"],"format":"date"},"flag":{"type":"boolean"},"name":{"type":"string","minLength":1,"maxLength":4},
	"either":{"enum":["x",null]},"free":{}},
	"required":["whole","code"],"additionalProperties":false}`

func compiledOf(t testing.TB, text string) compiledSchema {
	t.Helper()
	c, err := new(schemas).get("d/v1", text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func matches(c compiledSchema, r Record) bool {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(r))
	return err == nil && c.schema.Validate(doc) == nil
}

// TestPlainIsTheSchema: what the plain form accepts, the schema does.
func TestPlainIsTheSchema(t *testing.T) {
	strict := compiledOf(t, plainSchema)
	open := compiledOf(t, `{"type":"object","properties":{"whole":{"type":"integer"},"code":{"type":"string","maxLength":3}}}`)
	if strict.plain == nil || open.plain == nil {
		t.Fatal("no plain form")
	}
	values := rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.Int64().Draw(t, "int")) }),
		rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.IntRange(-5, 100).Draw(t, "small")) }),
		rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.Float64Range(-11, 11).Draw(t, "float")) }),
		rapid.SampledFrom([]string{
			"0", "-0", "1.0", "10", "10.0", "10.5", "9.99", "-0.5", "1e1", "92", "93", "-3", "-4", "123456789012345678901", "9223372036854775808",
			`"123"`, `"12"`, `"1234"`, `"\u0031\u0032\u0033"`, `"one"`, `"three"`, `"o\u006ee"`, `""`, `"éééé"`, `"😀😀😀😀😀"`,
			`"x"`, `"2020-01-01"`, "null", "true", "false", "[]", "{}", `[1]`, `{"a":"b"}`,
		}),
	)
	names := []string{"whole", "code", "amount", "word", "end", "flag", "name", "either", "free", "other", "who\\u006ce"}
	accepted, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var r []byte
		for i, n := range names {
			if i < 2 && rapid.IntRange(0, 9).Draw(t, "left out") == 0 || i >= 2 && rapid.IntRange(0, 3).Draw(t, "there") > 0 {
				continue
			}
			v := values.Draw(t, n)
			if i == 0 && rapid.Bool().Draw(t, "good") {
				v = "7"
			}
			if i == 1 && rapid.Bool().Draw(t, "good") {
				v = `"123"`
			}
			r = fmt.Appendf(r, `,"%s": %s`, n, v)
		}
		if len(r) == 0 {
			r = []byte(",")
		}
		r = append(append([]byte{'{'}, r[1:]...), '}')
		for _, c := range []compiledSchema{strict, open} {
			switch {
			case !c.plain.accepts(r):
				refused++
			case !matches(c, r):
				t.Fatalf("accepted, against the schema: %s", r)
			default:
				accepted++
			}
		}
	})
	if accepted == 0 || refused == 0 {
		t.Fatalf("%d accepted, %d not: says nothing", accepted, refused)
	}
}

// TestPlainTakesTheUsual: what sources send is not read twice.
func TestPlainTakesTheUsual(t *testing.T) {
	c := compiledOf(t, plainSchema)
	for _, r := range []string{
		`{"whole":92,"code":"123"}`,
		`{"whole":-3,"code":"000","amount":9.99,"word":"two","end":null,"flag":false,"name":"éééé","either":null,"free":"y"}`,
		` { "code" : "123" , "whole" : 0 , "end" : "2020-01-01" , "amount": 10, "either": "x", "free": 3 } `,
	} {
		if !c.plain.accepts(Record(r)) {
			t.Errorf("not accepted: %s", r)
		}
	}
}

// TestNotPlain: a schema that asks for more than a plain form can say has none.
func TestNotPlain(t *testing.T) {
	for _, text := range []string{
		`true`, `{}`, `{"type":["object","null"]}`, `{"type":"object","minProperties":1}`, `{"type":"object","additionalProperties":{"type":"string"}}`,
		`{"type":"object","required":["a"]}`, `{"type":"object","patternProperties":{"^a":{"type":"string"}}}`, `{"type":"object","not":{"required":["a"]}}`,
		`{"type":"object","properties":{"a":{"type":"string","contentEncoding":"base64","not":{}}}}`, `{"type":"object","properties":{"a":{"multipleOf":2}}}`,
		`{"type":"object","properties":{"a":{"minimum":0.5}}}`, `{"type":"object","properties":{"a":{"exclusiveMinimum":1}}}`,
		`{"type":"object","properties":{"a":{"const":1}}}`, `{"type":"object","properties":{"a":{"enum":[1]}}}`, `{"type":"object","properties":{"a":{"maximum":1e30}}}`,
		`{"type":"object","properties":{"a":{"items":{"type":"string"}}}}`, `{"type":"object","properties":{"a":{"properties":{"b":{}}}}}`, `{"type":"object","properties":{"a":false}}`,
		`{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"type":"string"}}}`, `{"type":"object","unevaluatedProperties":false}`, `{"type":"object","dependentRequired":{"a":["b"]}}`,
	} {
		if compiledOf(t, text).plain != nil {
			t.Errorf("has a plain form: %s", text)
		}
	}
}

func FuzzPlain(f *testing.F) {
	c := compiledOf(f, plainSchema)
	f.Add([]byte(`{"whole":92,"code":"123","amount":9.99,"word":"two","end":null}`))
	f.Fuzz(func(t *testing.T, r []byte) {
		if c.plain.accepts(r) && !matches(c, r) {
			t.Fatalf("accepted, against the schema: %q", r)
		}
	})
}

func BenchmarkSchema(b *testing.B) {
	var s schemas
	r := []Record{Record(`{"whole":92,"code":"123","amount":9.99,"word":"two","end":null,"flag":true}`)}
	for name, schema := range map[string]string{"plain": plainSchema, "not": plainSchema[:len(plainSchema)-1] + `,"minProperties":1}`} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := s.check("d/v1", schema, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
