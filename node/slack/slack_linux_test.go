package slack

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// child makes the test's program call Widen and say what it became.
const child = "SLACK_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(child) == "" {
		os.Exit(m.Run())
	}
	if err := Widen(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	of := make(chan time.Duration)
	go func() { // on whatever thread
		now, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		of <- time.Duration(now)
	}()
	fmt.Println(os.Getpid(), <-of, strings.Join(os.Args[1:], " "), os.Getenv(begun) == "")
}

// TestWiden: it is the same process with the same arguments, and what whoever started it
// chose stays.
func TestWiden(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{usual: Wanted, 200 * time.Microsecond: 200 * time.Microsecond} {
		c := exec.Command(os.Args[0], "some", "arguments")
		c.Env = append(os.Environ(), child+"=1")
		var out strings.Builder
		c.Stdout, c.Stderr = &out, &out
		if err := startWith(given, c); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
		if says := fmt.Sprintln(c.Process.Pid, want, "some arguments", true); out.String() != says {
			t.Errorf("started with %v: %s, want %s", given, out.String(), says)
		}
	}
}

// startWith starts c from a thread of that timer slack, which it has from then on. The
// thread ends with it.
func startWith(d time.Duration, c *exec.Cmd) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := set(d)
		if err == nil {
			err = c.Start()
		}
		failed <- err
	}()
	return <-failed
}
