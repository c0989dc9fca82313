package batch

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/batch/sources"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record/recordtest"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// BenchmarkLot is a yes/no lot through consultant, clearing peer and two suppliers, each with
// journal, index, outbox and spool on disk; and, as the reference, the suppliers' system
// alone. The network between them is a function call.
func BenchmarkLot(b *testing.B) {
	const n = 20_000
	w := newWorld(b, n)
	pcsa := w.nodes["pcsa"]
	pcsa.consultant.cfg.ChunkLines = 2048
	in := file(0, n)
	b.Run("lot", func(b *testing.B) {
		for b.Loop() {
			pcsa.run(w.submit(question("tariff"), in).Voucher)
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "subjects/s")
	})
	b.Run("system alone", func(b *testing.B) {
		var qs []exchange.Query
		for i := range n {
			qs = append(qs, exchange.Query{Dataset: "status/v1", Subject: subject.Raw("ssin", recordtest.Person(i)), Period: names.Period{From: 19000, Until: 20000}})
		}
		for b.Loop() {
			if _, err := sources.Fetch(context.Background(), w.nodes["office"].source, qs); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "subjects/s")
	})
}

// BenchmarkSubmit hands in a million lines, which wait on disk, and tells how much memory
// more there is in use at most meanwhile.
func BenchmarkSubmit(b *testing.B) {
	const n = 1_000_000
	w := newWorld(b, 20)
	c := w.nodes["pcsa"].consultant
	for b.Loop() {
		r, out := io.Pipe()
		go func() {
			lines := bufio.NewWriter(out)
			_, _ = lines.WriteString("number,ref\n")
			for i := range n {
				_, _ = fmt.Fprintf(lines, "%s,r%d\n", recordtest.Person(i), i)
			}
			_ = out.CloseWithError(lines.Flush())
		}()
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		most := uint64(0)
		l, err := c.Submit(b.Context(), question("tariff"), &watched{r, func() {
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse+now.StackInuse)
		}, 0})
		if err != nil || l.Lines != n || l.Subjects != n {
			b.Fatalf("%+v, %v", l, err)
		}
		b.ReportMetric(float64(most-min(most, before.HeapInuse+before.StackInuse))/(1<<20), "peak-MB")
		if _, err := c.Cancel("billing", l.Voucher); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}

// watched looks each time that another megabyte was read.
type watched struct {
	io.Reader
	look func()
	read int
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if w.read>>20 != (w.read+n)>>20 {
		w.look()
	}
	w.read += n
	return n, err
}
