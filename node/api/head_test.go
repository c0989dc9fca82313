package api

import "testing"

// A directory chain is told of by its own institution's node only: its hash is about a
// person.
func TestDirectoryHeadIsTheInstitutionsOwn(t *testing.T) {
	s, _ := newServer(t, new(fakes))
	for query, code := range map[string]int{
		"author=pcsa&chain=directory":       200,
		"author=nsso&chain=public":          200,
		"author=nsso":                       200,
		"author=@operators":                 200,
		"author=nsso&chain=directory":       403,
		"author=@operators&chain=directory": 403,
		"author=nsso&chain=anchors":         400,
	} {
		if w := ask(s, "GET", "/v1/registry/head?"+query, "", bearer("file-token")...); w.Code != code {
			t.Errorf("%s: %d, want %d: %s", query, w.Code, code, w.Body)
		}
	}
}
