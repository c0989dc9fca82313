//go:build !linux

package sql

// ownPostgres knows only where Debian keeps the server.
func ownPostgres() (string, error) { return "", errNoPostgres }
