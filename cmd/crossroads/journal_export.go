package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/archive"
	"github.com/crossroads-mesh/crossroads/node/journal/tlog"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

func newJournalExport() *cobra.Command {
	var from, until, out, form string
	c := &cobra.Command{
		Use:   "export --config FILE --out FILE",
		Short: "Write a run of this node's journal to a file that verifies by itself",
		Long: `Writes an archive: the entries of a time, with all that proves them, sealed with the
institution's key. crossroads journal archive verify checks it without a node. It holds
the whole run from the first to the last entry of that time, so some entries may lie
outside of it. It is as secret as the journal and not encrypted: pipe it through a tool that
encrypts (--out - | age -r RECIPIENT > journal.age). With -o json it is one JSON object a line, for people and other
programs, which proves nothing.

The node may be running. That you exported is journaled when it is not, and must be noted
elsewhere when it is.`,
		Example: `  crossroads journal export --config node.yaml --from 2026-01-01 --until 2026-02-01 --out january.archive
  crossroads journal export --config node.yaml --out journal.jsonl -o json`,
		Args: cobra.NoArgs,
	}
	own := addOwnJournal(c)
	f := c.Flags()
	f.StringVar(&from, "from", "", "from this day (UTC) or time on, as 2026-01-31 or 2026-01-31T08:00:00Z")
	f.StringVar(&until, "until", "", "before this day or time")
	f.StringVar(&out, "out", "", "file to write, which must not exist; - for standard output")
	f.StringVarP(&form, "output", "o", "archive", "archive or json (lines)")
	_ = c.MarkFlagRequired("out")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if form != "archive" && form != "json" {
			return usage("-o: want archive or json")
		}
		lo, err := moment("--from", from)
		if err != nil {
			return err
		}
		hi, err := moment("--until", until)
		if err != nil {
			return err
		}
		if err := own.read(); err != nil {
			return err
		}
		x := &export{own: own, json: form == "json", progress: countProgress(c.ErrOrStderr())}
		if err := x.open(c.Context(), lo, hi, c.ErrOrStderr()); err != nil {
			return err
		}
		if out == "-" {
			return x.write(c.Context(), c.OutOrStdout())
		}
		if err := toNewFile(out, func(w io.Writer) error { return x.write(c.Context(), w) }); err != nil {
			return err
		}
		fmt.Fprintf(c.ErrOrStderr(), "%s: entries %d to %d, %d in all\n", out, x.first, x.until, x.until-x.first)
		return nil
	}
	return c
}

// export is one export under way.
type export struct {
	own          *ownJournal
	json         bool
	progress     func(done, total uint64)
	log          *journal.Reader
	first, until uint64
	checkpoint   []byte
}

// open finds the run, and journals the reading if nobody else has the journal open.
func (x *export) open(ctx context.Context, from, until *time.Time, told io.Writer) (err error) {
	if err := x.journal(ctx); err != nil {
		fmt.Fprintln(told, "crossroads: this export is not journaled, note it elsewhere:", err)
	}
	if x.log, err = journal.OpenReader(x.own.Config); err != nil {
		return err
	}
	var lo, hi time.Time
	if from != nil {
		lo = *from
	}
	if until != nil {
		hi = *until
	}
	if x.first, x.until, err = x.log.Span(ctx, lo, hi); err != nil {
		return err
	}
	if x.checkpoint, err = tlog.LastCheckpoint(x.log.FS()); err != nil || x.checkpoint == nil {
		return err
	}
	// What the last checkpoint does not cover yet cannot be proven in it: the seal alone
	// vouches for the run then.
	pub, _ := publicOf(x.own.Signing.Signer)
	c, err := tlog.OpenCheckpoint(tlog.Origin(x.own.Signing.Mesh, x.own.Signing.Node), pub, x.checkpoint)
	if err != nil || uint64(c.Size) < x.until {
		x.checkpoint = nil
	}
	return nil
}

func (x *export) journal(ctx context.Context) (err error) {
	j, err := x.own.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	_, err = j.Append(ctx, &nodepb.Entry{
		TimeUnixMs: time.Now().UnixMilli(), Role: nodepb.Role_READER, Event: nodepb.Event_READ, Application: operator(), Detail: "export",
	})
	return err
}

func (x *export) write(ctx context.Context, w io.Writer) error {
	if x.json {
		e := json.NewEncoder(w)
		return x.log.Each(ctx, x.first, x.until, func(s journal.Stored) error {
			x.progress(s.Sequence-x.first+1, x.until-x.first)
			return e.Encode(jsonEntry(s.Proto()))
		})
	}
	return archive.Write(ctx, w, x.log, archive.Order{
		Mesh: x.own.Signing.Mesh, Node: x.own.Signing.Node, Signer: x.own.Signing.Signer,
		First: x.first, Until: x.until, Checkpoint: x.checkpoint, Time: time.Now(), Who: operator(), Progress: x.progress,
	})
}

// entryLine is an entry as JSON; an erased one has no entry.
type entryLine struct {
	Sequence   uint64          `json:"sequence"`
	Entry      json.RawMessage `json:"entry,omitempty"`
	Erased     bool            `json:"erased,omitempty"`
	Commitment string          `json:"commitment"`
}

func jsonEntry(s *nodepb.StoredEntry) entryLine {
	l := entryLine{Sequence: s.Sequence, Commitment: base64.StdEncoding.EncodeToString(s.Commitment), Erased: len(s.Entry) == 0}
	if e, err := decodeEntry(s.Entry); err == nil && !l.Erased {
		l.Entry, _ = protojson.Marshal(e)
	}
	return l
}

// toNewFile writes a whole new file, or none.
func toNewFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	return f.Sync()
}

// countProgress gives what shows progress on a terminal, and nothing elsewhere.
func countProgress(w io.Writer) func(done, total uint64) {
	f, ok := w.(*os.File)
	if ok {
		st, err := f.Stat()
		ok = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	last := time.Now()
	return func(done, total uint64) {
		if !ok || total == 0 || done < total && time.Since(last) < 200*time.Millisecond {
			return
		}
		last = time.Now()
		fmt.Fprintf(w, "\r%d of %d entries, %d %%", done, total, 100*done/total)
		if done == total {
			fmt.Fprint(w, "\r\033[K")
		}
	}
}
