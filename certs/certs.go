// Package certs says who a node is and proves who its peers are.
//
// # Transport identity
//
// A node has an X.509-SVID with the SPIFFE ID
//
//	spiffe://<mesh>/institution/<institution>/node/<node>
//
// (NodeSPIFFE, NodeOf). It comes from a Source: a directory of PEM files that is
// watched (DirSource), filled by the built-in authority (package authority), by
// spiffe-helper or by hand; or go-spiffe's Workload API client. TLS turns a Source
// into tls.Configs that verify both ends of every connection, resumed ones
// included, and that ask the registry's opinion of the peer each time.
//
// # Signing identity
//
// An institution signs what must be provable later with a long-lived Ed25519 key
// behind crypto.Signer (NewSigner, LoadSigner; package envelope says what is
// signed). Operators, committee and recovery keys are the same kind of file; their
// public parts stand in the genesis file (package genesis).
//
// # Other secrets
//
// BoxKey authenticates gossip packets, the storage key encrypts a node's
// databases. Every secret lies in a file of its own that only its owner may read,
// is never overwritten, and does not print.
package certs
