package batch

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/batch/lines"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Drop takes files from a folder and writes their results into one. A file is handed in
// when its name does not end in .part and it has not grown since the last look; it then
// lies in taken, beside NAME.voucher.json. The result is results/NAME.csv (or .jsonl), whole
// or not there, and only then is the lot acknowledged. What cannot be handed in lies in
// refused, beside NAME.why.txt. All names carry the day and time they were taken at.
type Drop struct {
	c     *Consultant
	cfg   config.Drop
	every time.Duration
	now   func() time.Time
	log   *slog.Logger
	sizes map[string]int64 // of files at the last look; Run's
}

const (
	dropTaken   = "taken"
	dropResults = "results"
	dropRefused = "refused"
)

// NewDrop makes the folders.
func NewDrop(c *Consultant, cfg config.Drop, now func() time.Time, log *slog.Logger) (*Drop, error) {
	for _, d := range []string{"", dropTaken, dropResults, dropRefused} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("lots.drops: %w", err)
		}
	}
	return &Drop{c: c, cfg: cfg, every: 2 * time.Second, now: now, log: log, sizes: map[string]int64{}}, nil
}

// Run looks into the folder until ctx ends.
func (d *Drop) Run(ctx context.Context) error {
	for {
		if err := d.look(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("a folder for lots cannot be used; it is tried again", "dir", d.cfg.Dir, "err", err)
		}
		t := time.NewTimer(d.every)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// look hands in what is new, and writes the results that are there.
func (d *Drop) look(ctx context.Context) error {
	entries, err := os.ReadDir(d.cfg.Dir)
	if err != nil {
		return err
	}
	seen := map[string]int64{}
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || strings.HasSuffix(e.Name(), ".part") || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		seen[e.Name()] = info.Size()
		if was, ok := d.sizes[e.Name()]; ok && was == info.Size() {
			errs = append(errs, d.handIn(ctx, e.Name(), info))
		}
	}
	d.sizes = seen
	for _, l := range d.c.List(d.cfg.Application) {
		if !l.Ended.IsZero() && strings.HasPrefix(string(l.ClientTicket), dropTicket) {
			errs = append(errs, d.write(ctx, l))
		}
	}
	return errors.Join(errs...)
}

// dropTicket is what client tickets of dropped files begin with.
const dropTicket = "drop-"

// handIn submits a file. Its client ticket follows from its name, size and time, so that a
// crash before it was moved hands it in once.
func (d *Drop) handIn(ctx context.Context, name string, info fs.FileInfo) error {
	path := filepath.Join(d.cfg.Dir, name)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d", name, info.Size(), info.ModTime().UnixNano()))
	q := d.question()
	q.ClientTicket = names.ClientTicket(dropTicket + strings.ToLower(base32.StdEncoding.EncodeToString(h[:15])))
	l, err := d.c.Submit(ctx, q, f)
	aside := info.ModTime().UTC().Format("20060102T150405Z-") + name
	switch {
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrTooMany), ctx.Err() != nil:
		return err // later
	case err != nil:
		d.log.Warn("a dropped file was refused", "dir", d.cfg.Dir, "err", err)
		if werr := os.WriteFile(filepath.Join(d.cfg.Dir, dropRefused, aside+".why.txt"), []byte(err.Error()+"\n"), 0o600); werr != nil {
			return werr
		}
		return os.Rename(path, filepath.Join(d.cfg.Dir, dropRefused, aside))
	}
	voucher, err := json.MarshalIndent(map[string]any{"voucher": l.Voucher, "client_ticket": l.ClientTicket, "lines": l.Lines, "file": aside}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.voucherFile(l), append(voucher, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path, filepath.Join(d.cfg.Dir, dropTaken, aside))
}

func (d *Drop) voucherFile(l *Lot) string {
	return filepath.Join(d.cfg.Dir, dropTaken, string(l.Voucher)+".voucher.json")
}

func (d *Drop) question() Question {
	until := names.DateOf(d.now().UTC())
	q := Question{
		Caller:  exchange.Caller{Application: d.cfg.Application, User: d.cfg.User, AuthLevel: d.cfg.AuthLevel, Channel: "drop"},
		Purpose: d.cfg.Purpose, Dataset: d.cfg.Dataset, Fields: d.cfg.Fields, Scheme: subject.Scheme(cmp.Or(d.cfg.Scheme, string(subject.SSIN))),
		Period: names.Period{From: until - names.Date(d.cfg.Days), Until: until},
		Format: lines.Format{Form: lines.Form(cmp.Or(d.cfg.Format, string(lines.CSV))), Number: d.cfg.Number, Reference: d.cfg.Reference, Length: d.cfg.Length},
	}
	if d.cfg.Separator != "" {
		q.Format.Separator = rune(d.cfg.Separator[0])
	}
	return q
}

// write writes the result of a lot of this folder, and acknowledges it.
func (d *Drop) write(ctx context.Context, l *Lot) error {
	if _, err := os.Stat(d.voucherFile(l)); err != nil {
		return nil // another folder's
	}
	form := cmp.Or(d.cfg.Results, "csv")
	path := filepath.Join(d.cfg.Dir, dropResults, string(l.Voucher)+"."+form)
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 64<<10)
	err = d.c.Write(ctx, d.cfg.Application, l.Voucher, form, w)
	err = errors.Join(err, w.Flush())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".part", path); err != nil {
		return err
	}
	return d.c.Acknowledge(d.cfg.Application, l.Voucher)
}

// Write writes the results of a lot that has ended as a file: csv, or jsonl with the records
// of every supplier. The errors are those of Results, or w's.
func (c *Consultant) Write(ctx context.Context, application string, voucher names.Ticket, form string, w io.Writer) error {
	write, err := lineWriter(form, w)
	if err != nil {
		return err
	}
	return c.Results(ctx, application, voucher, write)
}
