package node

import (
	"crypto"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"path/filepath"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
)

// keys is what a node was given before it ever spoke to anybody.
type keys struct {
	genesis *genesis.File
	signer  crypto.Signer
	storage []byte
	box     *certs.BoxKey // nil when gossip is off
	reset   *[32]byte     // of QUIC's stateless resets; the same after a restart
}

func (n *Node) openKeys() (err error) {
	k := new(keys)
	if k.genesis, err = genesis.Load(n.cfg.Genesis.File, n.cfg.Genesis.SHA256); err != nil {
		return err
	}
	if k.signer, err = certs.LoadSigner(n.cfg.Signing.KeyFile); err != nil {
		return err
	}
	if k.storage, err = certs.LoadStorageKey(n.cfg.Data.KeyFile); err != nil {
		return err
	}
	if n.cfg.Gossip.Enabled {
		if k.box, err = certs.LoadBoxKey(n.cfg.Gossip.KeyFile); err != nil {
			return err
		}
	}
	reset, err := hkdf.Key(sha256.New, k.storage, nil, "crossroads quic stateless reset v1", 32)
	if err != nil {
		return err
	}
	k.reset = (*[32]byte)(reset)
	n.keys = k
	return nil
}

// journalDir is where the journal lies within the node's storage.
const journalDir = "journal"

// dir is a part of the node's own storage.
func (n *Node) dir(part string) string { return filepath.Join(n.cfg.Data.Dir, part) }

// apiTLS gives the API's certificate, or nil for plain HTTP.
func (n *Node) apiTLS() (*tls.Config, error) {
	if n.cfg.API.TLSCert == "" {
		return nil, nil
	}
	pair, err := loadPair(n.cfg)
	if err != nil {
		return nil, err
	}
	n.certificate.Store(pair)
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.certificate.Load(), nil }}, nil
}
