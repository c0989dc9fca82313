package belgium

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// watcher looks at the members' processes and folders now and then.
type watcher struct {
	r    *run
	stop chan struct{}
	done sync.WaitGroup

	mu                     sync.Mutex
	mem, peakMem, dsk, top []int64 // by member, MB
}

func (r *run) watchMembers() *watcher {
	n := len(r.members)
	w := &watcher{r: r, stop: make(chan struct{}), mem: make([]int64, n), peakMem: make([]int64, n), dsk: make([]int64, n), top: make([]int64, n)}
	w.done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			w.look()
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
		}
	})
	return w
}

func (w *watcher) look() {
	for n, m := range w.r.members {
		memory, disk := residentMB(w.r.pid(m)), diskMB(w.r.registryDir(m))
		w.mu.Lock()
		w.mem[n], w.dsk[n] = memory, disk
		w.peakMem[n], w.top[n] = max(w.peakMem[n], memory), max(w.top[n], disk)
		w.mu.Unlock()
	}
}

func (w *watcher) get(of *[]int64) []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]int64(nil), *of...)
}

func (w *watcher) lastMemory() []int64 { return w.get(&w.mem) }
func (w *watcher) lastDisk() []int64   { return w.get(&w.dsk) }

// memory ends the watching and gives the peaks.
func (w *watcher) memory() []int64 {
	close(w.stop)
	w.done.Wait()
	return w.get(&w.peakMem)
}

func (w *watcher) disk() []int64 { return w.get(&w.top) }

func (r *run) registryDir(id names.InstitutionID) string {
	return filepath.Join(r.net.DataDir(id), "registry")
}

func (r *run) pids() (pids []int) {
	for _, m := range r.members {
		pids = append(pids, r.pid(m))
	}
	return pids
}

// residentMB gives the memory of a process, files that it maps included.
func residentMB(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
	return pages * int64(os.Getpagesize()) >> 20
}

// usedBy gives the seconds of processor that processes have used.
func usedBy(pids []int) (seconds float64) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) > 12 {
			user, _ := strconv.ParseFloat(f[11], 64)
			system, _ := strconv.ParseFloat(f[12], 64)
			seconds += (user + system) / 100
		}
	}
	return seconds
}

// diskMB gives what a folder takes on disk: blocks, since some files have holes.
func diskMB(dir string) (mb int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				mb += st.Blocks * 512
			}
		}
		return nil
	})
	return mb >> 20
}

// writesSnapshot reports whether a member writes a snapshot at this moment.
func (r *run) writesSnapshot(id names.InstitutionID) bool {
	found, _ := filepath.Glob(filepath.Join(r.registryDir(id), "member", "snapshots", "*.tmp"))
	return len(found) > 0
}
