package lines

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, in string, f Format) (all []Line) {
	t.Helper()
	r, err := NewReader(strings.NewReader(in), f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		l, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
}

func TestForms(t *testing.T) {
	bad := Line{Bad: true}
	for name, c := range map[string]struct {
		in   string
		f    Format
		want []Line
	}{
		"csv": {"\xef\xbb\xbfid,Number\r\n a ,74.07.12-381.86\n\"b,1\",x\nc\n\nd,\"unclosed\ne,7\n", Format{Form: CSV, Reference: "id"},
			[]Line{{"74.07.12-381.86", "a", false}, {"x", "b,1", false}, bad, bad, bad, {"7", "e", false}}},
		"csv by place": {"7;r\n8;s", Format{Form: CSV, Number: "1", Reference: "2", Separator: ';'}, []Line{{"7", "r", false}, {"8", "s", false}}},
		"jsonl": {`{"number":"74","ref":"r"}` + "\n" + `{"number":74071238186}` + "\n{}\n[1]\n" + `{"number":1.5}` + "\n" + `{"number":null}`, Format{Form: JSONL, Reference: "ref"},
			[]Line{{"74", "r", false}, {"74071238186", "", false}, bad, bad, bad, bad}},
		"fixed":        {"74071238186abc\n7407123818\n74071238186\n", Format{Form: Fixed, Number: "1-11", Reference: "12-14"}, []Line{{"74071238186", "abc", false}, bad, {"74071238186", "", false}}},
		"fixed length": {"11a22b3\n", Format{Form: Fixed, Number: "1-2", Reference: "3-3", Length: 3}, []Line{{"11", "a", false}, {"22", "b", false}, bad}},
		"too long":     {"number\n" + strings.Repeat("9", MaxLine+5) + "\n7\n" + strings.Repeat("8", MaxNumber+1), Format{Form: CSV}, []Line{bad, {"7", "", false}, bad}},
		"control":      {"number,r\n7,a\tb\n8,\xff\n", Format{Form: CSV, Reference: "r"}, []Line{bad, bad}},
	} {
		if got := read(t, c.in, c.f); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestBadDescriptions(t *testing.T) {
	for name, c := range map[string]struct {
		in string
		f  Format
	}{
		"no form": {"", Format{}}, "no header": {"", Format{Form: CSV}}, "no such column": {"a,b\n", Format{Form: CSV}},
		"half by place": {"1,2\n", Format{Form: CSV, Number: "1", Reference: "b"}}, "separator": {"number\n", Format{Form: CSV, Separator: '"'}},
		"no columns": {"x", Format{Form: Fixed}}, "turned round": {"x", Format{Form: Fixed, Number: "5-2"}}, "beyond": {"x", Format{Form: Fixed, Number: "1-9", Length: 5}},
	} {
		if _, err := NewReader(strings.NewReader(c.in), c.f); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, form := range []string{"csv", "jsonl", "fixed"} {
		f.Add("number,ref\n74071238186,a\n\"x\"\n", form, "number", "", 0)
		f.Add("74071238186abc\n", form, "1-11", "12-14", 3)
	}
	f.Fuzz(func(t *testing.T, in, form, number, reference string, length int) {
		r, err := NewReader(strings.NewReader(in), Format{Form: Form(form), Number: number, Reference: reference, Length: length})
		if err != nil {
			return
		}
		for n := 0; ; n++ {
			l, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil || n > len(in)+1 {
				t.Fatalf("line %d of %d bytes: %v", n, len(in), err)
			}
			if l.Bad && (l.Number != "" || l.Reference != "") || len(l.Number) > MaxNumber || len(l.Reference) > MaxReference {
				t.Fatal("beyond the limits")
			}
		}
	})
}
