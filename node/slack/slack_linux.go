package slack

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// begun is set in the environment of the program that Widen begins anew, so that it does
// so once, whatever the system makes of the wish.
const begun = "CROSSROADS_TIMER_SLACK"

// Widen gives the process the timer slack Wanted, unless whoever started it chose one
// (systemd: TimerSlackNSec=). A thread has that of the one that made it, and the runtime's
// are there before any of our code runs; so the program begins anew, as the same process.
// It is to be called first, before anything was read, opened or started. When it returns,
// the program goes on as it is: all is done, or was not to be, or could not be and the
// error says why.
func Widen() error {
	if os.Getenv(begun) != "" {
		return os.Unsetenv(begun)
	}
	// What is set here is of this thread, and kept by the program that replaces it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("ask for the timer slack: %w", err)
	}
	if time.Duration(now) != usual {
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if err := set(Wanted); err != nil {
		return err
	}
	err = syscall.Exec(exe, os.Args, append(os.Environ(), begun+"=1"))
	return fmt.Errorf("begin %s anew: %w", exe, err)
}

// set sets the timer slack of this thread.
func set(d time.Duration) error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(d.Nanoseconds()), 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack: %w", err)
	}
	return nil
}
