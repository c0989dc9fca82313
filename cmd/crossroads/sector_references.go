package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

func newSectorReferences() *cobra.Command {
	c := &cobra.Command{
		Use: "references", Short: "Who in the sector has files on a subject",
		Long: `Also prints what the registry of the mesh is to say of the subject: the days on which the
sector has a file, without who in it, and without a sign of when that changed.`,
		Example: `  crossroads sector references --subject 74071238186 --endpoints net.json --as nic
  crossroads sector references load changes.csv --endpoints net.json --as nic`,
		Args: cobra.NoArgs,
	}
	r, who, out := addRemote(c), addSubject(c), addFormat(c)
	_ = c.MarkFlagRequired("subject")
	c.RunE = func(c *cobra.Command, _ []string) error {
		subject, err := who.read(c.InOrStdin())
		if err != nil {
			return err
		}
		if subject == nil {
			return usage("--subject is empty")
		}
		client, ctx, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		defer cancel()
		found, err := client.SectorReferences(ctx, *subject)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), found, func(w io.Writer) error {
			t := newTable("INSTITUTION", "QUALITY", "FROM", "UNTIL")
			for _, f := range found.References {
				t.add(f.Institution, f.Quality, f.Period.From, f.Period.Until)
			}
			for _, f := range found.Outline {
				t.add("(the mesh)", f.Quality, f.Period.From, f.Period.Until)
			}
			return t.write(w)
		})
	}
	c.AddCommand(newSectorReferencesLoad())
	return c
}

func newSectorReferencesLoad() *cobra.Command {
	var begin int
	c := &cobra.Command{
		Use: "load FILE", Short: "Change the sector directory by a CSV file",
		Long: `FILE (- is standard input) has a row for each change, under this heading:

  change,scheme,number,institution,quality,from,until

change is add or remove; from and until may be empty, for always and for ever. Rows of
one subject stand together, and are made together or not at all: to move a subject from
one institution to another, remove the old row and add two that meet. Rows are sent in
lots of up to 1000; if one is refused, it says which, and all before it stand: mend the
file and go on with --line.`,
		Example: `  crossroads sector references load changes.csv --endpoints net.json --as nic
  crossroads sector references load changes.csv --line 4001 --endpoints net.json --as nic`,
		Args: cobra.ExactArgs(1),
	}
	r := addRemote(c)
	c.Flags().IntVar(&begin, "line", 2, "begin at this line of the file")
	c.RunE = func(c *cobra.Command, args []string) error {
		in := io.Reader(c.InOrStdin())
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		client, _, cancel, err := r.client(c.Context())
		if err != nil {
			return err
		}
		cancel() // each lot has its own time
		n, err := loadSector(in, begin, func(lot []api.SectorChange) error {
			ctx, cancel := context.WithTimeout(c.Context(), r.timeout)
			defer cancel()
			return client.ChangeSector(ctx, lot)
		}, func(n int) { fmt.Fprintf(c.ErrOrStderr(), "\r%d rows", n) })
		if n > 0 {
			fmt.Fprintln(c.ErrOrStderr())
		}
		if err == nil {
			fmt.Fprintf(c.OutOrStdout(), "%d rows stand in the sector directory\n", n)
		}
		return err
	}
	return c
}

// sectorLot is how many rows are sent at once, at most.
const sectorLot = 1000

var sectorHeading = []string{"change", "scheme", "number", "institution", "quality", "from", "until"}

// loadSector reads changes from line begin on and sends them in lots, never parting the
// rows of one subject. It gives how many were sent.
func loadSector(in io.Reader, begin int, send func([]api.SectorChange) error, progress func(int)) (sent int, err error) {
	rows := csv.NewReader(in)
	rows.FieldsPerRecord, rows.ReuseRecord = len(sectorHeading), true
	if heading, err := rows.Read(); err != nil || !slices.Equal(heading, sectorHeading) {
		return 0, usage("the first line must be %q", sectorHeading)
	}
	var lot, one []api.SectorChange // one: of the subject being read
	lotLine, oneLine := 0, 0
	flush := func() error {
		if len(lot) == 0 {
			return nil
		}
		if err := send(lot); err != nil {
			return fmt.Errorf("the lot from line %d on: %w", lotLine, err)
		}
		sent += len(lot)
		progress(sent)
		lot = nil
		return nil
	}
	settle := func() error {
		if len(lot)+len(one) > sectorLot {
			if err := flush(); err != nil {
				return err
			}
		}
		if len(lot) == 0 {
			lotLine = oneLine
		}
		lot, one = append(lot, one...), nil
		return nil
	}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return sent, err
		}
		line, _ := rows.FieldPos(0)
		if line < begin {
			continue
		}
		change, err := sectorRow(row)
		if err != nil {
			return sent, fmt.Errorf("line %d: %w", line, err)
		}
		if len(one) > 0 && one[0].Subject != change.Subject {
			if err := settle(); err != nil {
				return sent, err
			}
		}
		if len(one) == 0 {
			oneLine = line
		}
		one = append(one, change)
	}
	if err := settle(); err != nil {
		return sent, err
	}
	return sent, flush()
}

func sectorRow(row []string) (c api.SectorChange, err error) {
	if row[0] != "add" && row[0] != "remove" {
		return c, fmt.Errorf("change: want add or remove")
	}
	period, err := openPeriod(row[5], row[6])
	return api.SectorChange{Remove: row[0] == "remove", SectorReference: api.SectorReference{
		Subject: api.Subject{Scheme: row[1], Number: row[2]}, Institution: names.InstitutionID(row[3]), Quality: names.Quality(row[4]), Period: period,
	}}, err
}
