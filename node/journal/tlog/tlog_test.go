package tlog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk/disktest"
)

// dumb is the whole tree in memory, as package merkle computes it.
type dumb struct{ hashes []Hash }

func (d *dumb) ReadHashes(at []int64) ([]Hash, error) {
	out := make([]Hash, len(at))
	for i, x := range at {
		out[i] = d.hashes[x]
	}
	return out, nil
}

func (d *dumb) add(t testing.TB, n int64, c [32]byte) {
	hs, err := merkle.StoredHashesForRecordHash(n, journal.LeafHash(c), d)
	if err != nil {
		t.Fatal(err)
	}
	d.hashes = append(d.hashes, hs...)
}

// TestAgainstDumbTree: root, tiles and proofs of every size are those that another
// implementation computes from the same leaves, also after opening again.
func TestAgainstDumbTree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	j, fs, ref := new(fakeJournal), disktest.New(), new(dumb)
	l := openLog(t, testConfig(j, fs))
	for j.Next() < 70_000 {
		if r.IntN(4) == 0 {
			l.Close()
			l = openLog(t, testConfig(j, fs))
		}
		step := []int{0, 1, 2, 255, 256, 257, 3000}[r.IntN(7)]
		for range step {
			n := int64(j.Next())
			j.add(1)
			ref.add(t, n, j.list[n])
		}
		c := publish(t, l)
		size := int64(j.Next())
		want, err := merkle.TreeHash(size, ref)
		if err != nil || c.Size != size || c.Root != want {
			t.Fatalf("size %d root %v, want %d %v (%v)", c.Size, c.Root, size, want, err)
		}
		if size == 0 {
			continue
		}
		checkTiles(t, l, ref, size, r)
		seq, older := r.Int64N(size), 1+r.Int64N(size)
		if p, err := l.InclusionProof(older, min(seq, older-1)); err != nil {
			t.Fatal(err)
		} else if root, _ := merkle.TreeHash(older, ref); merkle.CheckRecord(p, older, root, min(seq, older-1), journal.LeafHash(j.list[min(seq, older-1)])) != nil {
			t.Fatalf("entry %d in %d is not proven", min(seq, older-1), older)
		}
		p, err := l.ConsistencyProof(older, size)
		if err != nil {
			t.Fatal(err)
		}
		root, _ := merkle.TreeHash(older, ref)
		if err := CheckConsistency(Checkpoint{Size: older, Root: root}, c, p); err != nil {
			t.Fatalf("%d to %d: %v", older, size, err)
		}
		if _, err := l.InclusionProof(size+1, 0); !errors.Is(err, ErrNotInTree) {
			t.Fatalf("a proof in a tree there is not: %v", err)
		}
		if _, err := l.InclusionProof(size, size); !errors.Is(err, ErrNotInTree) {
			t.Fatalf("a proof of an entry there is not: %v", err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func checkTiles(t *testing.T, l *Log, ref *dumb, size int64, r *rand.Rand) {
	t.Helper()
	tiles := merkle.NewTiles(tileHeight, 0, size)
	for range 5 {
		tile := tiles[r.IntN(len(tiles))]
		want, err := merkle.ReadTileData(tile, ref)
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.Tile(tilePath(tile))
		if err != nil || string(got) != string(want) {
			t.Fatalf("size %d: %s differs (%v)", size, tilePath(tile), err)
		}
	}
	last := tiles[len(tiles)-1]
	if last.W < tileWidth {
		last.W++
		if _, err := l.Tile(tilePath(last)); !errors.Is(err, ErrNotInTree) {
			t.Fatalf("a tile that there is not: %v", err)
		}
	}
}

func TestTilePaths(t *testing.T) {
	j := new(fakeJournal)
	j.add(300)
	l := openLog(t, testConfig(j, disktest.New()))
	for _, bad := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/0", "tile/00/000", "tile/0/000/", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/-1",
		"tile/-1/000", "tile/8/000", "tile/entries/000", "tile/data/000", "tile/0/001", "tile/0/001.p/45", "tile/1/001", "/tile/0/000",
		"tile/0/x000/000", "tile/0/../0/000", "checkpoint", "tile/0/" + strings.Repeat("x999/", 30) + "999", "tile/7/x999/x999/x999/x999/x999/x999/999",
	} {
		if b, err := l.Tile(bad); !errors.Is(err, ErrNotInTree) {
			t.Errorf("%q: %d bytes, %v", bad, len(b), err)
		}
	}
	for good, n := range map[string]int{"tile/0/000": 256, "tile/0/001.p/44": 44, "tile/0/000.p/3": 3, "tile/1/000.p/1": 1} {
		if b, err := l.Tile(good); err != nil || len(b) != n*hashSize {
			t.Errorf("%q: %d bytes, %v", good, len(b), err)
		}
	}
}

// TestTilesAreDerived: lost, wrong or short tiles are made again, and give the same.
func TestTilesAreDerived(t *testing.T) {
	for name, spoil := range map[string]func(log, tiles *disktest.FS) *disktest.FS{
		"lost":  func(_, _ *disktest.FS) *disktest.FS { return disktest.New() },
		"wrong": func(_, tiles *disktest.FS) *disktest.FS { tiles.Flip("level-0", 69_000*hashSize, 1); return tiles },
	} {
		t.Run(name, func(t *testing.T) {
			j, logFS, tileFS := new(fakeJournal), disktest.New(), disktest.New()
			cfg := testConfig(j, logFS)
			cfg.Tiles = tileFS
			j.add(69_001)
			l := openLog(t, cfg)
			want := publish(t, l)
			l.Close()
			cfg.Tiles = spoil(logFS, tileFS)
			log, said := logged()
			cfg.Log = log
			l = openLog(t, cfg)
			if got := l.Latest(); got.Root != want.Root || got.Size != want.Size {
				t.Fatalf("%v, want %v", got, want)
			}
			if !strings.Contains(said.String(), "rebuilding") {
				t.Error("nobody was told")
			}
			if _, err := l.InclusionProof(want.Size, 68_999); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestContradiction: a log that is not the signed one is not signed again.
func TestContradiction(t *testing.T) {
	for name, spoil := range map[string]func(j *fakeJournal){
		"short":   func(j *fakeJournal) { j.list = j.list[:999] },
		"altered": func(j *fakeJournal) { j.list[17][3] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			j, fs := new(fakeJournal), disktest.New()
			j.add(1000)
			l := openLog(t, testConfig(j, fs))
			note := string(l.Checkpoint())
			l.Close()
			spoil(j)
			cfg := testConfig(j, fs)
			cfg.Tiles = disktest.New() // the tiles are made from the log
			_, err := Open(context.Background(), cfg)
			if !errors.Is(err, ErrContradicted) || !strings.Contains(err.Error(), note) {
				t.Fatalf("it was opened: %v", err)
			}
		})
	}
}

// TestStops: after a failure no more checkpoints are shown, and it says so.
func TestStops(t *testing.T) {
	io := errors.New("input/output error")
	for _, op := range []disktest.Op{disktest.Write, disktest.Sync} {
		j, fs := new(fakeJournal), disktest.New()
		j.add(10)
		l := openLog(t, testConfig(j, fs))
		before := l.Latest()
		j.add(10)
		fs.Fail(op, io)
		if err := l.Publish(context.Background()); !errors.Is(err, io) || !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		fs.Fail(op, nil)
		if err := l.Publish(context.Background()); !errors.Is(err, ErrUnavailable) || !errors.Is(l.Healthy(), ErrUnavailable) {
			t.Fatalf("it went on: %v", err)
		}
		if got := l.Latest(); got.Size != before.Size {
			t.Fatal("a checkpoint was shown that is not on disk")
		}
		l.Close()
		fs.Crash(disktest.Nothing)
		if l = openLog(t, testConfig(j, fs)); l.Size() != 20 {
			t.Fatalf("size %d", l.Size())
		}
	}
}

// TestPowerLossAnywhere: whatever was shown before a loss of power, what is shown
// after it continues it; and one size has one root.
func TestPowerLossAnywhere(t *testing.T) {
	step := 3
	if testing.Short() {
		step = 11
	}
	for n := 0; n < 90; n += step {
		for name, survival := range map[string]disktest.Survival{
			"nothing": disktest.Nothing, "everything": disktest.Everything, "some": disktest.Random(uint64(n)),
		} {
			j, fs := new(fakeJournal), disktest.New()
			var seen []Checkpoint
			fs.FailAfter(n)
			if l, err := Open(context.Background(), testConfig(j, fs)); err == nil {
				for i := range 12 {
					j.add(1 + 100*(i%3))
					l.Publish(context.Background())
					seen = append(seen, l.Latest())
				}
				l.Close()
			}
			for range 2 {
				fs.Crash(survival)
				l, err := Open(context.Background(), testConfig(j, fs))
				if err != nil {
					t.Fatalf("after %d operations, %s survived: %v", n, name, err)
				}
				for _, c := range seen {
					p, err := l.ConsistencyProof(c.Size, l.Size())
					if err == nil {
						err = CheckConsistency(c, l.Latest(), p)
					}
					if err != nil {
						t.Fatalf("after %d operations, %s survived: %d to %d: %v", n, name, c.Size, l.Size(), err)
					}
				}
				l.Close()
			}
		}
	}
}

// TestEvery: a checkpoint follows growth within a second, and there are no more than
// one a second, nor any without growth.
func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, fs := new(fakeJournal), disktest.New()
		cfg := testConfig(j, fs)
		cfg.Every = 0
		l, err := Open(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		made := 0
		for range 100 {
			j.add(1)
			changed := l.Changed()
			time.Sleep(100 * time.Millisecond)
			select {
			case <-changed:
				made++
			default:
			}
		}
		if made < 9 || made > 10 {
			t.Errorf("%d checkpoints in ten seconds", made)
		}
		if c, err := l.Wait(context.Background(), 99); err != nil || c.Size != 100 {
			t.Errorf("%d, %v", c.Size, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := l.Wait(ctx, 100); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waited for what never came: %v", err)
		}
	})
}

// TestAnotherKey: the institution may change its key; the log goes on.
func TestAnotherKey(t *testing.T) {
	j, fs := new(fakeJournal), disktest.New()
	j.add(5)
	openLog(t, testConfig(j, fs)).Close()
	_, key, _ := ed25519.GenerateKey(nil)
	cfg := testConfig(j, fs)
	cfg.Signer = key
	j.add(5)
	l := openLog(t, cfg)
	if c, err := OpenCheckpoint(testOrigin, key.Public().(ed25519.PublicKey), l.Checkpoint()); err != nil || c.Size != 10 {
		t.Fatal(c.Size, err)
	}
	if _, err := OpenCheckpoint(testOrigin, testPublic, l.Checkpoint()); err == nil {
		t.Fatal("the old key opened it")
	}
}
