package testnet

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// exchanges carries out one consultation without a pause, and counts the results; one that
// is not the right one is an error of stop.
func exchanges(n *Network, e data.Example) (stop func() (int, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	var mu sync.Mutex
	count := 0
	for range 2 {
		g.Go(func() error {
			for ctx.Err() == nil {
				got, err := n.consultOnce(ctx, e.Consultation)
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				if d := Differs(got, e.Answer); d != "" {
					return errors.New(d)
				}
				mu.Lock()
				count++
				mu.Unlock()
			}
			return nil
		})
	}
	return func() (int, error) {
		cancel()
		err := g.Wait()
		return count, err
	}
}

// TestOperators does on real nodes what operators do: look at the mesh, hand the lead over
// without a failed exchange, take a snapshot that holds, take an archive that tells nobody
// anything, and change the keys that sign for the mesh.
func TestOperators(t *testing.T) {
	t.Parallel()
	notShort(t)
	n := start(t, Options{})
	ctx := within(t)
	var leader, follower names.InstitutionID
	var h api.MeshHealth
	for { // the leader may have been elected this moment, or another is about to be
		var err error
		if leader, err = n.leader(ctx); err != nil {
			t.Fatal(err)
		}
		for _, m := range n.members() {
			if m != leader {
				follower = m
			}
		}
		if h, err = n.Client(follower).MeshHealth(ctx); err != nil {
			t.Fatal(err)
		}
		if h.Healthy && strings.HasPrefix(h.Leader, string(leader)+"/") {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("never well: %v", h.Problems)
		}
	}
	if h.FailureTolerance != 1 || h.FeatureLevel != record.Level {
		t.Errorf("health %+v", h)
	}
	if _, err := n.Client(follower).AutopilotState(ctx); err == nil || !strings.Contains(err.Error(), string(leader)) {
		t.Errorf("a follower does not say who leads: %v", err)
	}
	for { // an election may have another lead
		leads, err := n.leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		metrics, err := scrape(ctx, n.Endpoints(), leads)
		if err == nil && strings.Contains(metrics, "autopilot_failure_tolerance 1") && strings.Contains(metrics, `raft_state{state="Leader"} 1`) {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("metrics of the leader: %v", err)
		}
		waitUntil(ctx, pollEvery)
	}

	e := answered(n, "")[0]
	stop := exchanges(n, e)
	if err := n.Client(leader).TransferLeader(ctx, ""); err != nil {
		t.Fatal(err)
	}
	if err := n.waitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	// Whoever reads linearizably finds what was acknowledged elsewhere.
	operators, err := n.Operators(ctx)
	if err != nil {
		t.Fatal(err)
	}
	next := rotate(t, n, operators)
	reader := n.Client("pcsa-ghent")
	reader.Reading.Consistency = "linearizable"
	groups, err := reader.Groups(ctx)
	if err != nil || len(groups.Items[0].Former) != 1 {
		t.Errorf("groups %+v, %v", groups.Items, err)
	}
	changes, err := reader.History(ctx, "group", record.Operators)
	if err != nil || len(changes.Items) != 1 || changes.Items[0].Kind != "set_group" || len(changes.Items[0].SignedBy) < 2 {
		t.Errorf("history %+v, %v", changes.Items, err)
	}
	if resp, err := operators.Do(ctx, &registrypb.Command{Body: &registrypb.Command_SetSuspended{SetSuspended: &registrypb.Suspension{Institution: "nic", Suspended: true}}}); err != nil || resp.Accepted {
		t.Errorf("a retired operator's key still signs: %+v, %v", resp, err)
	}
	if resp, err := next.Do(ctx, &registrypb.Command{Body: &registrypb.Command_SetAutopilot{SetAutopilot: &registrypb.Autopilot{StabilizationMs: 1000, MaxTrailing: 100}}}); err != nil || !resp.Accepted {
		t.Errorf("the new keys do not sign: %+v, %v", resp, err)
	}
	count, err := stop()
	if err != nil || count == 0 {
		t.Errorf("%d exchanges while the lead was handed over: %v", count, err)
	}

	var snapshot bytes.Buffer
	if _, err := n.Client(follower).Archive(ctx, "snapshot", &snapshot); err != nil {
		t.Fatal(err)
	}
	info, err := registry.InspectSnapshot(ctx, n.layout.genesis, nil, t.TempDir(), &snapshot)
	if err != nil || info.Counts.References == 0 || info.FeatureLevel != record.Level {
		t.Errorf("snapshot %+v, %v", info, err)
	}
	if _, err := n.Client("pcsa-ghent").Archive(ctx, "snapshot", io.Discard); err == nil {
		t.Error("a node that is no member has a snapshot to give")
	}
	tellsNothing(t, n, e, follower)
}

// rotate takes one operator's key out and another in, and gives the author that then
// signs.
func rotate(t *testing.T, n *Network, operators *registry.Author) *registry.Author {
	t.Helper()
	ctx := within(t)
	dir := t.TempDir()
	fresh, err := certs.NewSigner(filepath.Join(dir, "operator-4.key"))
	if err != nil {
		t.Fatal(err)
	}
	signers, err := genesis.LoadKeys(filepath.Dir(n.layout.genesisFile()), genesis.Operator)
	if err != nil {
		t.Fatal(err)
	}
	g := n.layout.genesis.Operators
	set := &registrypb.Group{Name: record.Operators, Threshold: uint32(g.Threshold)}
	for _, k := range g.Keys[1:] { // the first one, which the test network signs with, goes
		set.PublicKeys = append(set.PublicKeys, k)
	}
	set.PublicKeys = append(set.PublicKeys, fresh.Public().(ed25519.PublicKey))
	change := &registrypb.Command{Body: &registrypb.Command_SetGroup{SetGroup: set}}
	if resp, err := operators.Do(ctx, change); err != nil || resp.Accepted || !strings.Contains(resp.Refusal, "new keys") {
		t.Fatalf("the new threshold did not sign: %+v, %v", resp, err)
	}
	through := registry.NewAuthor(n.SubmitThrough("pcsa-ghent"), MeshName, record.Operators, append(slices.Clone(signers), fresh)...)
	if err := do(ctx, through, change); err != nil {
		t.Fatal(err)
	}
	return registry.NewAuthor(n.SubmitThrough("pcsa-ghent"), MeshName, record.Operators, append(signers[1:], fresh)...)
}

// tellsNothing looks into a debug archive for what must not be there.
func tellsNothing(t *testing.T, n *Network, e data.Example, at names.InstitutionID) {
	t.Helper()
	var b bytes.Buffer
	if _, err := n.Client(at).Archive(within(t), "debug", &b); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	var all bytes.Buffer
	for tape := tar.NewReader(zip); ; {
		head, err := tape.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(head.Name))
		if _, err := io.Copy(&all, tape); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"settings.json", "health.json", "metrics.txt", "goroutines.txt", "autopilot.json"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing from %v", want, names)
		}
	}
	s := n.site(at)
	key, err := os.ReadFile(n.ConfigFile(at))
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{s.token, s.guard, s.dir, e.Number, "token_sha256", "PRIVATE KEY", "key_file"}
	for line := range strings.Lines(string(key)) { // hashes of tokens, and paths
		if _, v, ok := strings.Cut(line, "token_sha256: "); ok {
			secrets = append(secrets, strings.TrimSpace(v))
		}
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(all.String(), secret) {
			t.Errorf("the archive holds %.12q...", secret)
		}
	}
}

// TestMembershipUnderLoad grows real nodes from one member to seven, shrinks to three and
// replaces a disk, while exchanges between others go on; none may fail. That none does takes
// a machine that has nothing else to do.
func TestMembershipUnderLoad(t *testing.T) {
	if os.Getenv("CROSSROADS_MEMBERSHIP") == "" {
		t.Skip("SKIPPED: a minute and a half of a machine that does nothing else: CROSSROADS_MEMBERSHIP=1, as .ci/run sets it in a step of its own")
	}
	const most = 7
	n := start(t, Options{Nodes: 14, Members: 1, Persons: 1000})
	ctx := within(t)
	operators, err := n.Operators(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := do(ctx, operators, &registrypb.Command{Body: &registrypb.Command_SetAutopilot{SetAutopilot: &registrypb.Autopilot{StabilizationMs: 1000, MaxTrailing: 500}}}); err != nil {
		t.Fatal(err)
	}
	e, free := bystanders(t, n, most-1)
	stop := exchanges(n, e)
	settle := func(voters int) {
		t.Helper()
		for {
			leader, err := n.leader(ctx)
			if err == nil {
				if a, err := n.Client(leader).AutopilotState(ctx); err == nil && a.Healthy && a.Voters == voters && len(a.Peers) == voters {
					return
				}
			}
			select {
			case <-time.After(250 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("never %d voters that are well", voters)
			}
		}
	}
	for size := 3; size <= most; size += 2 {
		for _, id := range free[size-3 : size-1] {
			if err := n.Promote(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		settle(size)
		t.Logf("%d members", size)
	}
	// Down to three that the genesis file does not know.
	all := new(registrypb.Members)
	left := free[most-4:]
	for _, id := range left {
		all.Voters = append(all.Voters, &registrypb.NodeRef{Institution: string(id), Node: string(nodeName)})
	}
	for _, s := range n.layout.sites {
		s.member = slices.Contains(left, s.ID)
	}
	through := registry.NewAuthor(n.SubmitThrough(left[2]), MeshName, record.Operators, mustKeys(t, n)...)
	if err := do(ctx, through, &registrypb.Command{Body: &registrypb.Command_SetMembers{SetMembers: all}}); err != nil {
		t.Fatal(err)
	}
	settle(3)
	leader, err := n.leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lost := left[0]
	if lost == leader {
		lost = left[1]
	}
	if err := n.StopNode(lost); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(n.DataDir(lost), "registry")); err != nil {
		t.Fatal(err)
	}
	if err := n.StartNode(lost, nil); err != nil {
		t.Fatal(err)
	}
	settle(3)
	count, err := stop()
	if err != nil || count == 0 {
		t.Errorf("after %d exchanges: %v", count, err)
	}
	t.Logf("%d exchanges, none failed", count)
}

func mustKeys(t *testing.T, n *Network) (signers []crypto.Signer) {
	t.Helper()
	all, err := genesis.LoadKeys(filepath.Dir(n.layout.genesisFile()), genesis.Operator)
	if err != nil {
		t.Fatal(err)
	}
	return all[:n.layout.genesis.Operators.Threshold]
}

// bystanders gives an example and so many nodes that have no part in it and vote not yet.
func bystanders(t *testing.T, n *Network, want int) (data.Example, []names.InstitutionID) {
	t.Helper()
	for _, e := range answered(n, "") {
		var free []names.InstitutionID
		for _, s := range n.layout.sites {
			party := s.ID == e.Requester || s.member
			for _, sup := range e.Answer.Suppliers {
				party = party || sup.Supplier == s.ID
			}
			if !party {
				free = append(free, s.ID)
			}
		}
		first := n.layout.sites[0].ID // clears alone at first
		clears := e.Requester != first
		for _, sup := range e.Answer.Suppliers {
			clears = clears && sup.Supplier != first
		}
		if clears && len(free) >= want {
			return e, free[:want]
		}
	}
	t.Fatalf("no example leaves %d nodes out", want)
	return data.Example{}, nil
}

// scrape reads a node's metrics.
func scrape(ctx context.Context, e *Endpoints, id names.InstitutionID) (string, error) {
	at, ok := e.Of(id)
	if !ok {
		return "", errors.New("no such node")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.API+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// TestReload has a running process read its configuration again: a new token is taken up,
// what takes a restart is named, and a broken file changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	notShort(t)
	o := processes(t)
	o.Nodes, o.Persons = 3, 500
	n := start(t, o)
	ctx := within(t)
	id := n.layout.sites[0].ID
	s, file := n.site(id), n.ConfigFile(id)
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	hash := func(token string) string {
		sum := sha256.Sum256([]byte(token))
		return hex.EncodeToString(sum[:])
	}
	hangup := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(n.runningNode(id).pid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	logged := func(word string) {
		t.Helper()
		for {
			b, err := os.ReadFile(filepath.Join(s.dir, "node.log"))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), word) {
				return
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("the log never says %q", word)
			}
		}
	}
	old, fresh := s.token, newToken()
	changed := strings.Replace(string(was), hash(old), hash(fresh), 1)
	if changed == string(was) {
		t.Fatal("the token is not in the configuration")
	}
	hangup("join: true\n" + changed)
	logged("configuration read again")
	b, err := os.ReadFile(filepath.Join(s.dir, "node.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, said, ok := strings.Cut(line, "configuration read again"); ok && (!strings.Contains(said, "join") || !strings.Contains(said, "api.applications")) {
			t.Errorf("said %s", said)
		}
	}
	if _, err := api.NewClient(n.Endpoints().Nodes[0].API, fresh).RegistryStatus(ctx); err != nil {
		t.Errorf("the new token: %v", err)
	}
	if _, err := api.NewClient(n.Endpoints().Nodes[0].API, old).RegistryStatus(ctx); err == nil {
		t.Error("the old token still opens")
	}
	hangup("nonsense: true\n")
	logged("configuration not taken up")
	if _, err := api.NewClient(n.Endpoints().Nodes[0].API, fresh).RegistryStatus(ctx); err != nil {
		t.Errorf("a broken file changed something: %v", err)
	}
	if err := os.WriteFile(file, was, 0o600); err != nil {
		t.Fatal(err)
	}
}
