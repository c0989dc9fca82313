package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync spares the journal write of times that nobody needs. It is retried
// only when a signal kept it from starting.
func datasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
