// Package crossroads holds no code: it is the module's root, and keeps the test
// that the walls between the rooms stand. Start reading at cmd/crossroads, node
// and docs/architecture.md.
package crossroads
