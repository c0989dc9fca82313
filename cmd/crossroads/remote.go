package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
)

// remote says which node to speak to, and as whom.
type remote struct {
	url, token, tokenFile string
	endpoints, as         string
	user, level           string
	timeout               time.Duration
	reading               api.Reading
	officer               bool // with --endpoints: as the security officer's application
}

// addRemote adds the flags of every verb that speaks to a node.
func addRemote(c *cobra.Command) *remote {
	r := new(remote)
	f := c.Flags()
	f.StringVar(&r.url, "api", "", "URL of the node's API (or CROSSROADS_API)")
	f.StringVar(&r.token, "token", "", "the application's token (or CROSSROADS_TOKEN); others on this machine can see it, prefer --token-file")
	f.StringVar(&r.tokenFile, "token-file", "", "file that holds the application's token")
	f.StringVar(&r.endpoints, "endpoints", "", "file that `testnet up --endpoints` wrote; with --as, instead of --api and --token")
	f.StringVar(&r.as, "as", "", "institution of the test network to speak as")
	f.StringVar(&r.user, "as-user", "", "human user on whose behalf to ask")
	f.StringVar(&r.level, "auth-level", "", "how strongly that user is authenticated, 0 to 4 (default: what the node allows the application)")
	f.DurationVar(&r.timeout, "timeout", 15*time.Second, "how long to wait for the answer")
	c.MarkFlagsMutuallyExclusive("endpoints", "api")
	c.MarkFlagsMutuallyExclusive("token", "token-file", "endpoints")
	c.MarkFlagsRequiredTogether("endpoints", "as")
	_ = c.MarkFlagFilename("endpoints", "json")
	_ = c.MarkFlagFilename("token-file")
	_ = c.RegisterFlagCompletionFunc("as", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var found []string
		if e, err := testnet.ReadEndpoints(r.endpoints); err == nil {
			for _, n := range e.Nodes {
				found = append(found, string(n.Institution))
			}
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	})
	return r
}

// addReading adds the flags of verbs that show public tables.
func (r *remote) addReading(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.reading.Consistency, "consistency", "", "how new a view: stale (what the node holds), lease (at most a lease old), linearizable (everything decided before you asked; takes a token)")
	f.StringVar(&r.reading.MaxStale, "max-stale", "", "with stale: at most this old, as 30s; else it is an error")
	_ = c.RegisterFlagCompletionFunc("consistency", cobra.FixedCompletions([]string{"stale", "lease", "linearizable"}, cobra.ShellCompDirectiveNoFileComp))
}

// client connects, and bounds ctx by --timeout.
func (r *remote) client(ctx context.Context) (*api.Client, context.Context, context.CancelFunc, error) {
	url, token := r.url, r.token
	switch {
	case r.endpoints != "":
		e, err := testnet.ReadEndpoints(r.endpoints)
		if err != nil {
			return nil, nil, nil, err
		}
		n, ok := e.Of(names.InstitutionID(r.as))
		if !ok {
			return nil, nil, nil, usage("%s lists no institution %q; it has %s", r.endpoints, r.as, institutionsOf(e))
		}
		url, token = n.API, n.Token
		if r.officer {
			token = n.Officer
		}
	case r.tokenFile != "":
		b, err := os.ReadFile(r.tokenFile)
		if err != nil {
			return nil, nil, nil, err
		}
		token = strings.TrimSpace(string(b))
	case token == "":
		token = os.Getenv("CROSSROADS_TOKEN")
	}
	if url == "" {
		url = os.Getenv("CROSSROADS_API")
	}
	if url == "" {
		return nil, nil, nil, usage("which node? Say --api URL (or CROSSROADS_API), or --endpoints FILE --as INSTITUTION")
	}
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	c := api.NewClient(url, token)
	c.Reading = r.reading
	c.User, c.AuthLevel, c.Channel = names.UserID(r.user), r.level, "cli"
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	return c, ctx, cancel, nil
}

func institutionsOf(e *testnet.Endpoints) string {
	var all []names.InstitutionID
	for _, n := range e.Nodes {
		all = append(all, n.Institution)
	}
	return joined(all)
}

// subjectFlags are those by which a verb is told a subject.
type subjectFlags struct{ scheme, number string }

func addSubject(c *cobra.Command) *subjectFlags {
	s := new(subjectFlags)
	c.Flags().StringVar(&s.number, "subject", "", "the subject's number; - reads it from standard input, which leaves no copy in the shell's history")
	c.Flags().StringVar(&s.scheme, "scheme", "ssin", "its identifier scheme: ssin, cbe, nsso")
	return s
}

// read gives the subject, or nil when none was told.
func (s *subjectFlags) read(in io.Reader) (*api.Subject, error) {
	number := s.number
	if number == "-" {
		line, err := bufio.NewReader(io.LimitReader(in, 256)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if number = strings.TrimSpace(line); number == "" {
			return nil, usage("standard input holds no number")
		}
	}
	if number == "" {
		return nil, nil
	}
	return &api.Subject{Scheme: s.scheme, Number: number}, nil
}
