// Package slack makes a process wake less often.
//
// Linux lets a thread that sleeps for a time oversleep by its timer slack, 50 µs, so that
// wake-ups can be put together. Go's runtime makes this exactness dear: as long as
// anything of a process runs or waits for the disk, a thread of its own sleeps 20 µs at a
// time to look after the others. On a node that mostly waits these naps were a third of
// all system calls and half of all switches, for every exchange in all seven nodes; no
// profile of Go's shows them, since that thread runs no goroutine. With a millisecond
// there is a nap where there had been a dozen (docs/performance.md).
//
// Timers then fire up to a millisecond late. No bound of a node rests on a timer that fires
// in time: whether a lease, a clearance or a certificate has ended is asked of the clock
// when it matters.
package slack

import "time"

const (
	// Wanted is the timer slack that Widen gives.
	Wanted = time.Millisecond
	// usual is what the system gives to who asks for nothing.
	usual = 50 * time.Microsecond
)
