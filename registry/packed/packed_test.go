package packed

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func TestRoundTrip(t *testing.T) {
	for name, numbers := range map[string][]string{
		"ssin": {"74071238186", "03022814690", "00000000000", "99999999999"}, "one": {"7"}, "eighteen": {"999999999999999999", "000000000000000001"},
		"text": {"AB-1", "C"}, "mixed": {"12", "123"},
	} {
		s := Of("ssin", numbers)
		if err := CheckForm(s, len(numbers)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for i, n := range All(s) {
			got = append(got, n)
			if at := Find(s, subject.Raw("ssin", n)); at != i {
				t.Errorf("%s: %d found at %d", name, i, at)
			}
		}
		if !slices.Equal(got, numbers) || Find(s, subject.Raw("cbe", numbers[0])) != -1 || Find(s, subject.Raw("ssin", "")) != -1 {
			t.Errorf("%s: got %v", name, got)
		}
		if CheckForm(s, len(numbers)-1) == nil {
			t.Errorf("%s: more than allowed", name)
		}
	}
	if s := Of("ssin", []string{"74071238186"}); len(s.Numbers) != 5 || Check(s, subject.Belgian(), 1) != nil {
		t.Error("an SSIN takes 5 bytes")
	}
	if Check(Of("ssin", []string{"74071238187"}), subject.Belgian(), 1) == nil {
		t.Error("wrong check digits")
	}
}

// What could be written in two ways, or stands beyond what its digits say, is refused.
func TestOneForm(t *testing.T) {
	for name, s := range map[string]*registrypb.Subjects{
		"none": nil, "empty": {Scheme: "ssin"}, "both": {Digits: 2, Numbers: []byte{1}, Others: []string{"a"}},
		"half a number": {Digits: 11, Numbers: make([]byte, 6)}, "too large": {Digits: 2, Numbers: []byte{100}},
		"unpacked": {Others: []string{"12", "13"}}, "an empty one": {Others: []string{"", "a"}}, "digits": {Digits: 19, Numbers: make([]byte, 9)},
	} {
		if CheckForm(s, 10) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzCheck(f *testing.F) {
	raw, _ := proto.Marshal(Of("ssin", []string{"74071238186", "03022814690"}))
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := new(registrypb.Subjects)
		if proto.Unmarshal(raw, s) != nil || CheckForm(s, 100) != nil {
			return
		}
		var all []string
		for _, n := range All(s) {
			all = append(all, n)
		}
		if again := Of(subject.Scheme(s.Scheme), all); !proto.Equal(again, &registrypb.Subjects{Scheme: s.Scheme, Digits: s.Digits, Numbers: s.Numbers, Others: s.Others}) {
			t.Fatal("two forms of the same")
		}
	})
}
