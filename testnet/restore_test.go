package testnet

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// TestRestoredDisk puts a node's data folder back to an earlier copy. Without a word the
// node works for nobody and says what to do; declared, it works again, its new epoch is
// anchored, and nobody is accused of anything.
func TestRestoredDisk(t *testing.T) {
	t.Parallel()
	notShort(t)
	n := start(t, Options{})
	ctx := within(t)
	e := answered(n, "")[0]
	id := e.Requester
	s := n.site(id)
	consult := func(ticket names.ClientTicket) error {
		_, err := n.Consult(ctx, e.Consultation, ticket)
		return err
	}
	if err := consult("before"); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(s.configFile())
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		t.Helper()
		if err := n.StopNode(id); err != nil {
			t.Fatal(err)
		}
	}
	begin := func() {
		t.Helper()
		if err := n.StartNode(id, nil); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(backup, os.DirFS(cfg.Data.Dir)); err != nil {
		t.Fatal(err)
	}
	begin()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if err := consult("lost"); err != nil {
		t.Fatal(err)
	}
	stop()
	lost := length(t, cfg)
	begin()
	waitAnchor(ctx, t, n, id, lost, false)

	stop()
	restore := func() {
		t.Helper()
		if err := os.RemoveAll(cfg.Data.Dir); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(cfg.Data.Dir, os.DirFS(backup)); err != nil {
			t.Fatal(err)
		}
	}
	restore()
	begin()
	for told := false; !told; {
		ready, err := n.Client(id).Ready(ctx)
		if err == nil && ready.Ready {
			t.Fatal("a node that was rolled back is ready")
		}
		for _, c := range ready.Checks {
			told = told || c.Name == "journal" && strings.Contains(c.Says, "restore-declared")
		}
		if ctx.Err() != nil {
			t.Fatalf("it does not say why: %+v, %v", ready, err)
		}
		waitUntil(ctx, pollEvery)
	}
	if err := consult("rolled back"); err == nil {
		t.Error("a node that was rolled back consults")
	}
	_ = n.StopNode(id)

	restore()
	j, err := journal.Open(ownJournal(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	epoch, err := j.BeginEpoch(ctx, "disk replaced", "operator")
	if err != nil || epoch.Number != 2 {
		t.Fatal(epoch, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	begin()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if err := consult("after"); err != nil {
		t.Error(err)
	}
	waitAnchor(ctx, t, n, id, epoch.ResumesAt+1, true)
	for _, site := range n.layout.sites {
		if !site.member {
			continue
		}
		found, err := n.Client(site.ID).Evidence(ctx)
		for err == nil && len(found.Declared) == 0 && ctx.Err() == nil { // its replica may be behind the one that was waited for
			waitUntil(ctx, pollEvery)
			found, err = n.Client(site.ID).Evidence(ctx)
		}
		if err != nil || len(found.Items) > 0 {
			t.Errorf("%s accuses: %+v, %v", site.ID, found, err)
		}
		if d := found.Declared; len(d) != 1 || !d[0].Accepted || d[0].Epoch != 2 || d[0].ResumesAt != int64(epoch.ResumesAt) || d[0].Anchored < int64(lost) {
			t.Errorf("%s tells of the epoch: %+v; it resumes at %d, and %d were anchored", site.ID, d, epoch.ResumesAt, lost)
		}
	}
}

func ownJournal(t *testing.T, cfg *config.Config) journal.Config {
	t.Helper()
	key, err := certs.LoadStorageKey(cfg.Data.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := certs.LoadSigner(cfg.Signing.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return journal.Config{
		Dir: filepath.Join(cfg.Data.Dir, "journal"), Key: key,
		Signing: &journal.Signing{Mesh: cfg.Mesh, Node: cfg.Node.ID(), Signer: signer},
	}
}

func length(t *testing.T, cfg *config.Config) uint64 {
	t.Helper()
	r, err := journal.OpenReader(ownJournal(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	return r.Next()
}

// waitAnchor waits until the registry holds a checkpoint of a journal that covers so many
// entries, and is of a later epoch or not.
func waitAnchor(ctx context.Context, t *testing.T, n *Network, id names.InstitutionID, size uint64, later bool) {
	t.Helper()
	var member names.InstitutionID
	for _, s := range n.layout.sites {
		if s.member && s.ID != id {
			member = s.ID
		}
	}
	for {
		list, err := n.Client(member).Anchors(ctx)
		for _, a := range list.Items {
			if strings.HasPrefix(a.Journal, string(id)+"/") && uint64(a.Size) >= size && strings.Contains(a.Note, "\nepoch 2\n") == later {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d entries are not anchored: %+v, %v", size, list, err)
		case <-time.After(pollEvery):
		}
	}
}
