package tlog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
)

// serve serves a log as a node's interface does, without its gate.
func serve(t *testing.T, l *Log) *torchwood.TileFetcher {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /tlog/checkpoint", func(w http.ResponseWriter, _ *http.Request) { w.Write(l.Checkpoint()) })
	mux.HandleFunc("GET /tlog/tile/{path...}", func(w http.ResponseWriter, r *http.Request) {
		b, err := l.Tile("tile/" + r.PathValue("path"))
		if errors.Is(err, ErrNotInTree) {
			http.NotFound(w, r)
			return
		}
		w.Write(b)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	f, err := torchwood.NewTileFetcher(srv.URL+"/tlog/", torchwood.WithHTTPClient(srv.Client()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestTorchwood lets another implementation of the same forms read a journal:
// checkpoint, tiles, proofs and cosignatures.
func TestTorchwood(t *testing.T) {
	ctx := context.Background()
	fs := disktest.New()
	j, err := journal.Open(journal.Config{FS: fs, Key: testKey})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for i := range 700 {
		if _, err := j.Append(ctx, entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	l := openLog(t, testConfig(j, fs))
	fetch := serve(t, l)

	vkey, err := VerifierKey(testOrigin, testPublic)
	if err != nil {
		t.Fatal(err)
	}
	logKey, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	// Two witnesses cosign what they fetched.
	msg, err := fetch.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	policies := []torchwood.Policy{torchwood.OriginPolicy(testOrigin), torchwood.SingleVerifierPolicy(logKey)}
	for _, name := range []string{"demo.example/witness/nsso/n1", "demo.example/witness/neo/n1"} {
		_, key, _ := ed25519.GenerateKey(nil)
		witness, err := torchwood.NewCosignatureSigner(name, key)
		if err != nil {
			t.Fatal(err)
		}
		n, err := note.Open(msg, note.VerifierList(logKey))
		if err != nil {
			t.Fatal(err)
		}
		if msg, err = note.Sign(n, witness); err != nil {
			t.Fatal(err)
		}
		policies = append(policies, torchwood.SingleVerifierPolicy(witness.Verifier()))
	}
	policy := torchwood.ThresholdPolicy(len(policies), policies...)
	cp, _, err := torchwood.VerifyCheckpoint(msg, policy)
	if err != nil || cp.N != 700 || cp.Origin != testOrigin {
		t.Fatalf("checkpoint %v: %v", cp, err)
	}
	// We read the cosigned one as well, and ours alone is not enough for the policy.
	if c, err := OpenCheckpoint(testOrigin, testPublic, msg); err != nil || c.Root != cp.Hash {
		t.Fatal(err)
	}
	if _, _, err := torchwood.VerifyCheckpoint(l.Checkpoint(), policy); err == nil {
		t.Fatal("a checkpoint without cosignatures passed")
	}
	// Every leaf is reached through the tiles, and each is the entry's.
	hashes := torchwood.TileHashReaderWithContext(ctx, cp.Tree, fetch)
	found, err := j.Find(ctx, journal.Query{Limit: 1000})
	if err != nil || len(found) != 700 {
		t.Fatal(len(found), err)
	}
	for _, s := range found {
		leaf := Hash(journal.LeafHash(journal.EntryCommitment(s.Salt, s.Raw)))
		if s.Sequence%50 != 0 {
			continue
		}
		got, err := hashes.ReadHashes([]int64{merkle.StoredHashIndex(0, int64(s.Sequence))})
		if err != nil || got[0] != leaf {
			t.Fatalf("entry %d: %v", s.Sequence, err)
		}
		path, err := l.InclusionProof(cp.N, int64(s.Sequence))
		if err != nil {
			t.Fatal(err)
		}
		proof := Proof{Index: int64(s.Sequence), Path: path, Checkpoint: msg}.Marshal()
		if err := torchwood.VerifyProof(policy, leaf, proof); err != nil {
			t.Fatalf("proof of entry %d: %v\n%s", s.Sequence, err, proof)
		}
		if err := torchwood.VerifyProof(policy, Hash{1}, proof); err == nil {
			t.Fatal("a proof of another leaf passed")
		}
		// And theirs is read by us.
		theirs, err := merkle.ProveRecord(cp.N, int64(s.Sequence), hashes)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ParseProof(torchwood.FormatProof(int64(s.Sequence), theirs, msg))
		if err != nil {
			t.Fatal(err)
		}
		c, err := OpenCheckpoint(testOrigin, testPublic, p.Checkpoint)
		if err != nil || p.Check(c, leaf) != nil {
			t.Fatalf("their proof of entry %d: %v", s.Sequence, err)
		}
	}
	// The log grows; what was proven stays so.
	for i := range 10 {
		if _, err := j.Append(ctx, entry(700+i)); err != nil {
			t.Fatal(err)
		}
	}
	newer := publish(t, l)
	consistent, err := l.ConsistencyProof(cp.N, newer.Size)
	if err != nil || merkle.CheckTree(consistent, newer.Size, newer.Root, cp.N, cp.Hash) != nil {
		t.Fatal("the new tree does not continue the old", err)
	}
}
