package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// usage is what processes had used when it was taken. Where /proc does not tell, it
// is zero.
type usage struct {
	pids map[string]int
	cpu  map[string]time.Duration
	n    int
}

// tick is the unit of /proc/PID/stat on every Linux that Go runs on.
const tick = 10 * time.Millisecond

func usageOf(pids map[string]int) *usage {
	u := &usage{pids: pids, cpu: map[string]time.Duration{}}
	for name, pid := range pids {
		u.cpu[name] = processor(pid)
	}
	return u
}

// since gives what was used since u, for n calls.
func (u *usage) since(n int) *usage {
	now := usageOf(u.pids)
	for name := range now.cpu {
		now.cpu[name] -= u.cpu[name]
	}
	now.n = n
	return now
}

// perCall gives microseconds of processor for one call, by process.
func (u *usage) perCall() map[string]float64 {
	by := map[string]float64{}
	for name, d := range u.cpu {
		by[name] = float64(d.Microseconds()) / float64(max(u.n, 1))
	}
	return by
}

func (u *usage) exchanges(m Measured) Exchanges {
	x := Exchanges{Measured: m, CPUBy: u.perCall(), MemoryBy: map[string]int{}}
	for name, pid := range u.pids {
		x.CPU += x.CPUBy[name]
		x.MemoryBy[name] = resident(pid)
	}
	return x
}

// processor gives the time that a process has used of the processors.
func processor(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name of the program, in brackets, may hold anything.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(string(f[11]), 10, 64)
	system, _ := strconv.ParseInt(string(f[12]), 10, 64)
	return time.Duration(user+system) * tick
}

// resident gives the memory that a process holds, in KB.
func resident(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(string(f[1]))
	return pages * os.Getpagesize() >> 10
}
