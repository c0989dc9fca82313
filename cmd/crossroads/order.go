package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/node/reading"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

func newOrder() *cobra.Command {
	c := group("order", "Inspection orders of the committee", newOrderMake(), newOrderSign(), newOrderInspect(), newOrderExecute())
	c.Long = `The committee may order an inspection: of one ticket, one subject, or one institution in a
period. M of N of its members sign the order, one after the other, and the institution
that it names executes it; every node that is asked verifies it by itself.`
	c.Example = `  crossroads order make --mesh demo.crossroads.test --id complaint-12 --reason "Complaint 12" \
      --executor nsso --ticket 0123456789abcdefghjkmnpqrs --out complaint.order
  crossroads order inspect complaint.order
  crossroads order sign complaint.order --key committee-1.key
  crossroads order sign complaint.order --key committee-2.key
  crossroads order execute complaint.order --endpoints net.json --as nsso`
	return c
}

func newOrderMake() *cobra.Command {
	var mesh, id, reason, executor, ticket, institution, from, until, out string
	var life time.Duration
	c := &cobra.Command{
		Use:   "make --mesh MESH --id ID --reason TEXT --executor INSTITUTION --out FILE",
		Short: "Make an unsigned inspection order",
		Long: `Names one of --ticket, --subject, or --institution with --from and --until. The reason is
for people, and holds no subject's number.`,
		Example: `  crossroads order make --mesh demo.crossroads.test --id complaint-12 --reason "Complaint 12" \
      --executor nsso --subject - --out complaint.order
  crossroads order make --mesh demo.crossroads.test --id audit-3 --reason "Yearly audit" \
      --executor nsso --institution pcsa-ghent --from 2026-01-01 --until 2026-02-01 --out audit.order`,
		Args: cobra.NoArgs,
	}
	who := addSubject(c)
	f := c.Flags()
	f.StringVar(&mesh, "mesh", "", "the mesh")
	f.StringVar(&id, "id", "", "of the order: lower case letters, digits and dashes")
	f.StringVar(&reason, "reason", "", "why, on one line")
	f.StringVar(&executor, "executor", "", "institution, or institution/node, that may execute it")
	f.StringVar(&ticket, "ticket", "", "inspect this ticket")
	f.StringVar(&institution, "institution", "", "inspect what names this institution")
	f.StringVar(&from, "from", "", "with --institution: from this day (UTC) or time on")
	f.StringVar(&until, "until", "", "with --institution: before this day or time")
	f.DurationVar(&life, "life", 30*24*time.Hour, "how long the order holds, at most 90 days")
	f.StringVar(&out, "out", "", "file to write; it must not be there yet")
	for _, name := range []string{"mesh", "id", "reason", "executor", "out"} {
		_ = c.MarkFlagRequired(name)
	}
	c.MarkFlagsMutuallyExclusive("ticket", "subject", "institution")
	c.MarkFlagsOneRequired("ticket", "subject", "institution")
	c.MarkFlagsRequiredTogether("institution", "from", "until")
	c.RunE = func(c *cobra.Command, _ []string) error {
		now := time.Now()
		o := &nodepb.InspectionOrder{
			Mesh: mesh, Id: id, Reason: reason, Executor: &registrypb.NodeRef{Institution: executor},
			IssuedUnixMs: now.UnixMilli(), ExpiresUnixMs: now.Add(life).UnixMilli(),
		}
		if n, err := names.ParseNodeID(executor); err == nil {
			o.Executor = &registrypb.NodeRef{Institution: string(n.Institution), Node: string(n.Node)}
		}
		switch {
		case ticket != "":
			o.Scope = &nodepb.InspectionOrder_Ticket{Ticket: ticket}
		case institution != "":
			begin, err := moment("--from", from)
			if err != nil {
				return err
			}
			end, err := moment("--until", until)
			if err != nil {
				return err
			}
			if begin == nil || end == nil {
				return usage("--institution takes --from and --until")
			}
			o.Scope = &nodepb.InspectionOrder_Institution{Institution: &nodepb.InspectedInstitution{
				Id: institution, FromUnixMs: begin.UnixMilli(), UntilUnixMs: end.UnixMilli(),
			}}
		default:
			told, err := who.read(c.InOrStdin())
			if err != nil {
				return err
			}
			if told == nil {
				return usage("--subject is empty")
			}
			number, err := subject.Belgian().Parse(subject.Scheme(told.Scheme), told.Number)
			if err != nil {
				return usage("--subject: %w", err)
			}
			o.Scope = &nodepb.InspectionOrder_Subject{Subject: &registrypb.Subject{Scheme: told.Scheme, Number: number.Number()}}
		}
		raw, err := reading.NewOrder(o, subject.Belgian())
		if err != nil {
			return usage("%w", err)
		}
		return writeNew(out, raw)
	}
	return c
}

// openOrder reads an order's file, without believing it.
func openOrder(path string, in io.Reader) ([]byte, *envelope.Opened, *nodepb.InspectionOrder, error) {
	raw, err := readFile(path, in)
	if err != nil {
		return nil, nil, nil, err
	}
	opened, o, err := reading.OpenOrder(raw, subject.Belgian())
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return raw, opened, o, nil
}

func newOrderSign() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use:     "sign FILE --key KEY",
		Short:   "Add a signature to an inspection order",
		Long:    "Adds one signature; whoever has signed before stays. Look at what you sign first: order inspect.",
		Example: "  crossroads order sign complaint.order --key committee-1.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			raw, _, _, err := openOrder(args[0], c.InOrStdin())
			if err != nil {
				return err
			}
			signer, err := certs.LoadSigner(key)
			if err != nil {
				return err
			}
			signed, err := envelope.AddSignature(raw, signer)
			if err != nil {
				return err
			}
			// Replaced whole: the others' signatures must survive a full disk.
			next := args[0] + ".new"
			if err := writeNew(next, signed); err != nil {
				return err
			}
			if err := os.Rename(next, args[0]); err != nil {
				return err
			}
			opened, err := envelope.Open(envelope.InspectionOrder, signed)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "signed by %s\n", joined(opened.KeyIDs()))
			return err
		},
	}
	c.Flags().StringVar(&key, "key", "", "file of the signing key")
	_ = c.MarkFlagRequired("key")
	return c
}

func newOrderInspect() *cobra.Command {
	return &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Print what an inspection order says, and which keys claim to have signed it",
		Long:    "Prints the order as JSON. Signatures are not verified here: every node does, against the committee's keys.",
		Example: "  crossroads order inspect complaint.order",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			_, opened, o, err := openOrder(args[0], c.InOrStdin())
			if err != nil {
				return err
			}
			b, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(o)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s\nexpires: %s\nsigned by: %s\n", b,
				time.UnixMilli(o.ExpiresUnixMs).UTC().Format(time.RFC3339), joined(opened.KeyIDs()))
			return err
		},
	}
}

func newOrderExecute() *cobra.Command {
	c := &cobra.Command{
		Use:   "execute FILE",
		Short: "Execute an inspection order, and tell what the journals of the network hold",
		Long: `The node shows the order to every node that can know, and joins what they show. Everything
is journaled everywhere.

Exit code 4 means that not every journal could be read whole; 5 that something is
missing, altered or contradicted.`,
		Example: "  crossroads order execute complaint.order --endpoints net.json --as nsso",
		Args:    cobra.ExactArgs(1),
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		raw, _, _, err := openOrder(args[0], c.InOrStdin())
		if err != nil {
			return err
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		found, err := client.Inspect(ctx, raw)
		if err != nil {
			return err
		}
		if err := out.print(c.OutOrStdout(), found, func(w io.Writer) error { return writeInspection(w, found) }); err != nil {
			return err
		}
		return inspectionExit(found)
	}
	return c
}

func inspectionExit(found *reading.Inspection) error {
	if len(found.Altered) > 0 {
		return &exit{code: exitFindings}
	}
	for _, s := range found.Stories {
		if s.Verdict != "consistent" {
			return &exit{code: exitFindings}
		}
	}
	if !found.Complete {
		return &exit{code: exitIncomplete}
	}
	return nil
}

func writeInspection(w io.Writer, in *reading.Inspection) error {
	fmt.Fprintf(w, "Inspection order %s: %s\n%d tickets, as %d journals tell.\n\n", clean(in.Order), clean(in.Reason), len(in.Stories), len(in.Journals))
	for _, s := range in.Stories {
		if err := s.Write(w); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if len(in.Entries) > 0 {
		t := newTable("TIME", "JOURNAL", "EVENT", "BY", "USER", "PURPOSE", "OUTCOME", "DETAIL")
		for _, e := range in.Entries {
			t.add(e.Time.Format(time.RFC3339), e.Node, e.Event, e.By, e.User, e.Purpose, e.Outcome, e.Detail)
		}
		if err := t.write(w); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for _, a := range in.Altered {
		fmt.Fprintf(w, "ALTERED: entry %d of %s: %s.\n", a.Sequence, clean(a.Node), clean(a.Says))
	}
	return writeUnreached(w, in.NotReached, in.Shortened)
}
