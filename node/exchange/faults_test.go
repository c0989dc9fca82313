package exchange

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const declared = `{"type":"object","properties":{
	"number":{"type":"string","pattern":"^[0-9]{9}$"},"kind":{"enum":["blue","white"]},"start":{"type":"string","minLength":10},"pay":{"type":"number","minimum":0},
	"spells":{"type":"array","maxItems":3,"items":{"type":"object","properties":{"days":{"type":"integer","maximum":366}},"required":["days"],"additionalProperties":false}},
	"a/b":{"type":["string","null"]}},
	"required":["number","kind","start"],"additionalProperties":false}`

// Every place that fails is told, with what to do; what the record holds is not.
func TestFaults(t *testing.T) {
	const ssin = "74071238186"
	for name, tt := range map[string]struct {
		record string
		want   []string // path code
	}{
		"good":            {`{"number":"123456789","kind":"blue","start":"2026-01-04","spells":[{"days":3}],"a/b":null}`, nil},
		"all at once":     {`{"number":"` + ssin + `","kind":"` + ssin + `","pay":-1,"spells":[{"days":3},{"days":400},{}]}`, []string{"/kind enum", "/number pattern", "/pay minimum", "/spells/1/days maximum", "/spells/2/days required", "/start required"}},
		"types":           {`{"number":` + ssin + `,"kind":"blue","start":"short","a/b":1}`, []string{"/a~1b type", "/number type", "/start minLength"}},
		"unknown names":   {`{"number":"123456789","kind":"blue","start":"2026-01-04","` + ssin + `":1,"s` + ssin + `":2}`, []string{" additionalProperties"}},
		"unknown below":   {`{"number":"123456789","kind":"blue","start":"2026-01-04","spells":[{"days":1,"` + ssin + `":1}]}`, []string{"/spells/0 additionalProperties"}},
		"not a record":    {`["` + ssin + `"]`, []string{" form"}},
		"twice":           {`{"number":"` + ssin + `","number":"1"}`, []string{" form"}},
		"not even JSON":   {`{"number":` + ssin, []string{" form"}},
		"nothing at all":  {``, []string{" form"}},
		"beyond the most": {`{"number":"123456789","kind":"blue","start":"2026-01-04","spells":[{},{},{},{}]}`, []string{"/spells maxItems", "/spells/0/days required", "/spells/1/days required", "/spells/2/days required", "/spells/3/days required"}},
	} {
		t.Run(name, func(t *testing.T) {
			var v Validator
			faults, total, err := v.Faults("d/v1", declared, Record(tt.record))
			if err != nil || total != len(tt.want) {
				t.Fatalf("%d faults, %v: %+v", total, err, faults)
			}
			var got []string
			for _, f := range faults {
				got = append(got, f.Path+" "+f.Code)
				if f.Wrong == "" || f.Mend == "" || strings.Contains(fmt.Sprint(f), ssin[:9]) {
					t.Errorf("%+v", f)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	var v Validator
	if _, _, err := v.Faults("d/v1", `{"type":"nonsense"}`, Record(`{}`)); err == nil {
		t.Error("a schema that is none finds nothing wrong")
	}
}

// A name that only an open schema lets in is not repeated in a path.
func TestFaultsOfOpenSchema(t *testing.T) {
	const open = `{"type":"object","properties":{"known":{}},"additionalProperties":{"type":"object","properties":{"x":{"type":"integer"}}}}`
	var v Validator
	faults, _, err := v.Faults("d/v1", open, Record(`{"74071238186":{"x":"no"}}`))
	if err != nil || len(faults) != 1 || faults[0].Path != "/*/x" {
		t.Errorf("%+v %v", faults, err)
	}
}

// However many fail, a bounded number is told, and how many they are.
func TestFaultsAreBounded(t *testing.T) {
	many := `{"type":"object","properties":{"l":{"type":"array","items":{"type":"string"}}}}`
	var v Validator
	faults, total, err := v.Faults("d/v1", many, Record(`{"l":[`+strings.TrimSuffix(strings.Repeat("1,", 20_000), ",")+`]}`))
	if err != nil || total != 20_000 || len(faults) != MaxFaults {
		t.Errorf("%d of %d: %v", len(faults), total, err)
	}
	long := fmt.Sprintf(`{"type":"object","properties":{"l":{"enum":[%q]}}}`, strings.Repeat("é", 9_000))
	faults, _, err = v.Faults("d/v1", long, Record(`{"l":1}`))
	if err != nil || len(faults) != 1 || len(faults[0].Mend) > maxFaultText {
		t.Errorf("%+v %v", faults, err)
	}
}

// It finds something exactly when Check refuses, and mending what it names mends all.
func TestFaultsAgreeWithCheck(t *testing.T) {
	good := map[string]any{"number": "123456789", "kind": "blue", "start": "2026-01-04", "pay": 1.5, "spells": []any{}, "a/b": nil}
	var v Validator
	rapid.Check(t, func(t *rapid.T) {
		record := map[string]any{}
		for name, value := range good {
			switch rapid.IntRange(0, 3).Draw(t, name) {
			case 0: // left out
			case 1:
				record[name] = rapid.SampledFrom([]any{nil, "74071238186", 74071238186, true, []any{map[string]any{"days": 74071238186}}, map[string]any{"74071238186": 1}}).Draw(t, name+" is")
			default:
				record[name] = value
			}
		}
		raw, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		faults, total, err := v.Faults("d/v1", declared, raw)
		if refused := v.Check("d/v1", declared, raw) != nil; err != nil || refused != (total > 0) || total != len(faults) {
			t.Fatalf("%s: %d faults, refused %v: %v", raw, total, refused, err)
		}
		if strings.Contains(fmt.Sprint(faults), "74071238186") {
			t.Fatalf("a number is told: %+v", faults)
		}
		for _, f := range faults {
			field := strings.ReplaceAll(strings.SplitN(strings.TrimPrefix(f.Path, "/"), "/", 2)[0], "~1", "/")
			if field == "" {
				t.Fatalf("%s: %+v", raw, f)
			}
			record[field] = good[field]
		}
		if raw, err = json.Marshal(record); err != nil || v.Check("d/v1", declared, raw) != nil {
			t.Fatalf("%s is not mended by %+v", raw, faults)
		}
	})
}

// FuzzFaults gives it whatever bytes: it tells little, and agrees with Check.
func FuzzFaults(f *testing.F) {
	f.Add([]byte(`{"number":1,"spells":[{"days":"x"}]}`))
	f.Add([]byte(`{"a/b":{"~":[]},"":{}}`))
	var v Validator
	f.Fuzz(func(t *testing.T, raw []byte) {
		faults, total, err := v.Faults("d/v1", declared, raw)
		if len(raw) > maxSourceBytes {
			return
		}
		if refused := v.Check("d/v1", declared, raw) != nil; err != nil || refused != (total > 0) || len(faults) > MaxFaults {
			t.Errorf("%d faults, refused %v: %v", total, refused, err)
		}
		for _, f := range faults {
			if len(f.Path) > maxFaultText || len(f.Wrong) > maxFaultText || len(f.Mend) > maxFaultText {
				t.Errorf("%+v", f)
			}
		}
	})
}
