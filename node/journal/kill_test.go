package journal

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
)

const (
	killDir     = "JOURNAL_KILL_TEST_DIR"
	killWorkers = 32
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		appendForEver(dir)
		return
	}
	os.Exit(m.Run())
}

// appendForEver appends from many goroutines and prints what was acknowledged.
func appendForEver(dir string) {
	j, err := Open(Config{Dir: dir, Key: testKey, SegmentSize: 256 << 10, ChunkSize: 64 << 10})
	if err != nil {
		fmt.Println("fail", err)
		os.Exit(1)
	}
	var out sync.Mutex
	var all sync.WaitGroup
	for w := range killWorkers {
		all.Go(func() {
			for i := 0; ; i++ {
				e := entry(i)
				e.Detail = fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				n, err := j.Append(context.Background(), e)
				if err != nil {
					fmt.Println("fail", err)
					os.Exit(1)
				}
				out.Lock()
				fmt.Println("ack", n, e.Detail)
				out.Unlock()
			}
		})
	}
	all.Wait()
}

// TestKill kills a process in the middle of appending, several times over, and
// looks for everything that it had said was written.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: it starts processes, which are not under it")
	}
	dir := t.TempDir()
	acked := map[uint64]string{}
	for life := range 4 {
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
		lines := bufio.NewReader(pipe)
		for seen := 0; ; seen++ {
			line, err := lines.ReadBytes('\n')
			if err == io.EOF {
				break // a last line without its end was not said
			}
			if err != nil {
				t.Fatal(err)
			}
			if bytes.HasPrefix(line, []byte("fail")) {
				t.Fatalf("life %d: %s", life, line)
			}
			var n uint64
			var detail string
			if _, err := fmt.Sscanf(string(line), "ack %d %s\n", &n, &detail); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if old, twice := acked[n]; twice {
				t.Fatalf("number %d was given to %s and to %s", n, old, detail)
			}
			acked[n] = detail
			if seen == 3000+life*701 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		cmd.Wait()
	}
	j := open(t, Config{Dir: dir, SegmentSize: 256 << 10})
	got := find(t, j, Query{Limit: 1 << 30})
	details := map[uint64]string{}
	for _, s := range got {
		details[s.Sequence] = s.Entry.Detail
	}
	if uint64(len(details)) != j.Next() || len(details) < len(acked) {
		t.Fatalf("%d entries found, %d in the log, %d acknowledged", len(details), j.Next(), len(acked))
	}
	for n, want := range acked {
		if details[n] != want {
			t.Fatalf("acknowledged entry %d is %q, want %q", n, details[n], want)
		}
	}
	if n, err := j.Verify(context.Background()); err != nil || n != j.Next() {
		t.Fatalf("verified %d of %d: %v", n, j.Next(), err)
	}
	t.Logf("%d acknowledged, %d in the log", len(acked), len(details))
}
