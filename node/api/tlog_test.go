package api

import "testing"

// TestTiles: what never changes may be kept for ever, and nothing else.
func TestTiles(t *testing.T) {
	s, _ := newServer(t, new(fakes))
	for path, want := range map[string]struct {
		status       int
		media, cache string
		size         int
	}{
		"/tlog/checkpoint":          {200, "text/plain; charset=utf-8", "no-store", -1},
		"/tlog/tile/0/000":          {200, "application/octet-stream", "public, max-age=31536000, immutable", 256 * 32},
		"/tlog/tile/0/x001/000.p/5": {200, "application/octet-stream", "public, max-age=60", 5 * 32},
		"/tlog/tile/0/001":          {404, mediaProblem, "no-store", -1},
		"/tlog/tile/entries/000":    {404, mediaProblem, "no-store", -1},
		"/tlog/tile/1/000":          {500, mediaProblem, "no-store", -1},
	} {
		w := ask(s, "GET", path, "")
		h := w.Header()
		if w.Code != want.status || h.Get("Content-Type") != want.media || h.Get("Cache-Control") != want.cache {
			t.Errorf("%s: %d %s, Cache-Control %s", path, w.Code, h.Get("Content-Type"), h.Get("Cache-Control"))
		}
		if want.size >= 0 && w.Body.Len() != want.size {
			t.Errorf("%s: %d bytes", path, w.Body.Len())
		}
	}
}
