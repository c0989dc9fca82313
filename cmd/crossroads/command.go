package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

func newCommand() *cobra.Command {
	c := group("command", "Make and sign registry commands by hand", newCommandMake(), newCommandSign(), newCommandInspect())
	c.Long = `A registry command is signed by its author, numbered, and names the one before it. The
operators and the committee sign with several people: one makes the command, the file
goes round, each looks at it and signs, and whoever has an admin application submits it.`
	c.Example = `  crossroads command make revoke.json --mesh demo.crossroads.example --author @committee --out revoke.cmd \
      --api http://127.0.0.1:7480 --token-file admin.token
  crossroads command inspect revoke.cmd
  crossroads command sign revoke.cmd --key committee-1.key
  crossroads command sign revoke.cmd --key committee-2.key
  crossroads registry submit revoke.cmd --timeout 60s --api http://127.0.0.1:7480 --token-file admin.token`
	return c
}

// openCommand reads a command's file, without believing it.
func openCommand(path string, in io.Reader) (raw []byte, opened *envelope.Opened, cmd *registrypb.Command, err error) {
	if raw, err = readFile(path, in); err != nil {
		return nil, nil, nil, err
	}
	if opened, err = envelope.Open(envelope.Command, raw); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	cmd = new(registrypb.Command)
	if err := proto.Unmarshal(opened.Payload, cmd); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: no registry command: %w", path, err)
	}
	return raw, opened, cmd, nil
}
