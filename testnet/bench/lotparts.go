package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/adapters"
	"github.com/crossroads-mesh/crossroads/node/batch/sources"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// largest gives the question that may be asked in lots and for which the most subjects
// are asked of one supplier, and that supplier.
func largest(w *data.World) (best data.Consultation, supplier names.InstitutionID, err error) {
	on, most := names.DateOf(time.Now().UTC()), 0
	for _, a := range w.Authorizations() {
		for _, i := range w.Institutions() {
			if string(i.Type) != a.RequesterType || a.MandateRequired || !slices.Contains(a.Modes, string(names.Batch)) {
				continue
			}
			c := data.Consultation{
				Requester: i.ID, Purpose: names.Purpose(a.Purpose), Dataset: names.DatasetID(a.Dataset),
				Scheme: subject.SSIN, Period: names.Period{From: data.Today - 364, Until: data.Today}, AuthLevel: a.MinAuthLevel,
			}
			asked := map[names.InstitutionID]int{}
			for p := range w.Persons() {
				if p.Index == lookAt {
					break
				}
				c.Number = p.SSIN.Number()
				for _, s := range w.Expected(c, on).Suppliers {
					if asked[s.Supplier]++; asked[s.Supplier] > most {
						most, best, supplier = asked[s.Supplier], c, s.Supplier
					}
				}
			}
		}
	}
	if most == 0 {
		return best, "", errors.New("nothing may be asked in lots among these institutions")
	}
	return best, supplier, nil
}

const (
	adapterChunk = 2048 // subjects asked about at once, as in lots
	adapterMost  = 100_000
)

// adapterAlone asks a supplier's source about everybody, in chunks, for d at most.
func adapterAlone(ctx context.Context, n *testnet.Network, q data.Consultation, supplier names.InstitutionID, d time.Duration) (m Measured, err error) {
	c, err := config.Load(n.ConfigFile(supplier))
	if err != nil {
		return m, err
	}
	i := slices.IndexFunc(c.Sources, func(s config.Source) bool { return s.Dataset == q.Dataset })
	if i < 0 {
		return m, fmt.Errorf("%s has no source of %s", supplier, q.Dataset)
	}
	source, closer, err := adapters.Open(c.Sources[i])
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	var chunk []exchange.Query
	begun := time.Now()
	ask := func() error {
		_, err := sources.Fetch(ctx, source, chunk)
		m.Count += len(chunk)
		chunk = chunk[:0]
		return err
	}
	for p := range n.World().Persons() {
		if m.Count >= adapterMost || time.Since(begun) > d {
			break
		}
		chunk = append(chunk, exchange.Query{Dataset: q.Dataset, Subject: p.SSIN, Period: q.Period})
		if len(chunk) == adapterChunk {
			if err := ask(); err != nil {
				return m, err
			}
		}
	}
	if err := ask(); err != nil {
		return m, err
	}
	m.PerSecond = float64(m.Count) / time.Since(begun).Seconds()
	return m, nil
}

// steadyUntil asks at a rate until over is closed or gives something; see load.steady.
func (l *load) steadyUntil(ctx context.Context, perSecond int, over <-chan time.Time) (Measured, error) {
	var mu sync.Mutex
	var took []time.Duration
	var failed int
	var broken error
	var all sync.WaitGroup
	begun := time.Now()
	for i := 0; ; i++ {
		due := begun.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		select {
		case <-time.After(time.Until(due)):
		case <-over:
			all.Wait()
			m := measuredOf(took, time.Since(begun))
			m.Failed = failed
			return m, broken
		case <-ctx.Done():
			all.Wait()
			return Measured{}, ctx.Err()
		}
		all.Go(func() {
			err := l.ask(ctx, i)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(due))
			switch {
			case errors.Is(err, errTurnedAway):
				failed++
			case err != nil && broken == nil:
				broken = fmt.Errorf("steady: %w", err)
			}
		})
	}
}

// peak gives the most memory that a process held, in KB.
func peak(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(b, []byte("VmHWM:"))
	if f := bytes.Fields(rest); len(f) > 0 {
		kb, _ := strconv.Atoi(string(f[0]))
		return kb
	}
	return 0
}
