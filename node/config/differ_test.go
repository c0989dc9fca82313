package config

import (
	"slices"
	"testing"
)

func TestDiffer(t *testing.T) {
	was, now := Default(), Default()
	if changed, restart := Differ(was, now); changed != nil || restart != nil {
		t.Errorf("the same differs: %v, %v", changed, restart)
	}
	now.Log.Level, now.Log.Format = "debug", "json"
	now.API.Applications = []Application{{Name: "x"}}
	now.Listen, now.Limits.APIBody, now.Sources = "127.0.0.1:1", 7, []Source{{Dataset: "a/v1"}}
	changed, restart := Differ(was, now)
	slices.Sort(changed)
	slices.Sort(restart)
	if !slices.Equal(changed, []string{"api.applications", "log.level"}) || !slices.Equal(restart, []string{"limits.api_body", "listen", "log.format", "sources"}) {
		t.Errorf("changed %v, restart %v", changed, restart)
	}
}
