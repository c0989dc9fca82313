package receipt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/trace"
	"github.com/crossroads-mesh/crossroads/registry/checkpoint"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const number = "74071238186"

var (
	start = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	self  = names.NodeID{Institution: "pcsa", Node: "n1"}
)

// scene is a consultation of pcsa at nsso, cleared by the member rrn.
type scene struct {
	t        testing.TB
	genesis  *genesis.File
	history  history
	ticket   names.Ticket
	blinding []byte
	content  string
	entries  []*nodepb.StoredEntry
	// what is signed, to be changed before seal
	request   *registrypb.Request
	clearance *registrypb.Clearance
	answer    *nodepb.Answer
	clearer   string // whose key signs the clearance
	unlogged  bool
	witnesses []string
}

type history [][]byte

func (h history) Commands(_ uint64, fn func(uint64, []byte) error) error {
	for i, raw := range h {
		if err := fn(uint64(i+1), raw); err != nil {
			return err
		}
	}
	return nil
}

func newScene(t testing.TB) *scene {
	w := recordtest.New(t, "rrn", "neo", "fin")
	g := &genesis.File{Mesh: recordtest.Mesh}
	for _, x := range []struct {
		to   *genesis.Group
		from record.Threshold
	}{{&g.Operators, w.Rules.Operators}, {&g.Committee, w.Rules.Committee}, {&g.Recovery, w.Rules.Recovery}} {
		*x.to = genesis.Group{Threshold: x.from.M, Keys: x.from.Keys}
	}
	for _, m := range w.Rules.Members {
		g.Members = append(g.Members, genesis.Member{
			Institution: names.InstitutionID(m.Institution.Id), Node: "n1", Name: "Full name of " + m.Institution.Id, PublicKey: m.Key})
	}
	s := &scene{t: t, genesis: g, blinding: bytes.Repeat([]byte{7}, 32), content: `[{"entitled":true}]`, clearer: "rrn", witnesses: []string{"rrn", "neo"}}
	s.history = history{
		w.Admit(&registrypb.Institution{Id: "pcsa", Name: "Public centre", Type: "pcsa"}),
		w.Admit(&registrypb.Institution{Id: "nsso", Name: "Social security office", Type: "nsso"}),
		w.Admit(&registrypb.Institution{Id: "elsewhere", Name: "Nobody's business", Type: "nsso"}),
		w.Command("nsso", &registrypb.Command_SetKey{SetKey: recordtest.KeyRecord("nsso", "nsso second")}),
		w.Command(record.Committee, &registrypb.Command_SetAuthorization{SetAuthorization: &registrypb.Authorization{
			Id: "auth-1", Deliberation: "DEMO-2026/001", RequesterType: "pcsa", RequesterQualities: []string{"client"}, Dataset: "status/v1",
			Fields: []string{"entitled"}, Purpose: "inquiry", Modes: []string{"consultation"}, Period: recordtest.Since()}}),
	}
	s.request = &registrypb.Request{
		Mesh: string(recordtest.Mesh), Nonce: make([]byte, 16), Requester: ref("pcsa"), ClientTicket: "t-1", User: "alice", Application: "file", Channel: "api",
		Purpose: "inquiry", Mode: "consultation", Dataset: "status/v1", Subject: &registrypb.Subject{Scheme: "ssin", Number: number},
		Period: &registrypb.Period{From: 20000, Until: 20100}, TimeUnixMs: start.UnixMilli(),
	}
	s.clearance = &registrypb.Clearance{
		Mesh: string(recordtest.Mesh), Id: bytes.Repeat([]byte{9}, 16), Clearer: ref("rrn"), Requester: ref("pcsa"), Supplier: "nsso",
		Subject: s.request.Subject, Dataset: "status/v1", Fields: []string{"entitled"}, Period: s.request.Period, Purpose: "inquiry",
		Mode: "consultation", Authorization: "auth-1", RegistryIndex: 5, PresentByUnixMs: start.Add(2 * time.Second).UnixMilli(),
	}
	s.answer = &nodepb.Answer{Mesh: string(recordtest.Mesh), Supplier: ref("nsso"), Status: nodepb.Status_DATA_FOUND}
	return s
}

func ref(i string) *registrypb.NodeRef { return &registrypb.NodeRef{Institution: i, Node: "n1"} }

func (s *scene) sign(t envelope.Type, key string, m proto.Message) []byte {
	raw, err := proto.Marshal(m)
	if err != nil {
		s.t.Fatal(err)
	}
	signed, err := envelope.Sign(t, raw, recordtest.Key(key))
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

func sum(b []byte) []byte { h := sha256.Sum256(b); return h[:] }

// receipt signs everything, writes the entries and makes the receipt.
func (s *scene) receipt() *Receipt {
	request := s.sign(envelope.Request, "pcsa", s.request)
	s.ticket = names.TicketOf(request)
	s.clearance.Ticket, s.clearance.RequestHash = string(s.ticket), sum(request)
	clearance := s.sign(envelope.Clearance, s.clearer, s.clearance)
	commitment, err := journal.Commit(s.blinding, []byte(s.content))
	if err != nil {
		s.t.Fatal(err)
	}
	s.answer.Ticket, s.answer.RequestHash, s.answer.ClearanceHash, s.answer.Commitment = string(s.ticket), sum(request), sum(clearance), commitment
	answer := s.sign(envelope.Answer, "nsso second", s.answer)
	asked := &nodepb.Entry{
		TimeUnixMs: start.UnixMilli(), Role: nodepb.Role_CONSULTANT, Event: nodepb.Event_REQUESTED, Ticket: string(s.ticket), ClientTicket: "t-1",
		Requester: ref("pcsa"), User: "alice", Application: "file", Channel: "api", Purpose: "inquiry", Mode: "consultation", Dataset: "status/v1",
		Subject: s.request.Subject, Period: s.request.Period, RequestHash: sum(request), Evidence: [][]byte{request},
	}
	told := proto.CloneOf(asked)
	c := s.clearance
	told.TimeUnixMs += 30
	told.Event, told.Outcome, told.Supplier, told.Clearer = nodepb.Event_ANSWERED, registrypb.Outcome_PERMIT, ref("nsso"), c.Clearer
	told.Fields, told.Withheld, told.Authorization, told.Deliberation = c.Fields, c.Withheld, c.Authorization, "DEMO-2026/001"
	told.ClearanceId, told.ClearanceHash, told.RegistryIndex, told.PresentByUnixMs = c.Id, sum(clearance), c.RegistryIndex, c.PresentByUnixMs
	told.Status, told.AnswerCommitment, told.Evidence = s.answer.Status, commitment, [][]byte{clearance, answer}
	reading := &nodepb.Entry{TimeUnixMs: start.UnixMilli() + 99, Role: nodepb.Role_READER, Event: nodepb.Event_READ, Ticket: string(s.ticket), User: "eve"}
	s.entries = nil
	for i, e := range []*nodepb.Entry{asked, told, reading} {
		s.entries = append(s.entries, store(s.t, uint64(40+i), e))
	}
	r, err := Make(s.history, recordtest.Mesh, self, s.ticket, s.entries, s.proofs())
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// leaves is a tree's hashes as they are stored.
type leaves []merkle.Hash

func (l leaves) ReadHashes(at []int64) (found []merkle.Hash, err error) {
	for _, i := range at {
		found = append(found, l[i])
	}
	return found, nil
}

// proofs puts the entries into a log of 64 that was signed and cosigned, and proves them.
func (s *scene) proofs() (proofs [][]byte) {
	if s.unlogged {
		return nil
	}
	var tree leaves
	const size = 64
	for i := range int64(size) {
		commitment := sha256.Sum256([]byte{byte(i)})
		for _, e := range s.entries {
			if int64(e.Sequence) == i {
				commitment = [32]byte(e.Commitment)
			}
		}
		add, err := merkle.StoredHashesForRecordHash(i, merkle.Hash(journal.LeafHash(commitment)), tree)
		if err != nil {
			s.t.Fatal(err)
		}
		tree = append(tree, add...)
	}
	root, err := merkle.TreeHash(size, tree)
	if err != nil {
		s.t.Fatal(err)
	}
	signed, err := checkpoint.Sign(checkpoint.Origin(recordtest.Mesh, self), size, checkpoint.Hash(root), recordtest.Key("pcsa"))
	if err != nil {
		s.t.Fatal(err)
	}
	note, err := checkpoint.Parse(signed)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, w := range s.witnesses {
		line, err := note.Cosign(names.NodeID{Institution: names.InstitutionID(w), Node: "n1"}, start, recordtest.Key(w))
		if err == nil {
			err = note.Add(line)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	for _, e := range s.entries {
		path, err := merkle.ProveRecord(size, int64(e.Sequence), tree)
		if err != nil {
			s.t.Fatal(err)
		}
		proofs = append(proofs, tlog.Proof{Index: int64(e.Sequence), Path: path, Checkpoint: note.Bytes()}.Marshal())
	}
	return proofs
}

func store(t testing.TB, seq uint64, e *nodepb.Entry) *nodepb.StoredEntry {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	salt := sha256.Sum256(raw)
	c := journal.EntryCommitment(salt, raw)
	return &nodepb.StoredEntry{Sequence: seq, Entry: raw, Salt: salt[:], Commitment: c[:]}
}

func text(t *testing.T, r *Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReceiptHolds(t *testing.T) {
	s := newScene(t)
	b, err := s.receipt().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	rep := Verify(r, s.genesis)
	page := text(t, rep)
	if !rep.Holds || rep.Story.Verdict != trace.Consistent {
		t.Fatal(page)
	}
	for _, want := range []string{"HOLDS", "alice", "DEMO-2026/001", "Social security office", "Public centre", "Full name of rrn", "data found"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	if strings.Contains(string(b), base64.StdEncoding.EncodeToString([]byte("Nobody's business"))) || len(r.Registry) != 4 || len(r.Entries) != 2 {
		t.Errorf("%d commands and %d entries", len(r.Registry), len(r.Entries))
	}
}

// TestNothingOfTheAnswer: with the whole receipt in hand, and knowing that the answer
// is one of two, nobody can tell which. What an answer of either kind leaves behind
// matches neither guess without its blinding.
func TestNothingOfTheAnswer(t *testing.T) {
	answers := []string{`[{"entitled":true}]`, `[{"entitled":false}]`}
	for _, content := range answers {
		s := newScene(t)
		s.content = content
		r := s.receipt()
		b, err := r.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		all := [][]byte{b}
		for _, e := range r.Entries {
			all = append(all, e.Entry, e.Salt, e.Commitment)
		}
		secrets := [][]byte{s.blinding, []byte(content), []byte("true"), []byte("false")}
		for _, guess := range answers {
			// Every hash that somebody might make of a guess with what is in the receipt.
			plain := sha256.Sum256([]byte(guess))
			secrets = append(secrets, plain[:])
			for _, known := range [][]byte{make([]byte, 32), s.clearance.Id, r.Entries[1].Salt, r.Entries[1].Commitment, s.answer.RequestHash, s.answer.ClearanceHash} {
				h := sha256.Sum256(append(bytes.Clone(known), guess...))
				secrets = append(secrets, h[:])
			}
		}
		for _, hay := range all {
			for _, needle := range secrets {
				if bytes.Contains(hay, needle) || bytes.Contains(hay, []byte(base64.StdEncoding.EncodeToString(needle))) {
					t.Errorf("the receipt holds or tells %q", needle)
				}
			}
		}
	}
}

// TestForgedReceipts spoils one thing at a time.
func TestForgedReceipts(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(*scene)
		after  func(*Receipt)
		says   string
	}{
		"clearer no member":           {before: func(s *scene) { s.clearance.Clearer, s.clearer = ref("elsewhere"), "elsewhere" }, says: "nothing in the receipt shows that it is a member"},
		"cleared by another's key":    {before: func(s *scene) { s.clearer = "neo" }, says: "not signed by rrn"},
		"self-clearing":               {before: func(s *scene) { s.clearance.Clearer, s.clearer = ref("pcsa"), "pcsa" }, says: "to which it is a party"},
		"more fields than authorized": {before: func(s *scene) { s.clearance.Fields = []string{"entitled", "income"} }, says: "permitted more than authorization auth-1"},
		"no such authorization":       {before: func(s *scene) { s.clearance.Authorization = "auth-2" }, says: "no decision of the committee"},
		"other mesh":                  {after: func(r *Receipt) { r.Mesh = "other.mesh" }, says: "the genesis file of"},
		"entry altered":               {after: func(r *Receipt) { r.Entries[1].Entry[30] ^= 1 }, says: "not what its node committed to"},
		"salts swapped":               {after: func(r *Receipt) { r.Entries[0].Salt, r.Entries[1].Salt = r.Entries[1].Salt, r.Entries[0].Salt }, says: "not what its node committed to"},
		"key's registration left out": {after: func(r *Receipt) { r.Registry = append(r.Registry[:2:2], r.Registry[3:]...) }, says: "not signed by nsso"},
		"all commands left out":       {after: func(r *Receipt) { r.Registry = nil }, says: "keys are not known"},
		"moved in the log":            {after: func(r *Receipt) { r.Entries[0].Sequence++ }, says: "no checkpoint of its own"},
		"proof of another": {after: func(r *Receipt) {
			r.Entries[0].Proof = strings.Replace(r.Entries[1].Proof, "index 41", "index 40", 1)
		}, says: "is not in the log of 64 entries"},
		"proof spoilt": {after: func(r *Receipt) { r.Entries[0].Proof = "c2sp" }, says: "no checkpoint of its own"},
		"log signed by another": {after: func(r *Receipt) {
			for i := range r.Entries {
				r.Entries[i].Proof = strings.ReplaceAll(r.Entries[i].Proof, "/pcsa/n1", "/nsso/n1")
			}
		}, says: "no checkpoint of its own"},
		"command altered": {after: func(r *Receipt) { r.Registry[0][len(r.Registry[0])/2] ^= 1 }, says: "not signed by those who may give them"},
		"key given by one operator": {after: func(r *Receipt) {
			w := recordtest.New(t, "rrn")
			c := w.Draft(record.Operators, &registrypb.Command_SetInstitution{SetInstitution: &registrypb.Institution{Id: "rrn", FirstKey: recordtest.KeyRecord("rrn", "thief")}})
			r.Registry = append(r.Registry, w.Sign(c, "operator1"))
		}, says: "not signed by those who may give them: 5"},
		"key given by itself": {after: func(r *Receipt) {
			w := recordtest.New(t, "rrn")
			c := w.Draft("rrn", &registrypb.Command_SetKey{SetKey: recordtest.KeyRecord("rrn", "thief")})
			r.Registry = append(r.Registry, w.Sign(c, "thief"))
		}, says: "not signed by those who may give them: 5"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			if tt.before != nil {
				tt.before(s)
			}
			r := s.receipt()
			if tt.after != nil {
				tt.after(r)
			}
			rep := Verify(r, s.genesis)
			page := strings.Join(strings.Fields(text(t, rep)), " ")
			if rep.Holds || !strings.Contains(page, tt.says) || !strings.Contains(page, "DOES NOT HOLD") {
				t.Errorf("want %q in\n%s", tt.says, text(t, rep))
			}
		})
	}
}

// TestOtherGenesis: the receipt of one mesh under the operators of another.
func TestOtherGenesis(t *testing.T) {
	s := newScene(t)
	r := s.receipt()
	other := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	s.genesis.Operators.Keys = []ed25519.PublicKey{other, other}
	if Verify(r, s.genesis).Holds {
		t.Fatal("it holds under operators who signed nothing of it")
	}
}

// TestAnyByteOfTheFile flips bytes of the file, everywhere: it is found, or is no
// receipt any more.
func TestAnyByteOfTheFile(t *testing.T) {
	s := newScene(t)
	good, err := s.receipt().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(good); at += 1 + at%97 {
		b := bytes.Clone(good)
		b[at] ^= 4
		r, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			continue
		}
		again, err := r.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if rep := Verify(r, s.genesis); rep.Holds && !bytes.Equal(again, good) && sameProofs(r, s) {
			t.Fatalf("byte %d changed and the receipt holds\n%s", at, text(t, rep))
		}
	}
}

// sameProofs: a cosignature that does not count may change.
func sameProofs(r *Receipt, s *scene) bool {
	proofs := s.proofs()
	for i, e := range r.Entries {
		if e.Proof != string(proofs[i]) {
			return false
		}
	}
	return true
}

// TestAnchoring: what most members cosigned counts as anchored, and nothing else does.
func TestAnchoring(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil    func(*scene)
		anchored bool
	}{
		"two of three":  {func(*scene) {}, true},
		"one of three":  {func(s *scene) { s.witnesses = []string{"rrn"} }, false},
		"no member":     {func(s *scene) { s.witnesses = []string{"rrn", "nsso", "pcsa"} }, false},
		"not yet":       {func(s *scene) { s.unlogged = true }, false},
		"nobody at all": {func(s *scene) { s.witnesses = nil }, false},
	} {
		s := newScene(t)
		tt.spoil(s)
		rep := Verify(s.receipt(), s.genesis)
		pending := slices.ContainsFunc(rep.Story.Findings, func(f trace.Finding) bool { return f.Kind == trace.NotAnchored })
		if !rep.Holds || pending == tt.anchored || (rep.Story.Journals[0].Anchored == 2) != tt.anchored {
			t.Errorf("%s:\n%s", name, text(t, rep))
		}
	}
}

func TestParseBounds(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"too large":     make([]byte, MaxSize+1),
		"no entries":    []byte(`{"format":"crossroads-receipt/1","mesh":"m","ticket":"454x5a6etg9x1yp4grvc4gg6ac","journal":"a/b","entries":[],"registry":[]}`),
		"unknown field": []byte(`{"format":"crossroads-receipt/1","blinding":"AA=="}`),
		"other format":  []byte(`{"format":"crossroads-receipt/2"}`),
	} {
		if _, err := Parse(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := newScene(f)
	good, err := s.receipt().Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		var page strings.Builder
		if err := Verify(r, s.genesis).Write(&page); err != nil {
			t.Fatal(err)
		}
	})
}
