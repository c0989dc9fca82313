package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
)

func newCertsJoin() *cobra.Command {
	var tokenFile, out string
	c := &cobra.Command{
		Use:   "join --authority DIR --institution ID --token-file FILE --out DIR",
		Short: "Exchange a join token for a node's identity",
		Long: `Makes a key, has the authority certify it for the identity that the token is for, and
writes svid.pem, key.pem and bundle.pem. The authority's folder must be reachable.`,
		Example: "  crossroads certs join --authority ./authority --institution pcsa --token-file - --out ./pcsa/identity",
		Args:    cobra.NoArgs,
	}
	n := addNode(c, 0)
	f := c.Flags()
	f.StringVar(&tokenFile, "token-file", "", "file that holds the token; - reads standard input")
	f.StringVar(&out, "out", "", "the folder to write to; made if it is not there")
	for _, name := range []string{"token-file", "out"} {
		_ = c.MarkFlagRequired(name)
	}
	_ = c.MarkFlagDirname("out")
	c.RunE = func(c *cobra.Command, _ []string) error {
		token, err := readFile(tokenFile, c.InOrStdin())
		if err != nil {
			return err
		}
		a, id, err := n.open()
		if err != nil {
			return err
		}
		key, request, err := authority.NewRequest(id)
		if err != nil {
			return err
		}
		chain, err := a.Join(strings.TrimSpace(string(token)), request)
		if err != nil {
			return err
		}
		bundle, err := a.Bundle()
		if err != nil {
			return err
		}
		if err := os.MkdirAll(out, 0o700); err != nil {
			return err
		}
		if err := certs.WriteDir(out, &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}, bundle); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s: %s until %s\n", out, id, chain[0].NotAfter.UTC().Format(time.RFC3339))
		return nil
	}
	return c
}

// maxFile is the largest file that a verb reads whole, in bytes.
const maxFile = 8 << 20

// readFile reads a file, or standard input for -.
func readFile(path string, in io.Reader) ([]byte, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return b, err
}
