package bench

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/crossroads-mesh/crossroads/testnet"
)

var exchangesProfile = flag.String("exchanges", "", "file for the profile of the exchanges of BenchmarkExchange alone")

// BenchmarkExchange is consultations over HTTP with all seven nodes in this process, so
// that one profile shows where the time of all goes:
//
//	go test ./testnet/bench -run '^$' -bench Exchange/in-flight=64 -benchtime 5000x -exchanges cpu.prof
//
// What bringing the network up takes is not in that profile, as it is in -cpuprofile.
// It tells the processor's time for one, of the client and the suppliers' own systems
// too: what others do on the machine changes that less than the rate. A machine that is
// so busy that nodes lose their grants makes some fail, of which it tells.
func BenchmarkExchange(b *testing.B) {
	n, err := testnet.Start(b.Context(), testnet.Options{Nodes: institutions, Members: 3, Persons: 2_000})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			b.Error(err)
		}
	}()
	l, err := newLoad(n)
	if err != nil {
		b.Fatal(err)
	}
	defer l.close()
	times(b.Context(), flatAt, 1000, l.ask) // warms up
	for _, k := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint("in-flight=", k), func(b *testing.B) {
			b.ReportAllocs()
			if b.N > 1 {
				defer profiled(b)()
			}
			used := userAndSystem(b)
			failed := times(b.Context(), k, b.N, l.ask)
			b.ReportMetric(float64(failed)/float64(b.N), "failed/op")
			b.ReportMetric(float64((userAndSystem(b)-used).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// times calls n times, k at once, and gives how many failed.
func times(ctx context.Context, k, n int, call func(context.Context, int) error) int {
	var begun, failed atomic.Int64
	var all sync.WaitGroup
	for i := range k {
		all.Go(func() {
			for j := int(begun.Add(1)); j <= n; j = int(begun.Add(1)) {
				if call(ctx, j+i) != nil {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	return int(failed.Load())
}

// profiled takes the profile that was asked for, until the result is called.
func profiled(b *testing.B) (stop func()) {
	if *exchangesProfile == "" {
		return func() {}
	}
	f, err := os.Create(*exchangesProfile)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			b.Error(err)
		}
	}
}

// userAndSystem is the processor's time that this process has used.
func userAndSystem(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
