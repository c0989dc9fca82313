package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/testnet"
)

func newTestnetToken() *cobra.Command {
	var endpoints, keyFile string
	c := &cobra.Command{
		Use:   "token FILE",
		Short: "Play the test identity provider: answer a node's challenge for an invented person",
		Long: `FILE holds what subject challenge printed. Prints an identity token in base64, for subject
view. The test provider believes whoever holds its key; a real one asks the person.`,
		Example: `  crossroads subject challenge --endpoints net.json --as pcsa-ghent > challenge.json
  crossroads testnet token challenge.json --endpoints net.json --subject - > identity.token`,
		Args: cobra.ExactArgs(1),
	}
	who := addSubject(c)
	f := c.Flags()
	f.StringVar(&endpoints, "endpoints", "", "file that `testnet up --endpoints` wrote; it names the provider's key")
	f.StringVar(&keyFile, "key", "", "file of the provider's key")
	_ = c.MarkFlagRequired("subject")
	_ = c.MarkFlagFilename("endpoints", "json")
	c.MarkFlagsOneRequired("endpoints", "key")
	c.MarkFlagsMutuallyExclusive("endpoints", "key")
	c.RunE = func(c *cobra.Command, args []string) error {
		if args[0] == "-" && who.number == "-" {
			return usage("only one of FILE and --subject can be standard input")
		}
		text, err := readFile(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		challenge := new(reading.Challenge)
		if err := json.Unmarshal(text, challenge); err != nil {
			return fmt.Errorf("%s: no challenge: %w", args[0], err)
		}
		person, err := who.read(c.InOrStdin())
		if err != nil {
			return err
		}
		if person == nil {
			return usage("--subject is empty")
		}
		if endpoints != "" {
			e, err := testnet.ReadEndpoints(endpoints)
			if err != nil {
				return err
			}
			keyFile = e.ProviderKey
		}
		token, err := testnet.Identify(keyFile, challenge, *person, nil)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), base64.StdEncoding.EncodeToString(token))
		return err
	}
	return c
}
