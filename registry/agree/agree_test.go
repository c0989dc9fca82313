package agree

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/statehash"
)

func member(i int) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(fmt.Sprintf("m%d", i)), Node: "a"}
}

func key(n names.NodeID) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(n.String()))
	return ed25519.NewKeyFromSeed(seed[:])
}

func root(s string) statehash.Root { return sha256.Sum256([]byte(s)) }

func TestOpenRefusesWhatIsNotTheMembers(t *testing.T) {
	s := State{Member: member(1), Index: 9, Root: root("a"), Public: root("b"), Command: CommandHash(root("c")), CommandIndex: 7, RemovesRight: true}
	raw, err := Sign("mesh.example", s, key(member(1)))
	if err != nil {
		t.Fatal(err)
	}
	pub := func(i int) []ed25519.PublicKey {
		return []ed25519.PublicKey{key(member(i)).Public().(ed25519.PublicKey)}
	}
	got, err := Open("mesh.example", member(1), pub(1), raw)
	if err != nil {
		t.Fatal(err)
	}
	if s.Raw = got.Raw; fmt.Sprint(got) != fmt.Sprint(s) {
		t.Errorf("%+v, want %+v", got, s)
	}
	for name, open := range map[string]func() error{
		"another mesh":   func() error { _, err := Open("other.example", member(1), pub(1), raw); return err },
		"another member": func() error { _, err := Open("mesh.example", member(2), pub(2), raw); return err },
		"another key":    func() error { _, err := Open("mesh.example", member(1), pub(2), raw); return err },
		"changed": func() error {
			raw[40] ^= 1
			defer func() { raw[40] ^= 1 }()
			_, err := Open("mesh.example", member(1), pub(1), raw)
			return err
		},
		"long": func() error { _, err := Open("mesh.example", member(1), pub(1), make([]byte, MaxState+1)); return err },
		"command after index": func() error {
			later := s
			later.CommandIndex = 10
			raw, _ := Sign("mesh.example", later, key(member(1)))
			_, err := Open("mesh.example", member(1), pub(1), raw)
			return err
		},
	} {
		if err := open(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMajorityIsOfHonestMembers: whatever fewer than half of the members sign, twice and
// in any order, a tally gives only what an honest member signed too.
func TestMajorityIsOfHonestMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		voters := rapid.SampledFrom([]int{1, 3, 4, 5, 7}).Draw(t, "voters")
		liars := rapid.IntRange(0, (voters-1)/2).Draw(t, "liars")
		tally := NewTally(voters)
		for range rapid.IntRange(0, 60).Draw(t, "answers") {
			i := rapid.IntRange(0, voters-1).Draw(t, "member")
			s := State{Member: member(i), Index: uint64(rapid.IntRange(1, 3).Draw(t, "index"))}
			s.Root = root(fmt.Sprint("true", s.Index))
			if i < liars {
				s.Root = root(rapid.SampledFrom([]string{"x", "y", "true1", "true2"}).Draw(t, "root"))
			}
			tally.Add(s)
		}
		agreed := tally.Majority()
		if agreed == nil {
			return
		}
		if len(agreed) <= voters/2 {
			t.Fatalf("%d of %d are no majority", len(agreed), voters)
		}
		for _, s := range agreed {
			if s.Root != root(fmt.Sprint("true", s.Index)) {
				t.Fatalf("agreed on a lie: %+v", s)
			}
		}
		for m := range tally.Liars() {
			if m.Institution >= names.InstitutionID(fmt.Sprintf("m%d", liars)) {
				t.Fatalf("%s told no lie", m)
			}
		}
	})
}

// TestMajorityWaits until enough members say the same, and gives up with its context, and
// then tells who said what.
func TestMajorityWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		voters := []names.NodeID{member(0), member(1), member(2)}
		start := time.Now()
		ask := func(ctx context.Context, m names.NodeID) ([]State, error) {
			switch m {
			case member(0): // the one that lies
				return []State{{Member: m, Index: 5, Root: root("forged")}}, nil
			case member(1):
				return []State{{Member: m, Index: 5, Root: root("true")}}, nil
			}
			if time.Since(start) < time.Minute {
				return nil, errors.New("unreachable")
			}
			return []State{{Member: m, Index: 5, Root: root("true")}}, nil
		}
		any := func(State) bool { return true }
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := Majority(ctx, voters, ask, any); !errors.Is(err, ErrNoMajority) {
			t.Error(err)
		} else {
			t.Log(err)
		}
		agreed, err := Majority(t.Context(), voters, ask, any)
		if err != nil || len(agreed) != 2 || agreed[0].Root != root("true") || time.Since(start) > 62*time.Second {
			t.Error(agreed, err, time.Since(start))
		}
	})
}

func FuzzRead(f *testing.F) {
	raw, err := Sign("mesh.example", State{Member: member(1), Index: 9}, key(member(1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, _, err := Read("mesh.example", b)
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
		if err == nil && (s.Member.Validate() != nil || s.CommandIndex > s.Index) {
			t.Fatalf("%+v", s)
		}
	})
}
