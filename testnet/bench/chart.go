package bench

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// The chart's measures, in its own units.
const (
	chartWidth, chartHeight = 720, 360
	chartLeft, chartTop     = 70, 50
	chartBottom, chartRight = 310, 700
)

// WriteChart draws consultations and bare proxy, per second by how many are in
// flight, as SVG with a logarithmic height.
func (r *Report) WriteChart(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", chartWidth, chartHeight)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="%d" y="24" font-size="15">Consultations and bare proxy, per second (%s, %s)</text>`+"\n",
		chartLeft, r.Time.Format("2006-01-02"), escape(r.Machine))
	for _, y := range []float64{10, 100, 1_000, 10_000, 100_000} {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.0f" y2="%.0f" stroke="#ddd"/><text x="%d" y="%.0f" text-anchor="end">%.0f</text>`+"\n",
			chartLeft, chartRight, height(y), height(y), chartLeft-8, height(y)+4, y)
	}
	step := (chartRight - chartLeft) / max(len(r.Rows), 1)
	for i, x := range r.Rows {
		left := chartLeft + i*step + step/8
		bar := func(at int, v float64, colour string) {
			fmt.Fprintf(&b, `<rect x="%d" y="%.0f" width="%d" height="%.0f" fill="%s"/><text x="%d" y="%.0f" text-anchor="middle">%.0f</text>`+"\n",
				left+at*step*3/8, height(v), step/3, chartBottom-height(v), colour, left+at*step*3/8+step/6, height(v)-4, v)
		}
		bar(0, x.Exchanges.PerSecond, "#2b6cb0")
		bar(1, x.Proxy.PerSecond, "#bbb")
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%d in flight, ratio %.2f</text>`+"\n", left+step*3/8, chartBottom+18, x.InFlight, x.Ratio())
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#2b6cb0">checked, signed, journaled</text><text x="%d" y="%d" fill="#888">bare two-hop mutual-TLS proxy</text></svg>`+"\n",
		chartLeft, chartHeight-8, chartLeft+220, chartHeight-8)
	_, err := io.WriteString(w, b.String())
	return err
}

// height gives where a rate lies, from 10 to 100,000.
func height(v float64) float64 {
	part := (math.Log10(max(v, 10)) - 1) / 4
	return chartBottom - part*(chartBottom-chartTop)
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
