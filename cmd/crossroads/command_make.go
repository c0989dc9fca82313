package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func newCommandMake() *cobra.Command {
	var mesh, author, chain, after, out string
	c := &cobra.Command{
		Use:   "make FILE --mesh MESH --author AUTHOR --out FILE",
		Short: "Make an unsigned command from its JSON",
		Long: `The JSON has one property, the body of a Command as registry/registrypb/record.proto
names it: {"revoke_authorization": {"id": "social-inquiry-wages"}}. Author is an
institution's ID, @operators or @committee. --after names the file of the author's
command before this one in the same chain; without it this is the first.`,
		Example: "  crossroads command make revoke.json --mesh demo.crossroads.example --author @committee --after last.cmd --out revoke.cmd",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			body, err := readFile(args[0], c.InOrStdin())
			if err != nil {
				return err
			}
			cmd := new(registrypb.Command)
			if err := protojson.Unmarshal(body, cmd); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if cmd.Mesh != "" || cmd.Author != "" || cmd.Sequence != 0 || len(cmd.Previous) > 0 || cmd.TimeUnixMs != 0 || cmd.Body == nil {
				return fmt.Errorf("%s: want the body of the command and nothing else", args[0])
			}
			cmd.Mesh, cmd.Author, cmd.Sequence, cmd.TimeUnixMs = mesh, author, 1, time.Now().UnixMilli()
			n, ok := registrypb.Chain_value[strings.ToUpper(chain)]
			if !ok {
				return usage("--chain: want public or directory")
			}
			cmd.Chain = registrypb.Chain(n)
			if after != "" {
				_, before, last, err := openCommand(after, c.InOrStdin())
				if err != nil {
					return err
				}
				if last.Mesh != mesh || last.Author != author || last.Chain != cmd.Chain {
					return usage("--after: %s is a command of another mesh, author or chain", after)
				}
				hash := sha256.Sum256(before.Payload)
				cmd.Sequence, cmd.Previous = last.Sequence+1, hash[:]
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
		},
	}
	f := c.Flags()
	f.StringVar(&mesh, "mesh", "", "the mesh")
	f.StringVar(&author, "author", "", "whose command it is")
	f.StringVar(&chain, "chain", "public", "public, or directory for references and numbers")
	f.StringVar(&after, "after", "", "file of the author's command before this one")
	f.StringVar(&out, "out", "", "file to write; it must not be there yet")
	for _, name := range []string{"mesh", "author", "out"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
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
