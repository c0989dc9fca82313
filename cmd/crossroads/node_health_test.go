package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/config"
)

// The health check reaches the node over TLS by the certificate it was configured
// with, and nobody who merely listens there.
func TestHealthPinsTheCertificate(t *testing.T) {
	node := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"alive"}`))
	}))
	defer node.Close()
	ask := func(leaf []byte) error {
		path := filepath.Join(t.TempDir(), "api.pem")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}), 0o600); err != nil {
			t.Fatal(err)
		}
		client, err := localClient(config.API{Listen: strings.TrimPrefix(node.URL, "https://"), TLSCert: path, TLSKey: path})
		if err != nil {
			t.Fatal(err)
		}
		return client.Healthy(t.Context())
	}
	if err := ask(node.Certificate().Raw); err != nil {
		t.Error(err)
	}
	if err := ask(append([]byte{0}, node.Certificate().Raw...)); err == nil || !strings.Contains(err.Error(), "another certificate") {
		t.Errorf("another certificate: %v", err)
	}
}
