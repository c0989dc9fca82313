package config

import _ "embed"

//go:embed example.yaml
var example []byte

// Example gives a configuration file in which every setting stands, with what it
// means; those that have a default stand at it.
func Example() []byte { return append([]byte(nil), example...) }
