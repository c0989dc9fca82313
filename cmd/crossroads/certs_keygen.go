package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
)

func newCertsKeygen() *cobra.Command {
	return group("keygen", "Make the keys that a node's configuration names; no file is overwritten",
		newKeygenSigning(),
		&cobra.Command{
			Use:     "storage FILE",
			Short:   "Make the key that a node's data are encrypted under (data.key_file)",
			Long:    "Writes a 256-bit key, mode 0600. Keep it out of backups of the data: whoever has both can read them, and without it nobody can.",
			Example: "  crossroads certs keygen storage storage.key",
			Args:    cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				_, err := certs.NewStorageKey(args[0])
				return err
			},
		},
		&cobra.Command{
			Use:     "gossip FILE",
			Short:   "Make a node's gossip key (gossip.key_file)",
			Long:    "Writes an X25519 key, mode 0600, and prints its public part, which stands in the registry beside the node.",
			Example: "  crossroads certs keygen gossip gossip.key",
			Args:    cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				k, err := certs.NewBoxKey(args[0])
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(c.OutOrStdout(), k.Public())
				return err
			},
		},
		&cobra.Command{
			Use:     "token",
			Short:   "Make an application's token, and the hash of it that belongs in api.applications",
			Long:    "Prints a random token, to be given to the application and shown nowhere else, and its SHA-256, to be put in the node's configuration.",
			Example: "  crossroads certs keygen token",
			Args:    cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				token := rand.Text() + rand.Text()
				_, err := fmt.Fprintf(c.OutOrStdout(), "token:        %s\ntoken_sha256: %x\n", token, sha256.Sum256([]byte(token)))
				return err
			},
		})
}

func newKeygenSigning() *cobra.Command {
	var public string
	c := &cobra.Command{
		Use:   "signing FILE",
		Short: "Make an institution's signing key (signing.key_file), or one of an operator or committee",
		Long: `Writes an Ed25519 key, mode 0600, and prints its ID and public part, which belong in the registry or the genesis file.
With --public the public part is written to a file too, for whoever makes the command that lets it sign.`,
		Example: "  crossroads certs keygen signing signing.key\n  crossroads certs keygen signing operator-4.key --public operator-4.pub",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := certs.NewSigner(args[0])
			if err != nil {
				return err
			}
			pub, ok := s.Public().(ed25519.PublicKey)
			if !ok {
				return fmt.Errorf("%s: not Ed25519", args[0])
			}
			if public != "" {
				pem, err := certs.PublicKeyPEM(pub)
				if err != nil {
					return err
				}
				if err := writeNew(public, pem); err != nil {
					return err
				}
			}
			t := newTable("KEY", "PUBLIC")
			t.add(envelope.KeyID(pub), certs.EncodePublicKey(pub))
			return t.write(c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&public, "public", "", "file for the public part; it must not be there yet")
	return c
}
