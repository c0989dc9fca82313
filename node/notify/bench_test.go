package notify

import (
	"bytes"
	"context"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	nodejournal "github.com/crossroads-mesh/crossroads/node/journal"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
)

// BenchmarkDelivery measures durable deliveries, from the publication's queue to the
// acknowledged receipt: seven nodes with journals and queues of their own on this
// machine's disk, real signatures, clearing and checks; the network is function calls,
// and the registry a map. Every publication goes to two recipients. The reference, in the
// same run, is entries of the same size appended to one journal alone.
//
//	go test ./node/notify -run - -bench Delivery -benchtime 20000x
func BenchmarkDelivery(b *testing.B) {
	w := newWorld(b)
	w.batch = 256
	const persons = 900
	var numbers []string
	for i := range persons {
		numbers = append(numbers, recordtest.Person(20+i))
	}
	w.declare("register", "registered", false, numbers...)
	w.declare("pension", "pensioner", false, numbers...)
	w.declare("health", "insured", false, numbers...)
	dir := b.TempDir()
	for id, n := range w.nodes {
		n.halt()
		real, err := nodejournal.Open(nodejournal.Config{Dir: filepath.Join(dir, id, "journal"), Key: bytes.Repeat([]byte{2}, 32)})
		if err != nil {
			b.Fatal(err)
		}
		defer real.Close()
		n.journal = &journal{real: real}
		n.dir = filepath.Join(dir, id, "queue")
		n.boot()
	}
	defer w.close()
	reg := w.nodes["register"]
	publications := max(b.N/2, 1)
	publish := func(from, until int) {
		var all sync.WaitGroup
		next := make(chan int, 256)
		for range 256 {
			all.Go(func() {
				for i := range next {
					if _, err := reg.publisher.Publish(context.Background(), moved(numbers[i%persons], i)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for i := from; i < until; i++ {
			next <- i
		}
		close(next)
		all.Wait()
	}
	began := time.Now()
	publish(0, publications)
	published := time.Since(began)
	b.ResetTimer()
	began = time.Now()
	spent := cpuTime(b)
	reg.run()
	for {
		left := reg.publisher.Pending()
		for _, l := range reg.publisher.Lags() {
			left += l.Waiting
		}
		if left == 0 {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	took, busy := time.Since(began), cpuTime(b)-spent
	b.StopTimer()
	delivered, _, _ := w.nodes["pension"].inbox.Waiting("office")
	if delivered != publications {
		b.Errorf("%d in the inbox, want %d", delivered, publications)
	}
	deliveries := float64(2 * publications)
	b.ReportMetric(deliveries/took.Seconds(), "deliveries/s")
	b.ReportMetric(float64(busy.Microseconds())/deliveries, "cpu-µs/delivery")
	b.ReportMetric(float64(publications)/published.Seconds(), "publications/s")
	b.ReportMetric(reference(b, w, 2*publications, dir), "reference-appends/s")
	b.ReportMetric(0, "ns/op")
}

// reference appends as many entries as there were deliveries to one journal, in batches
// as large.
func reference(b *testing.B, w *world, n int, dir string) float64 {
	j, err := nodejournal.Open(nodejournal.Config{Dir: filepath.Join(dir, "reference"), Key: bytes.Repeat([]byte{2}, 32)})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	p := moved(ann, 1)
	c := &change{Change: p}
	e := publicationEntry(time.Now(), 15, 22, "0123456789abcdefghjkmnpqrs", c.publication("test.mesh", w.nodes["register"].id, time.Now().UnixMilli()), sum(nil))
	e.Evidence = [][]byte{make([]byte, 900), make([]byte, 700)}
	began := time.Now()
	var all sync.WaitGroup
	work := make(chan int, 256)
	for range 256 {
		all.Go(func() {
			for range work {
				if _, err := j.Append(context.Background(), e); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	all.Wait()
	return float64(n) / time.Since(began).Seconds()
}

// cpuTime is what this process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
