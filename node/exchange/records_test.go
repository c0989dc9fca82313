package exchange

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

func TestFilterKeepsBytes(t *testing.T) {
	in := []Record{
		Record(` { "wage" : 1.50e+3 , "name":"a\u00e9\/b<&>", "nested": { "b" : [ 1,  2 ], "a":null}, "secret":"x" } `),
		Record(`{"secret":{"wage":1}}`),
		Record(`{"\u0077age":0.1000}`),
	}
	got, err := filter(in, []names.FieldName{"wage", "nested", "name"})
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"wage":1.50e+3,"name":"a\u00e9\/b<&>","nested":{ "b" : [ 1,  2 ], "a":null}},{},{"wage":0.1000}]`
	if string(got) != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	if n, err := checkContent(got, []names.FieldName{"wage", "nested", "name"}); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := checkContent(got, []names.FieldName{"wage", "nested"}); !errors.Is(err, errRecord) {
		t.Fatalf("a field that is not permitted passed: %v", err)
	}
}

func TestCheckRecord(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for _, good := range []string{`{}`, `{"a":1}`, ` {"a":{"a":[{"a":1},{"a":2}]}} `, `{"a":"}{\"]["}`, deep(MaxDepth)} {
		if err := checkRecord(Record(good)); err != nil {
			t.Errorf("%.60s: %v", good, err)
		}
	}
	for _, bad := range []string{
		``, ` `, `null`, `1`, `"a"`, `[]`, `[{}]`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}{"a":1}`, `{"a":1} x`, `{a:1}`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"x":{"a":1,"a":2}}`, `{"x":[{"a":1,"a":1}]}`, `{"a":NaN}`, `{"a":01}`,
		"{\"a\":\"\xff\"}", "{\"a\":\"\n\"}", deep(MaxDepth + 1), `{"a":` + strings.Repeat("[", 100000), strings.Repeat(`{"a":`, 100000),
	} {
		if err := checkRecord(Record(bad)); !errors.Is(err, errRecord) {
			t.Errorf("%.60q passed: %v", bad, err)
		}
	}
	if err := checkRecords(make([]Record, MaxRecords+1)); !errors.Is(err, errRecord) {
		t.Errorf("too many records: %v", err)
	}
	big := Record(`{"a":"` + strings.Repeat("x", MaxContent) + `"}`)
	if _, err := filter([]Record{big}, []names.FieldName{"a"}); !errors.Is(err, errRecord) {
		t.Errorf("content too large: %v", err)
	}
	if err := checkRecords(slices.Repeat([]Record{big}, 9)); !errors.Is(err, errRecord) {
		t.Errorf("records too large: %v", err)
	}
}

// field draws a field and a value as sloppily spaced as a source may write them.
func drawValue(r *rapid.T, depth int) string {
	space := rapid.SampledFrom([]string{"", " ", "\n\t"})
	kind := rapid.IntRange(0, 5).Draw(r, "kind")
	if depth == 0 {
		kind %= 4
	}
	switch kind {
	case 0:
		return rapid.SampledFrom([]string{"0", "-1", "1.50", "1e-7", "123456789012345678901234567890.10", "null", "true"}).Draw(r, "atom")
	case 1:
		b, _ := json.Marshal(rapid.String().Draw(r, "string"))
		return string(b)
	case 2:
		return rapid.SampledFrom([]string{`"\u0041"`, `"\ud83d\ude00"`, `"<&>"`, `"\/"`, `"} , {"`}).Draw(r, "escape")
	case 3:
		return "{" + space.Draw(r, "space") + "}"
	case 4:
		var parts []string
		for range rapid.IntRange(0, 3).Draw(r, "length") {
			parts = append(parts, space.Draw(r, "space")+drawValue(r, depth-1))
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	var parts []string
	for _, k := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "secret", "é"}), rapid.ID[string]).Draw(r, "keys") {
		parts = append(parts, fmt.Sprintf("%s%q:%s", space.Draw(r, "space"), k, drawValue(r, depth-1)))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// TestFilterProperty: nothing outside the permitted fields leaves, every permitted
// value leaves with its own bytes, and what one side makes the other accepts.
func TestFilterProperty(t *testing.T) {
	all := []string{"a", "b", "c", "A", "secret", "a_b"}
	rapid.Check(t, func(r *rapid.T) {
		distinct := rapid.SliceOfDistinct(rapid.SampledFrom(all), rapid.ID[string])
		permitted := named[names.FieldName](distinct.Draw(r, "permitted"))
		var records []Record
		var want []map[string]string
		for range rapid.IntRange(0, 4).Draw(r, "records") {
			var parts []string
			expect := map[string]string{}
			for _, k := range distinct.Draw(r, "fields") {
				v := drawValue(r, 3)
				name := fmt.Sprintf("%q", k)
				if k == "a" && rapid.Bool().Draw(r, "escaped") {
					name = `"\u0061"`
				}
				parts = append(parts, fmt.Sprintf(" %s : %s ", name, v))
				if slices.Contains(permitted, names.FieldName(k)) {
					expect[k] = v
				}
			}
			records = append(records, Record("{"+strings.Join(parts, ",")+"}"))
			want = append(want, expect)
		}
		if err := checkRecords(records); err != nil {
			r.Fatal(err)
		}
		content, err := filter(records, permitted)
		if err != nil {
			r.Fatal(err)
		}
		if n, err := checkContent(content, permitted); n != len(records) || err != nil {
			r.Fatalf("%d, %v: %s", n, err, content)
		}
		var got []map[string]json.RawMessage
		if err := json.Unmarshal(content, &got); err != nil || len(got) != len(want) {
			r.Fatal(err, len(got))
		}
		for i := range want {
			if len(got[i]) != len(want[i]) {
				r.Fatalf("record %d: %s, want %v", i, content, want[i])
			}
			for k, v := range want[i] {
				if string(got[i][k]) != v {
					r.Fatalf("field %s: %s, want %s", k, got[i][k], v)
				}
			}
		}
	})
}

func FuzzContent(f *testing.F) {
	f.Add([]byte(`[{"a":1},{"a":[{"b":2}]}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"a":1,"a":2}]`))
	permitted := []names.FieldName{"a"}
	f.Fuzz(func(t *testing.T, content []byte) {
		n, err := checkContent(content, permitted)
		if err != nil {
			return
		}
		var records []Record
		if err := json.Unmarshal(content, &records); err != nil || len(records) != n {
			t.Fatalf("accepted what is no array of %d: %v", n, err)
		}
		again, err := filter(records, permitted)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := checkContent(again, permitted); m != n || err != nil {
			t.Fatalf("filtering again: %d, %v", m, err)
		}
		var got []map[string]json.RawMessage
		_ = json.Unmarshal(again, &got)
		for _, g := range got {
			for k := range g {
				if k != "a" {
					t.Fatalf("field %q was accepted", k)
				}
			}
		}
	})
}

func TestSchemas(t *testing.T) {
	const schema = `{"type":"object","properties":{"wage":{"type":"number","minimum":0},"from":{"type":"string"}},"required":["wage"],"additionalProperties":false}`
	var s schemas
	if err := s.check("wages/v1", schema, []Record{Record(`{"wage":1.5}`), Record(`{"wage":0,"from":"x"}`)}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{`{}`, `{"wage":"74071238186"}`, `{"wage":-74071238186}`, `{"wage":1,"74071238186":2}`} {
		err := s.check("wages/v1", schema, []Record{Record(bad)})
		if !errors.Is(err, errSchema) {
			t.Errorf("%s: %v", bad, err)
		} else if strings.Contains(err.Error(), "7407") {
			t.Errorf("the error repeats the record: %v", err)
		}
	}
	first := s.compiled["wages/v1"].schema
	if err := s.check("wages/v1", schema, nil); err != nil || s.compiled["wages/v1"].schema != first {
		t.Error("compiled again")
	}
	if err := s.check("wages/v1", `{"type":"object","required":["x"]}`, []Record{Record(`{"wage":1}`)}); !errors.Is(err, errSchema) {
		t.Errorf("a changed schema is not used: %v", err)
	}
	for _, ref := range []string{"http://127.0.0.1:1/x.json", "file:///etc/passwd", "other.json"} {
		if err := s.check("x/v1", `{"$ref":"`+ref+`"}`, []Record{Record(`{}`)}); !errors.Is(err, errSchema) {
			t.Errorf("reference to %s was followed: %v", ref, err)
		}
	}
	if err := s.check("x/v1", `{"type":`, nil); !errors.Is(err, errSchema) {
		t.Error(err)
	}
	if err := s.check("big/v1", `{"properties":{"n":{"const":12345678901234567890}}}`, []Record{Record(`{"n":12345678901234567891}`)}); !errors.Is(err, errSchema) {
		t.Errorf("numbers are rounded: %v", err)
	}
}
