package systems

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite" // the driver

	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

const (
	chunkSize  = 500 // persons handed to the writers at once
	rowsAtOnce = 40  // rows of one INSERT
)

// Fill writes the databases, all at once from one pass over the persons. A
// database that was filled from the same world before is kept.
func (s *Systems) Fill(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	var writers []chan []*data.Person
	for _, y := range s.all {
		if done, err := y.filled(ctx, s.world.Config()); err != nil {
			return fmt.Errorf("systems: %s: %w", y.ID, err)
		} else if done {
			continue
		}
		people := make(chan []*data.Person, 2)
		writers = append(writers, people)
		group.Go(func() error {
			if err := y.fill(ctx, s.world, people); err != nil {
				return fmt.Errorf("systems: %s: %w", y.ID, err)
			}
			return nil
		})
	}
	if len(writers) > 0 {
		group.Go(func() error { return s.deal(ctx, writers) })
	}
	return group.Wait()
}

// deal gives every chunk of persons to every writer.
func (s *Systems) deal(ctx context.Context, writers []chan []*data.Person) error {
	defer func() {
		for _, w := range writers {
			close(w)
		}
	}()
	send := func(chunk []*data.Person) error {
		for _, w := range writers {
			select {
			case w <- chunk:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	chunk := make([]*data.Person, 0, chunkSize)
	for p := range s.world.Persons() {
		if chunk = append(chunk, p); len(chunk) == chunkSize {
			if err := send(chunk); err != nil {
				return err
			}
			chunk = make([]*data.Person, 0, chunkSize)
		}
	}
	return send(chunk)
}

// origin marks a database with the world it was filled from.
func origin(c data.Config) string {
	s := fmt.Sprintf("v1 seed %d, %d persons, %d institutions", c.Seed, c.Persons, c.Institutions)
	if c.Careers {
		s += ", careers"
	}
	return s
}

func (y *system) filled(ctx context.Context, c data.Config) (bool, error) {
	if _, err := os.Stat(y.database()); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	db, err := sql.Open("sqlite", y.database())
	if err != nil {
		return false, err
	}
	defer db.Close()
	var found string
	if err := db.QueryRowContext(ctx, "SELECT world FROM origin").Scan(&found); err != nil {
		return false, fmt.Errorf("%s is no database of this test network (remove it to have it made anew): %w", y.database(), err)
	}
	return found == origin(c), nil
}

// fill writes the database beside its place and moves it there when it is whole.
// Nothing is synced: the people are invented, and can be again.
func (y *system) fill(ctx context.Context, w *data.World, people <-chan []*data.Person) (err error) {
	partial := y.database() + ".partial"
	if err := os.Remove(partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := sql.Open("sqlite", partial+"?_pragma=journal_mode(off)&_pragma=synchronous(off)&_pragma=locking_mode(exclusive)&_pragma=temp_store(memory)")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	if err := errors.Join(y.load(ctx, db, w, people), db.Close()); err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return os.Rename(partial, y.database())
}

func (y *system) load(ctx context.Context, db *sql.DB, w *data.World, people <-chan []*data.Person) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // without effect after Commit
	if _, err := tx.ExecContext(ctx, "CREATE TABLE origin (world TEXT NOT NULL)"); err != nil {
		return err
	}
	loaders := make([]*loader, len(y.datasets))
	for i, d := range y.datasets {
		if loaders[i], err = newLoader(ctx, tx, d); err != nil {
			return err
		}
	}
	for chunk := range people {
		for _, p := range chunk {
			for _, l := range loaders {
				if err := l.add(ctx, w, y.Institution, p); err != nil {
					return err
				}
			}
		}
	}
	if err := ctx.Err(); err != nil { // the channel may have been closed early
		return err
	}
	for _, l := range loaders {
		if err := l.finish(ctx, tx); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO origin VALUES (?)", origin(w.Config())); err != nil {
		return err
	}
	return tx.Commit()
}

// loader fills one table, many rows with each statement.
type loader struct {
	dataset *data.Dataset
	width   int
	many    *sql.Stmt
	args    []any
}

var sqlTypes = map[data.Kind]string{
	data.Text: "TEXT", data.Integer: "INTEGER", data.Decimal: "DECIMAL(12,2)", data.Boolean: "BOOLEAN", data.Day: "DATE",
}

func newLoader(ctx context.Context, tx *sql.Tx, d *data.Dataset) (*loader, error) {
	l := &loader{dataset: d, width: 3 + len(d.Columns)}
	columns := []string{"subject TEXT NOT NULL", "valid_from TEXT NOT NULL", "valid_until TEXT NOT NULL"}
	for _, c := range d.Columns {
		columns = append(columns, string(c.Field)+" "+sqlTypes[c.Kind])
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("CREATE TABLE %s (%s)", table(d), strings.Join(columns, ", "))); err != nil {
		return nil, err
	}
	var err error
	l.many, err = tx.PrepareContext(ctx, l.insert(rowsAtOnce))
	return l, err
}

func (l *loader) insert(rows int) string {
	row := "(?" + strings.Repeat(",?", l.width-1) + ")"
	return "INSERT INTO " + table(l.dataset) + " VALUES " + row + strings.Repeat(","+row, rows-1)
}

func (l *loader) add(ctx context.Context, w *data.World, at data.Institution, p *data.Person) error {
	for _, r := range w.Held(l.dataset, at, p) {
		l.args = append(l.args, p.SSIN.Number(), r.Period.From.String(), r.Period.Until.String())
		for _, v := range r.Values {
			l.args = append(l.args, sqlValue(v))
		}
		if len(l.args) == rowsAtOnce*l.width {
			if _, err := l.many.ExecContext(ctx, l.args...); err != nil {
				return err
			}
			l.args = l.args[:0]
		}
	}
	return nil
}

func (l *loader) finish(ctx context.Context, tx *sql.Tx) error {
	if rows := len(l.args) / l.width; rows > 0 {
		if _, err := tx.ExecContext(ctx, l.insert(rows), l.args...); err != nil {
			return err
		}
	}
	if err := l.many.Close(); err != nil {
		return err
	}
	name := table(l.dataset)
	_, err := tx.ExecContext(ctx, fmt.Sprintf("CREATE INDEX %s_by_subject ON %s (subject)", name, name))
	return err
}

func sqlValue(v any) any {
	switch v := v.(type) {
	case data.Cents:
		return float64(v) / 100 // exact to the cent in a DECIMAL(12,2) column
	case names.Date:
		if v == names.Forever {
			return nil
		}
		return v.String()
	}
	return v
}
