package adapters

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/adapters/rest"
	"github.com/crossroads-mesh/crossroads/adapters/sql"
	"github.com/crossroads-mesh/crossroads/node/config"
)

func TestOpen(t *testing.T) {
	query := "SELECT 1 AS n WHERE :subject = '1'"
	lite := &config.SQLSource{Driver: "sqlite", DSN: filepath.Join(t.TempDir(), "x.db"), Query: query}
	service := &config.RESTSource{URL: "https://records.example/wages"}
	for _, c := range []struct {
		cfg  config.Source
		want error
	}{
		{config.Source{SQL: lite}, nil},
		{config.Source{REST: service}, nil},
		{config.Source{SQL: &config.SQLSource{Driver: "postgres", DSN: "postgres://u@127.0.0.1:1/x", Query: query}}, nil},
		{config.Source{}, ErrKind},
		{config.Source{SQL: lite, REST: service}, ErrKind},
		{config.Source{SQL: &config.SQLSource{}}, sql.ErrConfig},
		{config.Source{REST: &config.RESTSource{}}, rest.ErrConfig},
	} {
		c.cfg.Dataset = "wages/v1"
		source, closer, err := Open(c.cfg)
		if !errors.Is(err, c.want) || (err == nil) != (source != nil) || (err == nil) != (closer != nil) {
			t.Errorf("%+v: %v, %v, %v", c.cfg, source, closer, err)
		}
		if err != nil && !strings.Contains(err.Error(), "wages/v1") {
			t.Errorf("the error does not say which source: %v", err)
		}
		if closer != nil {
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
