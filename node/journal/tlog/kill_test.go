package tlog

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
)

// killDir tells the test binary to be the process that is killed, and where it works.
const killDir = "TLOG_KILL_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		fmt.Println("fail", signForEver(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func killConfig(dir string) journal.Config {
	return journal.Config{Dir: dir, Key: testKey, SegmentSize: 64 << 10, ChunkSize: 16 << 10}
}

// signForEver appends and makes checkpoints as fast as it can, and prints each
// checkpoint that it shows and each entry that was acknowledged.
func signForEver(dir string) error {
	ctx := context.Background()
	j, err := journal.Open(killConfig(dir))
	if err != nil {
		return err
	}
	cfg := testConfig(j, nil)
	cfg.Checkpoints, cfg.Tiles, cfg.Dir, cfg.Every = nil, nil, dir, time.Millisecond
	l, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	failed := make(chan error, 9)
	var out sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				n, err := j.Append(ctx, entry(i*8+w))
				if err != nil {
					failed <- err
					return
				}
				out.Lock()
				fmt.Println("entry", n)
				out.Unlock()
			}
		}()
	}
	go func() {
		for size := int64(-1); ; {
			c, err := l.Wait(ctx, size)
			if err != nil {
				failed <- err
				return
			}
			size = c.Size
			out.Lock()
			fmt.Println("shown", base64.StdEncoding.EncodeToString(c.Note))
			out.Unlock()
		}
	}()
	return <-failed
}

// TestKill kills a process in the middle of growing and signing the tree, several times
// over. Every checkpoint that it ever showed must stand, nobody may be accused, and the
// tree must go on from there.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: it starts processes, which are not under it")
	}
	dir := t.TempDir()
	var shown [][]byte
	acked := map[uint64]bool{}
	for life := range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		cmd.Stderr = os.Stderr
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, signed := bufio.NewReader(pipe), 0
		for {
			line, err := lines.ReadString('\n')
			if errors.Is(err, io.EOF) {
				break // a last line without its end was not said
			}
			var what, says string
			if _, serr := fmt.Sscan(line, &what, &says); err != nil || serr != nil || what == "fail" {
				t.Fatalf("life %d: %s %v", life, line, err)
			}
			if what == "entry" {
				var n uint64
				if _, err := fmt.Sscan(says, &n); err != nil || acked[n] {
					t.Fatalf("entry %s was acknowledged twice, or %v", says, err)
				}
				acked[n] = true
				continue
			}
			note, err := base64.StdEncoding.DecodeString(says)
			if err != nil {
				t.Fatal(err)
			}
			shown = append(shown, note)
			if signed++; signed == 20+7*life {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		report := verifyDir(t, dir, shown)
		if !report.OK() || report.Anchors != len(shown) {
			t.Fatalf("life %d: an honest journal was accused, or not compared: %+v", life, report)
		}
	}
	j, err := journal.Open(killConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	cfg := testConfig(j, nil)
	cfg.Checkpoints, cfg.Tiles, cfg.Dir = nil, nil, dir
	l, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for n := range acked {
		if int64(n) >= l.Size() {
			t.Fatalf("acknowledged entry %d is not in the tree of %d", n, l.Size())
		}
	}
	t.Logf("%d checkpoints shown over %d entries", len(shown), l.Size())
}

func verifyDir(t *testing.T, dir string, anchors [][]byte) *Report {
	t.Helper()
	tiles, err := disk.OpenDir(filepath.Join(dir, TilesDir))
	if err != nil {
		t.Fatal(err)
	}
	report, err := Verify(context.Background(), VerifyConfig{
		Journal: killConfig(dir), Tiles: tiles, Origin: testOrigin, Key: testPublic, Anchors: anchors,
	})
	if err != nil {
		t.Fatal(err)
	}
	return report
}
