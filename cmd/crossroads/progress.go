package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress is a bar on a terminal; elsewhere it shows nothing.
type progress struct {
	w     io.Writer // nil: no terminal
	what  string
	began time.Time
	shown time.Time
}

func newProgress(w io.Writer, what string) *progress {
	p := &progress{what: what, began: time.Now()}
	if onTerminal(w) {
		p.w = w
	}
	return p
}

func onTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// show shows how many bytes of how many are done.
func (p *progress) show(done, total int64) {
	if p.w == nil || total <= 0 || time.Since(p.shown) < 100*time.Millisecond && done < total {
		return
	}
	p.shown = time.Now()
	const width = 30
	full := int(min(done, total) * width / total)
	rate := float64(done) / max(time.Since(p.began).Seconds(), 0.001) / (1 << 20)
	fmt.Fprintf(p.w, "\r%s [%s%s] %3d %%  %d of %d MiB  %.0f MiB/s ", p.what,
		strings.Repeat("#", full), strings.Repeat(".", width-full), min(done, total)*100/total, done>>20, total>>20, rate)
}

// end leaves an empty line behind.
func (p *progress) end() {
	if p.w != nil && !p.shown.IsZero() {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", 78))
	}
}
