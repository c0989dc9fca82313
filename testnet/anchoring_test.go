package testnet

import (
	"bufio"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Every journal of the network is anchored after it grew, without anybody's asking, as a member and as a
// node that is none tell it, and nobody honest is accused.
func TestAnchoring(t *testing.T) {
	t.Parallel()
	notShort(t)
	n := start(t, Options{})
	var members []names.InstitutionID
	for _, e := range n.Endpoints().Nodes {
		if e.Role == "member" {
			members = append(members, e.Institution)
		}
	}
	e := n.Examples()[0]
	ctx := within(t)
	if _, err := n.Consult(ctx, e.Consultation, ""); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	site, _ := n.Endpoints().Of(e.Requester)
	size := metric(ctx, t, site.API, "crossroads_journal_size")
	if size == 0 {
		t.Fatal("no entry is counted")
	}
	for metric(ctx, t, site.API, "crossroads_journal_anchored_size") < size {
		if ctx.Err() != nil {
			t.Fatalf("%v entries are never anchored", size)
		}
		waitUntil(ctx, pollEvery)
	}
	t.Logf("anchored after %v", time.Since(began))
	for _, c := range []*api.Client{n.Client(e.Requester), n.Client(members[0])} {
		list := anchorsOf(ctx, t, c, string(e.Requester), int64(size))
		for _, a := range list.Items {
			if len(a.Witnesses) <= len(members)/2 || !strings.HasPrefix(a.Note, string(MeshName)+"/journal/"+a.Journal+"\n") {
				t.Errorf("%+v", a)
			}
		}
	}
	t.Logf("in the registry after %v", time.Since(began))
	for _, m := range members {
		found, err := n.Client(m).Evidence(ctx)
		if err != nil || len(found.Items) > 0 {
			t.Errorf("%s: %v %v", m, found, err)
		}
	}
}

// anchorsOf waits until the journal of an institution is anchored.
func anchorsOf(ctx context.Context, t *testing.T, c *api.Client, institution string, size int64) api.AnchorList {
	t.Helper()
	for {
		list, err := c.Anchors(ctx)
		if err == nil && slices.ContainsFunc(list.Items, func(a api.Anchor) bool { return strings.HasPrefix(a.Journal, institution+"/") && a.Size >= size }) {
			return list
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not anchored: %+v %v", list, err)
		case <-time.After(pollEvery):
		}
	}
}

// metric reads one number that a node tells to whoever watches machines.
func metric(ctx context.Context, t *testing.T, api, name string) float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
