package belgium

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/badgerdb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/store"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet"
)

const (
	lookUps    = 200_000
	small      = 1_000_000 // references of the directory that is compared with
	badgerRows = 16_000_000
	rowSize    = 66 // bytes of a person's row in the mean, when the directory is full
	badgerMB   = 64 // of cache: half of it holds the index of all rows, without which each read would decrypt a part of it anew
)

// lookups measures what a clearing decision asks of the directory, in the files of one
// member, which is stopped for it: while the others, just started, read through what they
// keep, and when they have; then the same in a directory of a million references, and
// random reads in a bare Badger database of as many rows.
func (r *run) lookups(ctx context.Context) error {
	_, follower, err := r.leader(ctx)
	if err != nil {
		return err
	}
	if err := r.net.StopNode(follower); err != nil {
		return err
	}
	open, key, err := r.filesOf(follower)
	if err != nil {
		return err
	}
	err = r.lookTwice(ctx, open, r.others(follower))
	if err := errors.Join(err, r.net.StartNode(follower, nil), r.untilReady(ctx, follower)); err != nil {
		return err
	}
	return r.compare(ctx, key)
}

// filesOf gives what opens the registry of a member that is stopped, and the member's key.
func (r *run) filesOf(id names.InstitutionID) (open func() (*store.Store, error), key []byte, err error) {
	cfg, err := config.Load(r.net.ConfigFile(id))
	if err != nil {
		return nil, nil, err
	}
	if key, err = certs.LoadStorageKey(cfg.Data.KeyFile); err != nil {
		return nil, nil, err
	}
	file, err := genesis.Load(cfg.Genesis.File, cfg.Genesis.SHA256)
	if err != nil {
		return nil, nil, err
	}
	return func() (*store.Store, error) {
		return store.Open(badgerdb.Config{Dir: filepath.Join(r.registryDir(id), "member", "state"), Key: key}, registry.RulesOf(file, subject.Belgian()))
	}, key, nil
}

// lookTwice measures look-ups in files that it opens anew each time.
func (r *run) lookTwice(ctx context.Context, open func() (*store.Store, error), others []names.InstitutionID) error {
	look := func(into *Times) error {
		s, err := open()
		if err != nil {
			return err
		}
		*into, err = lookUp(ctx, s, r.country)
		return errors.Join(err, s.Close())
	}
	for _, id := range others {
		if err := errors.Join(r.net.StopNode(id), r.net.StartNode(id, nil), r.untilReady(ctx, id)); err != nil {
			return err
		}
	}
	if err := r.untilReading(ctx, others); err != nil {
		return err
	}
	if err := look(&r.report.LookupStarted); err != nil {
		return err
	}
	r.say("look-ups while the members read what they keep: p50 %.1f µs, p99 %.1f µs", r.report.LookupStarted.P50, r.report.LookupStarted.P99)
	began := time.Now()
	if err := r.untilRead(ctx, others); err != nil {
		return err
	}
	r.report.ReadThroughSeconds = time.Since(began).Seconds()
	if err := look(&r.report.Lookup); err != nil {
		return err
	}
	r.say("look-ups when they have: p50 %.1f µs, p99 %.1f µs", r.report.Lookup.P50, r.report.Lookup.P99)
	return nil
}

// others gives the members, the newcomer too if it is one, but for one.
func (r *run) others(but names.InstitutionID) (others []names.InstitutionID) {
	for _, id := range r.members {
		if id != but {
			others = append(others, id)
		}
	}
	if r.grown {
		others = append(others, r.newcomer)
	}
	return others
}

// untilReading waits until all of some nodes read through what they keep, or have.
func (r *run) untilReading(ctx context.Context, nodes []names.InstitutionID) error {
	for _, id := range nodes {
		for {
			st, err := r.net.Client(id).RegistryStatus(ctx)
			if err != nil {
				return err
			}
			if !st.Verifying || st.Verified > 0 {
				break
			}
			if err := pause(ctx, poll); err != nil {
				return err
			}
		}
	}
	return nil
}

// untilRead waits until all of some nodes have read through what they keep, for
// Options.Within at the most.
func (r *run) untilRead(ctx context.Context, nodes []names.InstitutionID) error {
	began := time.Now()
	told := began
	return HaveRead(ctx, r.net, nodes, func(reading int, rows uint64) error {
		if time.Since(began) > r.Within {
			return fmt.Errorf("%d members still read what they keep after %v", reading, r.Within)
		}
		if time.Since(told) > r.Every {
			told = time.Now()
			r.say("%d members still read what they keep: %s rows each so far", reading, count(int(rows)/reading))
		}
		return nil
	})
}

// HaveRead waits until some nodes of a network have read through what they keep of the
// registry, which each does once after its start. Meanwhile it tells how many still read, and
// how many rows these have read together; an error of tell ends the waiting.
func HaveRead(ctx context.Context, n *testnet.Network, nodes []names.InstitutionID, tell func(reading int, rows uint64) error) error {
	for {
		reading, rows := 0, uint64(0)
		for _, id := range nodes {
			st, err := n.Client(id).RegistryStatus(ctx)
			if err != nil {
				return err
			}
			if st.Verifying {
				reading, rows = reading+1, rows+st.Verified
			}
		}
		if reading == 0 {
			return nil
		}
		if err := errors.Join(tell(reading, rows), pause(ctx, 10*poll)); err != nil {
			return err
		}
	}
}

func (r *run) compare(ctx context.Context, key []byte) error {
	dir := filepath.Join(r.Dir, "compare")
	if err := os.RemoveAll(dir); err != nil { // of a run that was killed
		return err
	}
	defer os.RemoveAll(dir)
	c := New(small * 100 / int(100*KnownAt))
	a, err := openAlone(filepath.Join(dir, "small"), key)
	if err != nil {
		return err
	}
	err = a.admit(c)
	if err == nil {
		_, err = a.load(c, r.AtOnce)
	}
	if err == nil {
		r.report.LookupSmall, err = lookUp(ctx, a.Store, c)
	}
	if err := errors.Join(err, a.Close()); err != nil {
		return err
	}
	r.report.Badger, err = bareBadger(ctx, filepath.Join(dir, "badger"), key, min(r.country.Persons(), badgerRows))
	r.say("the same at %s references: p99 %.1f µs; a bare Badger of %s rows: p99 %.1f µs", count(c.References()), r.report.LookupSmall.P99,
		count(min(r.country.Persons(), badgerRows)), r.report.Badger.P99)
	return err
}

// lookUp times what a decision asks about one subject, in views of its own.
func lookUp(ctx context.Context, s *store.Store, c *Country) (Times, error) {
	var all []time.Duration
	for n := range lookUps {
		if ctx.Err() != nil {
			return Times{}, ctx.Err()
		}
		id := c.Number(int(mix(uint64(n)+77) % uint64(c.Persons())))
		began := time.Now()
		err := s.View(func(v record.View) error {
			if _, err := v.Number(id); err != nil {
				return err
			}
			_, err := v.References(id)
			return err
		})
		if err != nil {
			return Times{}, err
		}
		all = append(all, time.Since(began))
	}
	return timesOf(all), nil
}

// bareBadger fills a database as fast as Badger can and times random reads in it.
func bareBadger(ctx context.Context, dir string, key []byte, rows int) (Times, error) {
	db, err := badgerdb.Open(badgerdb.Config{Dir: dir, Key: key, MemTableMB: 32, CacheMB: badgerMB})
	if err != nil {
		return Times{}, err
	}
	times, err := readRandomly(ctx, db, rows)
	return times, errors.Join(err, db.Close())
}

func rowKey(n int) []byte { return binary.BigEndian.AppendUint64([]byte("Rssin\x00"), uint64(n)) }

func readRandomly(ctx context.Context, db *badger.DB, rows int) (Times, error) {
	w := db.NewStreamWriter()
	if err := w.Prepare(); err != nil {
		return Times{}, err
	}
	value := make([]byte, rowSize)
	for n := 0; n < rows && ctx.Err() == nil; {
		buf := z.NewBuffer(1<<20, "belgium")
		for range min(10_000, rows-n) {
			binary.BigEndian.PutUint64(value, mix(uint64(n)))
			badger.KVToBuffer(&pb.KV{Key: rowKey(n), Value: value, Version: 1}, buf)
			n++
		}
		err := w.Write(buf)
		if err := errors.Join(err, buf.Release()); err != nil {
			return Times{}, err
		}
	}
	if err := w.Flush(); err != nil {
		return Times{}, err
	}
	var all []time.Duration
	for n := range lookUps {
		if ctx.Err() != nil {
			return Times{}, ctx.Err()
		}
		k := rowKey(int(mix(uint64(n)) % uint64(rows)))
		began := time.Now()
		err := db.View(func(txn *badger.Txn) error {
			item, err := txn.Get(k)
			if err != nil {
				return err
			}
			_, err = item.ValueCopy(nil)
			return err
		})
		if err != nil {
			return Times{}, err
		}
		all = append(all, time.Since(began))
	}
	return timesOf(all), nil
}
