package witness_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

const killDir = "CROSSROADS_TEST_WITNESS_DIR"

// TestKillChild is no test of its own: TestKilled runs it as another process. It
// cosigns as fast as it can and says of each size that the cosignature left.
func TestKillChild(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("no test of its own: TestKilled runs it in another process")
	}
	w := newWorld(t)
	w.open("alpha", dir)
	j := newJournal(t, "office", 4000, 4000, "")
	for size := 1; size <= 4000; size++ {
		w.cosigned("alpha", j, size-1, size)
		fmt.Println("cosigned", size)
	}
}

// Whatever moment a member is killed at, it remembers every cosignature that left.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED in a short run, as under the race detector: it starts processes, which are not under it")
	}
	honest, forked := newJournal(t, "office", 4000, 4000, ""), newJournal(t, "office", 4000, 0, "!")
	for _, after := range []int{1, 17, 60} {
		dir := t.TempDir()
		child := exec.Command(os.Args[0], "-test.run=^TestKillChild$")
		child.Env = append(os.Environ(), killDir+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		last := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := fmt.Sscanf(lines.Text(), "cosigned %d", &last); n == 1 && err == nil && last == after {
				_ = child.Process.Kill() // what it had said by then is read to the end
			}
		}
		_ = child.Wait()
		if last < after {
			t.Fatalf("the child ended at %d", last)
		}
		w := newWorld(t)
		w.open("alpha", dir)
		resp := w.show("alpha", honest, 0, last)
		size, err := strconv.Atoi(string(resp.Body[:len(resp.Body)-1]))
		if resp.Status != 409 || err != nil || size < last || size > last+1 {
			t.Fatalf("after %d: %d %s", last, resp.Status, resp.Body)
		}
		if resp := w.show("alpha", forked, size, size); resp.Status != 409 {
			t.Errorf("after %d: another history is cosigned", last)
		}
		w.cosigned("alpha", honest, size, size+1)
	}
}
