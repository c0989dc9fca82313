package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/reading"
)

func newSubject() *cobra.Command {
	c := group("subject", "What the network's journals hold on one subject, for that subject", newSubjectChallenge(), newSubjectView())
	c.Long = `A subject sees who consulted its data: when, why, on what legal basis, which kinds of
data, refusals too. It shows a token of an identity provider, made for a challenge of
this node's: good for one use, within minutes, and for nothing else.`
	c.Example = `  crossroads subject challenge --endpoints net.json --as pcsa-ghent > challenge.json
  crossroads testnet token challenge.json --endpoints net.json --subject - > identity.token
  crossroads subject view identity.token --endpoints net.json --as pcsa-ghent`
	return c
}

func newSubjectChallenge() *cobra.Command {
	var from, until string
	c := &cobra.Command{
		Use:   "challenge",
		Short: "Ask the node what an identity token must be made for",
		Long: `Prints the challenge as JSON, for the identity provider. It serves once, for a few
minutes, and this application at this node only.`,
		Example: `  crossroads subject challenge --endpoints net.json --as pcsa-ghent > challenge.json
  crossroads subject challenge --from 2026-01-01 --until 2026-02-01 --api http://127.0.0.1:7480 --token-file portal.token`,
		Args: cobra.NoArgs,
	}
	r := addRemote(c)
	c.Flags().StringVar(&from, "from", "", "from this day (UTC) or time on (default: six months ago)")
	c.Flags().StringVar(&until, "until", "", "before this day or time (default: now)")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		var p api.SubjectPeriod
		if p.From, err = moment("--from", from); err != nil {
			return err
		}
		if p.Until, err = moment("--until", until); err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		challenge, err := client.SubjectChallenge(ctx, p)
		if err != nil {
			return err
		}
		return format("json").print(c.OutOrStdout(), challenge, nil)
	}
	return c
}

func newSubjectView() *cobra.Command {
	c := &cobra.Command{
		Use:   "view FILE",
		Short: "List who looked, when, why and at what",
		Long: `FILE holds the identity token in base64, or - stands for standard input. The node asks
every node that can know, and names those that it could not reach. That you looked is
journaled everywhere.

Exit code 4 means that the list is not complete.`,
		Example: `  crossroads subject view identity.token --endpoints net.json --as pcsa-ghent
  crossroads subject view - -o csv --api http://127.0.0.1:7480 --token-file portal.token`,
		Args: cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addSheetFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		text, err := readFile(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		token, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			return usage("%s holds no identity token in base64", args[0])
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		view, err := client.SubjectView(ctx, token)
		if err != nil {
			return err
		}
		if out.format == "csv" {
			err = writeCSV(c.OutOrStdout(), usesTable(view))
		} else {
			err = out.print(c.OutOrStdout(), view, func(w io.Writer) error { return writeView(w, view) })
		}
		if err == nil && !view.Complete {
			return &exit{code: exitIncomplete}
		}
		return err
	}
	return c
}

func writeView(w io.Writer, v *reading.SubjectView) error {
	var files []string
	for _, f := range v.Files {
		files = append(files, named(f))
	}
	fmt.Fprintf(w, "From %s until %s, as %d journals tell.\n", v.From.Format(time.RFC3339), v.Until.Format(time.RFC3339), len(v.Journals))
	fmt.Fprintf(w, "A file is held by: %s\n\n", clean(strings.Join(files, "; ")))
	for _, u := range v.Uses {
		fmt.Fprintf(w, "%s  %s %s", u.Time.Format(time.RFC3339), u.Kind, u.Outcome)
		if u.Reason != "" {
			fmt.Fprintf(w, " (%s)", clean(u.Reason))
		}
		fmt.Fprintln(w)
		t := newTable()
		t.rows = nil
		for _, p := range [][2]string{
			{"by", named(u.Institution)}, {"user", u.User}, {"application", u.Application}, {"purpose", string(u.Purpose)},
			{"legal basis", u.LegalBasis}, {"deliberation", string(u.Deliberation)}, {"data", dataOf(u)}, {"fields", strings.Join(u.Fields, ", ")},
			{"withheld", strings.Join(u.Withheld, ", ")}, {"supplied", suppliersOf(u)}, {"ticket", string(u.Ticket)},
			{"told by", strings.Join(u.ToldBy, ", ")}, {"note", yes(u.Disputed, "the journals do not agree on it: ask for a trace")},
		} {
			if p[1] != "" {
				t.add("  "+p[0], p[1])
			}
		}
		if err := t.write(w); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if len(v.Uses) == 0 {
		fmt.Fprintln(w, "Nothing was done in this time.")
	}
	return writeUnreached(w, v.NotReached, v.Shortened)
}

func writeUnreached(w io.Writer, missing []reading.Unreached, shortened []string) error {
	for _, n := range missing {
		fmt.Fprintf(w, "Not told by %s: %s.\n", clean(n.Node), clean(n.Why))
	}
	for _, n := range shortened {
		fmt.Fprintf(w, "%s knows of more than it told: ask for a shorter time.\n", clean(n))
	}
	return nil
}

func named(i reading.Institution) string {
	if i.Name == "" {
		return string(i.ID)
	}
	return fmt.Sprintf("%s (%s)", i.Name, i.ID)
}

func dataOf(u reading.Use) string {
	if u.Title == "" {
		return string(u.Dataset)
	}
	return fmt.Sprintf("%s (%s)", u.Title, u.Dataset)
}

func suppliersOf(u reading.Use) string {
	var all []string
	for _, s := range u.Suppliers {
		text := named(s.Institution) + ": " + s.Status
		if s.Reason != "" {
			text += " " + s.Reason
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

func usesTable(v *reading.SubjectView) [][]string {
	rows := [][]string{{
		"time", "kind", "outcome", "reason", "institution", "institution_name", "user", "application", "purpose", "legal_basis",
		"deliberation", "authorization", "dataset", "fields", "withheld", "suppliers", "ticket", "told_by",
	}}
	for _, u := range v.Uses {
		rows = append(rows, []string{
			u.Time.Format(time.RFC3339Nano), string(u.Kind), u.Outcome, u.Reason, string(u.Institution.ID), u.Institution.Name, u.User, u.Application,
			string(u.Purpose), u.LegalBasis, string(u.Deliberation), string(u.Authorization), string(u.Dataset), strings.Join(u.Fields, " "),
			strings.Join(u.Withheld, " "), suppliersOf(u), string(u.Ticket), strings.Join(u.ToldBy, " "),
		})
	}
	return rows
}
