package crossroads

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/crossroads-mesh/crossroads"

// walls says, for each room, what of ours it may import (a prefix ending in
// "..." means the whole subtree). The first row that matches a package counts,
// so the narrow rooms stand before the wide ones.
var walls = []struct {
	room string
	may  []string
}{
	{"registry/names", nil},
	{"registry/subject", nil},
	{"registry/badgerdb", nil},
	{"registry/seen", nil},
	{"registry/pace", nil},
	{"registry/runs", []string{"registry/seen", "registry/pace"}},
	{"registry/registrypb", nil},
	{"registry/statehash", nil},
	{"registry/checkpoint", []string{"registry/names", "certs/envelope"}},
	{"registry/packed", []string{"registry/subject", "registry/registrypb"}},
	{"registry/record", []string{"registry/names", "registry/subject", "registry/registrypb", "registry/checkpoint", "certs/envelope"}},
	{"registry/...", []string{"registry/...", "certs/..."}},
	{"mesh/...", []string{"mesh/..."}},
	{"certs/...", []string{"certs/...", "registry/names"}},
	{"node/nodepb", []string{"registry/registrypb"}},
	{"node/config", []string{"registry/names"}},
	{"node/journal/...", []string{"node/journal/...", "node/nodepb", "certs/envelope", "registry/names", "registry/subject", "registry/packed", "registry/badgerdb", "registry/registrypb"}},
	{"node/profile", nil},
	{"node/slack", nil},
	{"node/trace/...", []string{"node/journal/...", "node/nodepb", "certs/envelope", "registry/checkpoint", "registry/names", "registry/subject", "registry/packed", "registry/registrypb"}},
	{"node/nonce", []string{"registry/..."}},
	{"node/mandate", []string{"node/nonce", "node/nodepb", "node/journal", "registry/..."}},
	{"node/reading/...", []string{"node/reading/...", "node/mandate", "node/nonce", "node/journal/...", "node/trace/...", "node/nodepb", "registry/...", "certs/..."}},
	{"node/audit/...", []string{"node/journal/...", "node/nodepb", "registry/...", "certs/envelope"}},
	{"node/operate", []string{"node/api", "node/config", "registry/..."}},
	{"node/receipt/...", []string{"node/trace/...", "node/journal/...", "node/nodepb", "registry/...", "certs/..."}},
	{"node/batch/pace", []string{"registry/names"}},
	{"node/batch/lines", nil},
	{"node/batch/content", []string{"node/journal/forest"}},
	{"node/batch/spool", []string{"node/journal/disk"}},
	{"node/batch/sources", []string{"node/exchange"}},
	{"node/batch", []string{"node/batch/...", "node/exchange/...", "node/journal/...", "node/config", "node/nodepb", "registry/...", "certs/..."}},
	{"node/exchange/outbox", []string{"node/journal/disk", "registry/badgerdb"}},
	{"node/inbox", []string{"node/exchange/outbox", "node/nodepb", "registry/..."}},
	{"node/inbox/push", []string{"node/inbox", "registry/names", "registry/subject", "registry/registrypb"}},
	{"node/submission", []string{"node/exchange/...", "node/inbox", "node/notify", "node/nodepb", "registry/...", "certs/envelope"}},
	{"node/notify", []string{"node/exchange/...", "node/inbox", "node/nodepb", "registry/...", "certs/..."}},
	{"node/anchor", []string{"registry/..."}},
	{"node/metrics", []string{"node/anchor", "node/api", "node/exchange", "node/inbox/push", "node/notify", "node/nodepb", "registry/..."}},
	{"node/sector/directory", []string{"node/nodepb", "registry/badgerdb", "registry/names", "registry/subject", "registry/registrypb"}},
	{"node/sector/veil", nil},
	{"node/sector", []string{"node/sector/...", "node/batch/...", "node/exchange/...", "node/journal", "node/nodepb", "registry/...", "certs/..."}},
	{"node/exchange/...", []string{"node/exchange/...", "node/nodepb", "registry/...", "certs/..."}},
	{"node/inquiry", []string{"node/exchange/...", "node/nodepb", "registry/..."}},
	{"node/api/...", []string{"node/api/...", "node/batch/...", "node/sector/...", "node/exchange/...", "node/inbox/...", "node/inquiry", "node/mandate", "node/nonce", "node/notify", "node/submission", "node/journal/...", "node/reading/...", "node/trace/...", "node/receipt/...", "node/config", "node/nodepb", "registry/...", "certs/..."}},
	{"node", []string{"node/...", "registry/...", "mesh/...", "certs/..."}},
	{"adapters/push", []string{"node/inbox/push", "node/config"}},
	{"adapters", []string{"adapters/...", "node/exchange", "node/batch/sources", "node/inbox/push", "node/config", "registry/names"}},
	{"adapters/...", []string{"adapters/...", "node/exchange", "node/batch/sources", "node/config", "registry/names", "registry/subject"}},
	{"testnet/...", []string{"..."}},
	{"cmd/...", []string{"..."}},
}

// sole says which room alone may import a library, so that it can be replaced
// or upgraded in one place.
var sole = map[string]string{
	"github.com/hashicorp/raft":       "registry",
	"github.com/hashicorp/memberlist": "mesh/gossip",
	"github.com/quic-go/quic-go":      "mesh",
	"github.com/jackc/pgx/v5":         "adapters/sql",
	"github.com/rabbitmq/amqp091-go":  "adapters/push",
	"github.com/spf13/cobra":          "cmd/crossroads",
}

// TestWalls keeps the rooms of docs/architecture.md apart.
func TestWalls(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	checked := 0
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(strings.TrimPrefix(words[0], module), "/")
		if pkg == "" {
			continue
		}
		checked++
		checkPackage(t, pkg, words[1:])
	}
	if checked < 20 {
		t.Fatalf("only %d packages seen", checked)
	}
}

func checkPackage(t *testing.T, pkg string, imports []string) {
	for _, w := range walls {
		if !within(pkg, w.room) {
			continue
		}
		for _, imp := range imports {
			if ours, ok := strings.CutPrefix(imp, module+"/"); ok && !anyWithin(ours, w.may) {
				t.Errorf("%s imports %s; it may import of ours only %v", pkg, ours, w.may)
			}
			for lib, room := range sole {
				if within(imp, lib+"/...") && !within(pkg, room+"/...") {
					t.Errorf("%s imports %s; only %s may", pkg, imp, room)
				}
			}
		}
		return
	}
	t.Errorf("%s stands in no room: add it to walls", pkg)
}

func anyWithin(pkg string, rooms []string) bool {
	for _, r := range rooms {
		if within(pkg, r) {
			return true
		}
	}
	return false
}

func within(pkg, room string) bool {
	base, subtree := strings.CutSuffix(room, "...")
	if !subtree {
		return pkg == room
	}
	base = strings.TrimSuffix(base, "/")
	return base == "" || pkg == base || strings.HasPrefix(pkg, base+"/")
}
