package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func newOperator() *cobra.Command {
	c := group("operator", "Run the mesh: its health, who votes, snapshots, the keys that sign for it",
		newOperatorHealth(), newOperatorMembers(), newOperatorRaft(), newOperatorAutopilot(), newOperatorSnapshot(),
		newRegistryStateHash(), newOperatorKeys(), newOperatorDebug())
	c.Long = `For those who run the mesh. These verbs speak to a node as an application with
operator: true in its configuration. That gives a view, and no right in the mesh: whatever
changes who votes or who signs makes a command, which M of N operators sign (crossroads
command sign) and submit (crossroads registry submit).`
	c.Example = `  crossroads operator health --endpoints net.json --as nsso
  crossroads operator autopilot state --api http://127.0.0.1:7480 --token-file operator.token
  crossroads operator raft remove-peer fps-finance/n1 --out remove.cmd --mesh demo.example --api ... --token-file ...
  crossroads operator snapshot save registry.snapshot --api ... --token-file ...`
	return c
}

// asked is a verb that asks a node one thing and prints it.
func asked[T any](use, short, long string, get func(context.Context, *api.Client) (T, error), table func(io.Writer, T) error, verdict func(T) error) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.NoArgs,
		Example: "  crossroads operator " + use + " --endpoints net.json --as nsso",
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		v, err := get(ctx, client)
		if err != nil {
			return err
		}
		if err := out.print(c.OutOrStdout(), v, func(w io.Writer) error { return table(w, v) }); err != nil {
			return err
		}
		if verdict == nil {
			return nil
		}
		return verdict(v)
	}
	return c
}

func newOperatorHealth() *cobra.Command {
	return asked("health", "The whole mesh in one look", `Asks every node of the mesh, through one of them, how it does: exit code 0 when all is
well, 1 when something is not, and then it says what, and what to do. BEHIND counts
indexes. A node with GRANT "none" cannot be sure of what the registry says and does no
work; "silent" is one that does not answer.`,
		func(ctx context.Context, c *api.Client) (api.MeshHealth, error) { return c.MeshHealth(ctx) },
		func(w io.Writer, h api.MeshHealth) error {
			if err := writeNodes(w, h.Nodes); err != nil {
				return err
			}
			leader := h.Leader
			if leader == "" {
				leader = "nobody"
			}
			fmt.Fprintf(w, "\nleader %s, term %d, feature level %d, index %d; %d further members may fail\n", clean(leader), h.Term, h.FeatureLevel, h.AppliedIndex, h.FailureTolerance)
			for _, p := range h.Problems {
				fmt.Fprintf(w, "problem: %s\n", clean(p))
			}
			if h.Healthy {
				fmt.Fprintln(w, "all is well")
			}
			return nil
		},
		func(h api.MeshHealth) error {
			if !h.Healthy {
				return &exit{code: exitFailure}
			}
			return nil
		})
}

func writeNodes(w io.Writer, nodes []api.NodeHealth) error {
	t := newTable("NODE", "MEMBER", "VOTES", "STATE", "TERM", "APPLIED", "BEHIND", "GRANT", "LEVEL", "ADDRESS")
	for _, n := range nodes {
		grant := "none"
		if n.GrantValid {
			grant = "valid"
		}
		t.add(n.Node, yes(n.Member, "member"), yes(n.Votes, "votes"), n.State, known(n.Term), n.AppliedIndex, n.Behind, grant, known(n.KnowsLevel), n.Address)
	}
	return t.write(w)
}

func newOperatorMembers() *cobra.Command {
	return asked("members", "The members of the registry, and how each does", `Lists those whom the signed members record names. To change it, make a command:
crossroads command make with {"set_members": {"voters": [{"institution": ..., "node": ...}]}},
which M of N operators sign; or crossroads operator raft remove-peer. Who is new comes in
without a vote and gets it by itself once it has caught up.`,
		func(ctx context.Context, c *api.Client) ([]api.NodeHealth, error) {
			h, err := c.MeshHealth(ctx)
			members := []api.NodeHealth{}
			for _, n := range h.Nodes {
				if n.Member {
					members = append(members, n)
				}
			}
			return members, err
		}, writeNodes, nil)
}

func newOperatorDebug() *cobra.Command {
	c := &cobra.Command{
		Use:   "debug FILE",
		Short: "An archive for whoever looks for a fault",
		Long: `Writes a tar.gz with version, settings, readiness, the health of the mesh, consensus, state
hash, metrics and goroutines. What is in it was chosen piece by piece: no number of a
subject, no key, no token, no user, no path. The node's log is not in it. Journaled.`,
		Example: "  crossroads operator debug debug.tar.gz --api http://127.0.0.1:7480 --token-file operator.token",
		Args:    cobra.ExactArgs(1),
	}
	r := addRemote(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return saveArchive(c, r, "debug", args[0])
	}
	return c
}

func newOperatorRaft() *cobra.Command {
	list := asked("list-peers", "Who is in the consensus group, as its leader sees it", `Asks the node that leads; any other says which does. RECORDED: the members record names
it. A nonvoter has not caught up yet, or was silent for too long.`,
		func(ctx context.Context, c *api.Client) (api.Autopilot, error) { return c.AutopilotState(ctx) }, writePeers, nil)
	list.Example = "  crossroads operator raft list-peers --endpoints net.json --as nsso"
	return group("raft", "The consensus group of the registry's members", list, newRaftTransfer(), newRaftCompact(), newRaftRemove())
}

func writePeers(w io.Writer, a api.Autopilot) error {
	t := newTable("NODE", "RECORDED", "SUFFRAGE", "LEADER", "HEALTHY", "STABLE", "SILENT", "TERM", "LAST INDEX", "LAG")
	for _, p := range a.Peers {
		t.add(p.Node, yes(p.Recorded, "yes"), p.Suffrage, yes(p.Leader, "leads"), yes(p.Healthy, "yes"), span(p.StableMs), span(p.SilentMs), p.Term, p.LastIndex, p.Lag)
	}
	return t.write(w)
}

func span(ms int64) string {
	return (time.Duration(ms) * time.Millisecond).Round(100 * time.Millisecond).String()
}

func newRaftTransfer() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "transfer-leader",
		Short: "Hand the lead over, as before maintenance of the leader's machine",
		Long: `Asks the node that leads to hand over; any other says which does. No exchange fails: the
leases of the others outlast it. Journaled.`,
		Example: "  crossroads operator raft transfer-leader --endpoints net.json --as nsso\n  crossroads operator raft transfer-leader --to nic/n1 --api http://127.0.0.1:7480 --token-file operator.token",
		Args:    cobra.NoArgs,
	}
	r := addRemote(c)
	c.Flags().StringVar(&to, "to", "", "institution/node that is to lead; left out: whoever is furthest")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		if err := client.TransferLeader(ctx, to); err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), "handed over")
		return err
	}
	return c
}

func newRaftCompact() *cobra.Command {
	c := &cobra.Command{
		Use:   "compact",
		Short: "Have a member write its snapshot now, and let go of the log before it",
		Long: `A member does so by itself when enough log has come. Before maintenance, or when a disk runs
full, it need not be waited for: the next start has little to read. The member serves
meanwhile. The file that operators keep is another: crossroads operator snapshot save.
Journaled.`,
		Example: "  crossroads operator raft compact --endpoints net.json --as nsso",
		Args:    cobra.NoArgs,
	}
	r, out := addRemote(c), addFormat(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !c.Flags().Changed("timeout") {
			r.timeout = time.Hour
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		done, err := client.Compact(ctx)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), done, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "the snapshot stands at index %d\n", done.SnapshotIndex)
			return err
		})
	}
	return c
}

func newOperatorAutopilot() *cobra.Command {
	state := asked("state", "How the consensus group does, and what operators might sign", `Asks the node that leads. New members come in without a vote and get it once they have kept
up for the stabilization time; a member that is silent for too long loses its vote until
it is back, while more than half of the record goes on voting. Only a signed members
record takes one out: PROPOSAL lines say when that might be wise.`,
		func(ctx context.Context, c *api.Client) (api.Autopilot, error) { return c.AutopilotState(ctx) },
		func(w io.Writer, a api.Autopilot) error {
			if err := writePeers(w, a); err != nil {
				return err
			}
			fmt.Fprintf(w, "\n%d voters; %d of them may fail\n", a.Voters, a.FailureTolerance)
			for _, p := range a.Proposals {
				fmt.Fprintf(w, "proposal: %s\n", clean(p))
			}
			return nil
		},
		func(a api.Autopilot) error {
			if !a.Healthy {
				return &exit{code: exitFailure}
			}
			return nil
		})
	state.Example = "  crossroads operator autopilot state --endpoints net.json --as nsso"
	return group("autopilot", "How raft's membership follows the signed members record", state, newAutopilotConfig())
}
