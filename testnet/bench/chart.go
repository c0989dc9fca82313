package bench

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// The chart's measures, in its own units: a panel of consultations, and one of everything
// else, a line each.
const (
	chartWidth, panelHeight = 900, 330
	chartLeft, chartTop     = 70, 50
	chartBottom, chartRight = 290, 880
	lineHeight, lineLeft    = 40, 330
	lineRight               = 760
)

const ourColour, referenceColour = "#2b6cb0", "#bbb"

// pair is a rate beside a reference's.
type pair struct {
	what, reference string
	ours, theirs    float64
}

// pairs are what the second panel shows.
func (r *Report) pairs() (all []pair) {
	for _, b := range r.Beside {
		all = append(all, pair{b.What, b.Reference, b.PerSecond, b.ReferencePerSecond})
	}
	for _, c := range append(append([]Compared(nil), r.Members...), r.Directories...) {
		all = append(all, pair{fmt.Sprintf("%s, %d in flight", c.What, flatAt), "bare proxy", c.Exchanges.PerSecond, c.Proxy.PerSecond})
	}
	if d := r.Day; d != nil {
		all = append(all, pair{fmt.Sprintf("a day of Belgium, %.3g of it", d.Fraction), "for a day in 10 minutes", d.PerSecond, fullDayPerSecond})
	}
	return all
}

// WriteChart draws rates and those of the references beside them as SVG, with
// logarithmic scales.
func (r *Report) WriteChart(w io.Writer) error {
	var b strings.Builder
	pairs := r.pairs()
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", chartWidth, panelHeight+lineHeight*len(pairs)+40)
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
		bar(0, x.Exchanges.PerSecond, ourColour)
		bar(1, x.Proxy.PerSecond, referenceColour)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%d in flight, ratio %.2f</text>`+"\n", left+step*3/8, chartBottom+18, x.InFlight, x.Ratio())
	}
	for i, p := range pairs {
		top := panelHeight + i*lineHeight
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><text x="%d" y="%d" text-anchor="end" fill="#888">%s</text>`+"\n",
			lineLeft-10, top+13, escape(p.what), lineLeft-10, top+29, escape(p.reference))
		for at, v := range []float64{p.ours, p.theirs} {
			colour := []string{ourColour, referenceColour}[at]
			label := fmt.Sprintf("%.0f", v)
			if at == 0 {
				label = fmt.Sprintf("%.0f, ratio %.2f", v, p.ours/p.theirs)
			}
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.0f" height="14" fill="%s"/><text x="%.0f" y="%d">%s</text>`+"\n",
				lineLeft, top+2+at*16, width(v), colour, lineLeft+width(v)+6, top+13+at*16, label)
		}
	}
	bottom := panelHeight + lineHeight*len(pairs) + 24
	fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">checked, signed, journaled</text><text x="%d" y="%d" fill="#888">the reference, in the same run</text></svg>`+"\n",
		chartLeft, bottom, ourColour, chartLeft+220, bottom)
	_, err := io.WriteString(w, b.String())
	return err
}

// height gives where a rate lies, from 10 to 100,000.
func height(v float64) float64 { return chartBottom - scaled(v)*(chartBottom-chartTop) }

// width gives how long the bar of a rate is.
func width(v float64) float64 { return scaled(v) * (lineRight - lineLeft) }

func scaled(v float64) float64 { return min(max(math.Log10(max(v, 10))-1, 0)/4, 1) }

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
