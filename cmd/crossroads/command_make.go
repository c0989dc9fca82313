package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func newCommandMake() *cobra.Command {
	var mesh, author, after, out string
	var first bool
	c := &cobra.Command{
		Use:   "make FILE --mesh MESH --author AUTHOR --out FILE",
		Short: "Make an unsigned command from its JSON",
		Long: `The JSON has one property, the body of a Command as registry/registrypb/record.proto
names it: {"revoke_authorization": {"id": "social-inquiry-wages"}}. Author is an
institution's ID, @operators, @committee or @recovery.

A command says which of its author's it follows. A node tells that, with the flags by
which one is reached; without a node, --after names the file of the command before this
one in the same chain, or --first says that there is none.`,
		Example: `  crossroads command make revoke.json --mesh demo.crossroads.example --author @committee --out revoke.cmd \
      --api http://127.0.0.1:7480 --token-file app.token
  crossroads command make revoke.json --mesh demo.crossroads.example --author @committee --out revoke.cmd --after last.cmd`,
		Args: cobra.ExactArgs(1),
	}
	r := addRemote(c)
	f := c.Flags()
	f.StringVar(&mesh, "mesh", "", "the mesh")
	f.StringVar(&author, "author", "", "whose command it is")
	f.StringVar(&after, "after", "", "file of the author's command before this one")
	f.BoolVar(&first, "first", false, "it is the first of its chain")
	f.StringVar(&out, "out", "", "file to write; it must not be there yet")
	for _, name := range []string{"mesh", "author", "out"} {
		_ = c.MarkFlagRequired(name)
	}
	c.MarkFlagsMutuallyExclusive("after", "first")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		body, err := readFile(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		cmd := new(registrypb.Command)
		if err := protojson.Unmarshal(body, cmd); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if alone := (&registrypb.Command{Body: cmd.Body}); cmd.Body == nil || !proto.Equal(cmd, alone) {
			return fmt.Errorf("%s: want the body of the command and nothing else", args[0])
		}
		cmd.Mesh, cmd.Author, cmd.Chain, cmd.TimeUnixMs = mesh, author, chainOf(cmd), time.Now().UnixMilli()
		if cmd.Chain == registrypb.Chain_DIRECTORY {
			cmd.Nonce = registry.NewNonce()
		}
		switch {
		case first:
			cmd.Sequence = 1
		case after != "":
			err = followFile(c, cmd, after)
		default:
			err = followNode(c, cmd, r)
		}
		if err != nil {
			return err
		}
		payload, err := proto.Marshal(cmd)
		if err != nil {
			return err
		}
		raw, err := envelope.Sign(envelope.Command, payload)
		if err != nil {
			return err
		}
		return writeNew(out, raw)
	}
	return c
}

// chainOf gives the chain that a command of this kind belongs to.
func chainOf(c *registrypb.Command) registrypb.Chain {
	switch c.Body.(type) {
	case *registrypb.Command_DeclareReferences, *registrypb.Command_DeclarePacked, *registrypb.Command_SetNumbers:
		return registrypb.Chain_DIRECTORY
	}
	return registrypb.Chain_PUBLIC
}

// followFile numbers cmd after the command in a file.
func followFile(c *cobra.Command, cmd *registrypb.Command, path string) error {
	_, before, last, err := openCommand(path, c.InOrStdin())
	if err != nil {
		return err
	}
	if last.Mesh != cmd.Mesh || last.Author != cmd.Author || last.Chain != cmd.Chain {
		return usage("--after: %s is a command of another mesh, author or chain", path)
	}
	hash := sha256.Sum256(before.Payload)
	cmd.Sequence, cmd.Previous = last.Sequence+1, hash[:]
	return nil
}

// followNode numbers cmd after the last one that a node knows of.
func followNode(c *cobra.Command, cmd *registrypb.Command, r *remote) error {
	client, ctx, cancel, err := r.client(c.Context())
	if err != nil {
		return fmt.Errorf("%w; or say --after FILE or --first", err)
	}
	defer cancel()
	head, err := client.RegistryHead(ctx, cmd.Author, strings.ToLower(cmd.Chain.String()), 0)
	if err != nil {
		return err
	}
	if cmd.Previous, err = hex.DecodeString(head.Hash); err != nil {
		return fmt.Errorf("the node's answer: %w", err)
	}
	cmd.Sequence = head.Sequence + 1
	return nil
}

// writeNew writes a file that must not be there yet.
func writeNew(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
