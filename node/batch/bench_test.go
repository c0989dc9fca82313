package batch

import (
	"context"
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
