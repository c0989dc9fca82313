package main

import (
	"bufio"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/journal/archive"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newJournalArchive() *cobra.Command {
	return group("archive", "Archives that journal export wrote", newJournalArchiveVerify())
}

func newJournalArchiveVerify() *cobra.Command {
	var file, sha, key, form string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check an archive without a node: that it is whole, unaltered and by that institution",
		Long: `Checks every entry, the run, its place in the journal's tree, the checkpoint over that and
the seal. It takes only the institution's public key: --key, or --genesis with the hash
that the operators published, if the institution is one of the first members.

With -o json it prints the entries, one a line. They are to be believed only if the exit
code is 0.`,
		Example: `  crossroads journal archive verify january.archive --genesis genesis.json --sha256 HASH
  crossroads journal archive verify january.archive --key iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w= -o json`,
		Args: cobra.ExactArgs(1),
	}
	f := c.Flags()
	f.StringVar(&file, "genesis", "", "the genesis file of the mesh")
	f.StringVar(&sha, "sha256", "", "its hash, as the operators published it")
	f.StringVar(&key, "key", "", "the institution's public key, base64")
	f.StringVarP(&form, "output", "o", "text", "text, or json for the entries")
	_ = c.MarkFlagFilename("genesis", "json")
	c.MarkFlagsRequiredTogether("genesis", "sha256")
	c.MarkFlagsOneRequired("genesis", "key")
	c.MarkFlagsMutuallyExclusive("genesis", "key")
	c.RunE = func(c *cobra.Command, args []string) error {
		if form != "text" && form != "json" {
			return usage("-o: want text or json")
		}
		trusted, err := archiveKeys(file, sha, key)
		if err != nil {
			return err
		}
		in := c.InOrStdin()
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		out := bufio.NewWriter(c.OutOrStdout())
		var each func(*nodepb.StoredEntry) error
		if form == "json" {
			e := json.NewEncoder(out)
			each = func(s *nodepb.StoredEntry) error { return e.Encode(jsonEntry(s)) }
		}
		v, err := archive.Verify(in, trusted, each)
		if err == nil && form == "text" {
			tellArchive(out, v)
		}
		err = errors.Join(err, out.Flush())
		if errors.Is(err, archive.ErrAltered) || errors.Is(err, archive.ErrMalformed) {
			return &exit{exitFindings, err}
		}
		return err
	}
	return c
}

func archiveKeys(file, sha, key string) (func(names.MeshID, names.InstitutionID) []ed25519.PublicKey, error) {
	if key != "" {
		pub, err := base64.StdEncoding.DecodeString(key)
		if err == nil {
			err = envelope.CheckKey(pub)
		}
		if err != nil {
			return nil, usage("--key: want an Ed25519 public key in base64: %w", err)
		}
		return func(names.MeshID, names.InstitutionID) []ed25519.PublicKey { return []ed25519.PublicKey{pub} }, nil
	}
	g, err := genesis.Load(file, sha)
	if err != nil {
		return nil, err
	}
	return func(mesh names.MeshID, inst names.InstitutionID) (keys []ed25519.PublicKey) {
		for _, m := range g.Members {
			if mesh == g.Mesh && m.Institution == inst {
				keys = append(keys, m.PublicKey)
			}
		}
		return keys
	}, nil
}

func tellArchive(w io.Writer, v *archive.Verified) {
	fmt.Fprintf(w, "good: %d entries of the journal of %s in mesh %s, %d to %d of %d\n",
		v.Until-v.First, v.Node, v.Mesh, v.First, v.Until, v.Size)
	fmt.Fprintf(w, "sealed on %s by %s with %s\n", v.Time.UTC().Format(time.RFC3339), clean(v.Who), envelope.KeyID(v.Key))
	if v.Checkpoint == nil {
		fmt.Fprintln(w, "no checkpoint in it: only the seal says that this was the journal then")
	} else {
		fmt.Fprintf(w, "proven in the journal's checkpoint over %d entries, root %s\n", v.Size, base64.StdEncoding.EncodeToString(v.Root[:]))
	}
	if v.Erased > 0 {
		fmt.Fprintf(w, "%d of them are erased, and commitments alone:\n", v.Erased)
	}
	for _, t := range v.Tombstones {
		fmt.Fprintf(w, "  %s, entries %d to %d, erased on %s under %s by %s\n", clean(t.Period), t.First, t.Last,
			time.UnixMilli(t.TimeUnixMs).UTC().Format(time.DateOnly), clean(t.Reason), clean(t.Who))
	}
}

func decodeEntry(raw []byte) (*nodepb.Entry, error) {
	e := new(nodepb.Entry)
	return e, proto.Unmarshal(raw, e)
}

func publicOf(s crypto.Signer) (ed25519.PublicKey, bool) {
	pub, ok := s.Public().(ed25519.PublicKey)
	return pub, ok
}
