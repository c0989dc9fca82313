package config

import (
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Source binds one dataset that this institution supplies to the system of its own
// that holds it. Exactly one of REST and SQL is set.
type Source struct {
	// Dataset is what the source supplies, as the registry names it: "wages-quarterly/v1".
	Dataset names.DatasetID `yaml:"dataset"`
	// REST asks an HTTP/JSON service of the institution's.
	REST *RESTSource `yaml:"rest,omitempty"`
	// SQL asks a database of the institution's.
	SQL *SQLSource `yaml:"sql,omitempty"`
}

// RESTSource is an HTTP/JSON service inside the institution.
type RESTSource struct {
	// URL is asked once for every consultation; package adapters/rest says how the
	// question is put. http or https.
	URL string `yaml:"url"`
	// TokenFile holds the bearer token that the service asks for. Empty: none.
	TokenFile string `yaml:"token_file,omitempty"`
	// Timeout is how long one answer may take. 0: the adapter's default.
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// MaxBytes is the largest answer that is read, in bytes. 0: the adapter's default.
	MaxBytes int64 `yaml:"max_bytes,omitempty"`
}

// SQLSource is a database inside the institution.
type SQLSource struct {
	// Driver is "sqlite" or "postgres".
	Driver string `yaml:"driver"`
	// DSN says which database. Exactly one of DSN and DSNFile is set.
	DSN string `yaml:"dsn,omitempty"`
	// DSNFile holds the DSN; use it when the DSN carries a password.
	DSNFile string `yaml:"dsn_file,omitempty"`
	// Query is the one statement that is run, with named parameters only; package
	// adapters/sql says which.
	Query string `yaml:"query"`
	// MaxRows is the most rows that one answer may have. 0: the adapter's default.
	MaxRows int `yaml:"max_rows,omitempty"`
	// Timeout is how long one query may take. 0: the adapter's default.
	Timeout time.Duration `yaml:"timeout,omitempty"`
}
