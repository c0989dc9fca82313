package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/config"
)

func newNodeHealth() *cobra.Command {
	var file string
	var ready bool
	c := &cobra.Command{
		Use:   "health --config FILE",
		Short: "Ask the node on this machine whether it is alive, or ready",
		Long: `Asks the node that runs with this configuration. Exit code 0 means yes, 1 no. Alive
means that the process answers, and is what a container should be restarted by; ready
means that it can do its work, and is what traffic should be steered by.`,
		Example: "  crossroads node health --config /etc/crossroads/node.yaml\n  crossroads node health --config /etc/crossroads/node.yaml --ready",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			client, err := localClient(cfg.API)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), 3*time.Second)
			defer cancel()
			if !ready {
				return client.Healthy(ctx)
			}
			r, err := client.Ready(ctx)
			if err != nil {
				return err
			}
			t := newTable("CHECK", "OK", "SAYS")
			for _, k := range r.Checks {
				t.add(k.Name, k.OK, k.Says)
			}
			if err := t.write(c.OutOrStdout()); err != nil {
				return err
			}
			if !r.Ready {
				return &exit{code: exitFailure}
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", "", "the node's configuration file")
	c.Flags().BoolVar(&ready, "ready", false, "ask whether it is ready, and print its checks")
	_ = c.MarkFlagRequired("config")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	return c
}

// localClient reaches the API on this machine, whatever address it listens on.
func localClient(cfg config.API) (*api.Client, error) {
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http"
	if cfg.TLSCert != "" {
		scheme = "https"
	}
	client := api.NewClient(scheme+"://"+net.JoinHostPort(host, port), "")
	if cfg.TLSCert != "" {
		b, err := os.ReadFile(cfg.TLSCert)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(b)
		if block == nil {
			return nil, fmt.Errorf("%s: no certificate", cfg.TLSCert)
		}
		client.HTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: pinned(block.Bytes)}}
	}
	return client, nil
}

// pinned accepts exactly the certificate in the node's own configuration: its name is
// not that of this machine's loopback address.
func pinned(leaf []byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // the chain is replaced by the comparison below
		VerifyPeerCertificate: func(chain [][]byte, _ [][]*x509.Certificate) error {
			if len(chain) == 0 || !bytes.Equal(chain[0], leaf) {
				return errors.New("another certificate than api.tls_cert answers there")
			}
			return nil
		},
	}
}
