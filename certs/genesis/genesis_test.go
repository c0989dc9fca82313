package genesis

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs"
)

var update = flag.Bool("update", false, "write testdata/genesis.json anew")

const golden = "testdata/genesis.json"

// goldenHash is what every configuration of that mesh would pin.
const goldenHash = "f6aa5ac79dd82195ea27788f1e82e48600747f1023b91300f53c48944a7b63df"

func key(seed byte) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
}

func gossipKey(t testing.TB, seed byte) certs.BoxPublicKey {
	k, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return certs.BoxPublicKey(k.PublicKey().Bytes())
}

// example is the mesh of the golden file.
func example(t testing.TB) *File {
	root, err := os.ReadFile("testdata/root.pem")
	if err != nil {
		t.Fatal(err)
	}
	return &File{
		Mesh:          "demo.example",
		Bounds:        DefaultBounds(),
		Operators:     Group{2, []ed25519.PublicKey{key(1), key(2), key(3)}},
		Committee:     Group{1, []ed25519.PublicKey{key(4)}},
		Recovery:      Group{2, []ed25519.PublicKey{key(5), key(6)}},
		RecoveryDelay: 7 * 24 * time.Hour,
		Members: []Member{
			{Institution: "national-register", Node: "n1", Name: "Registre national <RN & RR>", Type: "national-register",
				NumberSchemes: []string{"ssin"}, Address: "192.0.2.1:4433", PublicKey: key(11), GossipKey: gossipKey(t, 21)},
			{Institution: "health-college", Node: "n1", Name: "Collège intermutualiste", Type: "managing-body",
				Sector: "health-insurance", ManagingBody: true, Address: "health.example:4433", PublicKey: key(12), GossipKey: gossipKey(t, 22)},
			{Institution: "pension-office", Node: "n1", Name: "Pension office", Type: "pension-office",
				Address: "[2001:db8::1]:4433", PublicKey: key(13), GossipKey: gossipKey(t, 23)},
		},
		Bundle: string(root),
	}
}

func exampleBytes(t testing.TB) []byte {
	t.Helper()
	b, err := example(t).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden holds the file's form and hash still: a change of either is a new
// format.
func TestGolden(t *testing.T) {
	b := exampleBytes(t)
	if *update {
		if err := os.WriteFile(golden, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(b, want) {
		t.Fatalf("written otherwise than %s: %v\n%s", golden, err, b)
	}
	f, err := Load(golden, goldenHash)
	if err != nil {
		t.Fatal(err)
	}
	if f.Hash() != goldenHash {
		t.Errorf("hash %s", f.Hash())
	}
	again, err := f.Bytes()
	if err != nil || !bytes.Equal(again, want) {
		t.Errorf("came back otherwise: %v", err)
	}
	if f.Bounds != DefaultBounds() || f.RecoveryDelay != 7*24*time.Hour || len(f.Members) != 3 || f.Members[1].ID().String() != "health-college/n1" {
		t.Errorf("read otherwise: %+v", f)
	}
	if bundle, err := f.X509Bundle(); err != nil || bundle.TrustDomain().Name() != "demo.example" || len(bundle.X509Authorities()) != 1 {
		t.Errorf("bundle: %v", err)
	}
}

func TestLoadPins(t *testing.T) {
	if _, err := Load(golden, strings.ToUpper(goldenHash)); err != nil {
		t.Errorf("a hash in capitals: %v", err)
	}
	for _, pin := range []string{"", "00", strings.Repeat("0", 64), goldenHash[:63]} {
		_, err := Load(golden, pin)
		if !errors.Is(err, ErrOtherGenesis) || !strings.Contains(err.Error(), goldenHash) {
			t.Errorf("pinned %q: %v", pin, err)
		}
	}
	if _, err := Load("testdata/none.json", goldenHash); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	changed := filepath.Join(t.TempDir(), FileName)
	b := bytes.Replace(exampleBytes(t), []byte(`"threshold": 2`), []byte(`"threshold": 1`), 1)
	if err := os.WriteFile(changed, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(b); err != nil {
		t.Fatalf("the changed file is good in itself: %v", err)
	}
	if _, err := Load(changed, goldenHash); !errors.Is(err, ErrOtherGenesis) {
		t.Errorf("a changed file: %v", err)
	}
}

// TestParseNamesTheField changes one thing at a time in the golden file, and
// wants an error that says where.
func TestParseNamesTheField(t *testing.T) {
	good := string(exampleBytes(t))
	b64 := certs.EncodePublicKey
	for _, c := range []struct{ from, to, want string }{
		{`crossroads-genesis/1`, `crossroads-genesis/2`, `format: "crossroads-genesis/2"; this version reads`},
		{`"mesh": "demo.example"`, `"mesh": "Demo"`, "mesh: "},
		{`"mesh": "demo.example"`, `"mesh": 7`, "line 3: mesh: want"},
		{`"mesh"`, `"messh"`, `line 3: field "messh" is not known`},
		{`"mesh"`, `"Mesh"`, `line 3: want "  \"mesh\"`},
		{`"mesh": "demo.example",`, `"mesh": "demo.example", "mesh": "demo.example",`, "line 3: want"},
		{`"lease": "2s"`, `"lease": "two"`, `bounds.lease: "two"; want a duration like`},
		{`"lease": "2s"`, `"lease": 2`, "line 5: bounds.lease: want string"},
		{`"lease": "2s"`, `"lease": "2000ms"`, `line 5: want "    \"lease\": \"2s\"`},
		{`"lease": "2s"`, `"lease": "2h0m0s"`, "bounds.lease: 2h0m0s; want 100ms to 1m0s"},
		{`"lease": "2s"`, `"lease": "-2s"`, "bounds.lease: "},
		{`"lease": "2s"`, `"lease": "1.0000001s"`, "bounds.lease: 1.0000001s; want whole milliseconds"},
		{`"release_life": "5s"`, `"release_life": "1s"`, "bounds.release_life: 1s; want 2s to"},
		{`"skew": "1s"`, `"skew": "0s"`, "bounds.skew: "},
		{`"threshold": 2`, `"threshold": 0`, "operators.threshold: 0; want 1 to"},
		{`"threshold": 2`, `"threshold": 4`, "operators.threshold: 4; want 1 to"},
		{`"threshold": 1`, `"threshold": 2`, "committee.threshold: 2; want 1 to"},
		{`"threshold": 2`, `"threshold": 1.5`, "operators.threshold: want int"},
		{b64(key(2)), "x", "operators.keys[1]: "},
		{b64(key(2)), b64(make([]byte, 32)), "operators.keys[1]: "},
		{b64(key(2)), b64(key(1)), "operators.keys[1]: the same key as operators.keys[0]"},
		{b64(key(4)), b64(key(1)), "committee.keys[0]: the same key as operators.keys[0]"},
		{b64(key(12)), b64(key(1)), "members[1].public_key: the same key as operators.keys[0]"},
		{b64(key(2)) + `"`, b64(key(2)) + ` "`, "line 14: want"},
		{`"recovery_delay": "168h0m0s"`, `"recovery_delay": "0s"`, "recovery_delay: "},
		{`"institution": "health-college"`, `"institution": "Health"`, "members[1].institution: "},
		{`"institution": "health-college"`, `"institution": "pension-office"`, "members[2].institution: pension-office is there twice"},
		{`"node": "n1"`, `"node": ""`, "members[0].node: "},
		{`"name": "Pension office"`, `"name": " "`, "members[2].name: "},
		{`"name": "Pension office"`, `"name": "a\u0000b"`, "members[2].name: "},
		{`"name": "Pension office"`, "\"name\": \"a\xffb\"", "line "},
		{`"type": "pension-office"`, `"type": ""`, "members[2].type: "},
		{`"sector": "health-insurance",`, ``, "members[1].managing_body: it has no sector"},
		{`"ssin"`, `"SSIN"`, "members[0].number_schemes[0]: "},
		{`"ssin"`, `"ssin", "ssin"`, "members[0].number_schemes[1]: "},
		{`192.0.2.1:4433`, `192.0.2.1`, `members[0].address: "192.0.2.1"; want host:port`},
		{`192.0.2.1:4433`, `:4433`, "members[0].address: "},
		{`192.0.2.1:4433`, `192.0.2.1:0`, "members[0].address: "},
		{`192.0.2.1:4433`, `192.0.2.1:70000`, "members[0].address: "},
		{gossipKey(t, 22).String(), "x", "members[1].gossip_key: want an X25519"},
		{gossipKey(t, 22).String(), base64.StdEncoding.EncodeToString(make([]byte, 32)), "members[1].gossip_key: "},
		{gossipKey(t, 22).String(), gossipKey(t, 21).String(), "members[1].gossip_key: another member has the same"},
		{`-----BEGIN CERTIFICATE-----`, `-----BEGIN CERTIFICAT-----`, "bundle: "},
		{`"bundle": "`, `"bundle": "\n`, "bundle: want each root once"},
		{"\n}\n", "\n}", "has 67 lines, want 68"},
		{"\n}\n", "\n}\n\n", "want"},
		{"\n}\n", "\n}{}\n", "want"},
		{"\n}\n", "\n", "ends too early"},
		{"\n", "\r\n", "line 1: want"},
		{`  "mesh"`, `	"mesh"`, "line 3: want"},
		{`"mesh": "demo.example",`, `"mesh": demo,`, "line 3: not JSON"},
	} {
		bad := strings.Replace(good, c.from, c.to, 1)
		if bad == good {
			t.Fatalf("%q is not in the file", c.from)
		}
		_, err := Parse([]byte(bad))
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q:\n got %v\nwant %s", c.to, c.from, err, c.want)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%q: an error of %d bytes", c.to, len(err.Error()))
		}
	}
}

func TestParseBoundsItsInput(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing": nil, "null": []byte("null\n"), "array": []byte("[]\n"), "empty": []byte("{}\n"),
		"too large": bytes.Repeat([]byte(" "), MaxSize+1), "deep": bytes.Repeat([]byte("["), MaxSize),
	} {
		if _, err := Parse(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateCounts(t *testing.T) {
	many := func(n int) (keys []ed25519.PublicKey) {
		for i := range n {
			keys = append(keys, key(byte(100+i)))
		}
		return keys
	}
	for want, change := range map[string]func(*File){
		"operators.keys: 0 keys":    func(f *File) { f.Operators = Group{} },
		"committee.keys: 33 keys":   func(f *File) { f.Committee = Group{1, many(33)} },
		"members: 0 members":        func(f *File) { f.Members = nil },
		"members: 32 members":       func(f *File) { f.Members = make([]Member, 32) },
		"bundle: 0 certificates":    func(f *File) { f.Bundle = "" },
		"recovery.threshold: -1":    func(f *File) { f.Recovery.Threshold = -1 },
		"recovery_delay: 8784h0m0s": func(f *File) { f.RecoveryDelay = 366 * 24 * time.Hour },
	} {
		f := example(t)
		change(f)
		if err := f.Validate(); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if _, err := f.Bytes(); err == nil {
			t.Errorf("%s: written all the same", want)
		}
	}
}

// FuzzParse wants every file that is read to be written as it was read.
func FuzzParse(f *testing.F) {
	b := exampleBytes(f)
	f.Add(b)
	f.Add([]byte("{}"))
	f.Add(bytes.ReplaceAll(b, []byte("2s"), []byte("2000ms")))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		file.raw = nil
		if again, err := file.Bytes(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("came back otherwise: %v", err)
		}
	})
}
