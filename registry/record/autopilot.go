package record

import (
	"time"

	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// Autopilot says how raft's membership follows the members record.
type Autopilot struct {
	// Stabilization is how long a member must have kept up before it votes.
	Stabilization time.Duration
	// MaxTrailing is how many entries it may lag behind and still count as caught up.
	MaxTrailing uint64
	// DeadAfter is how long a member must be silent before its vote is taken; 0: never.
	DeadAfter time.Duration
}

// DefaultAutopilot is what holds until operators set another.
func DefaultAutopilot() Autopilot {
	return Autopilot{Stabilization: 10 * time.Second, MaxTrailing: 250, DeadAfter: 24 * time.Hour}
}

func (a *applier) setAutopilot(p *registrypb.Autopilot) error {
	switch {
	case p.StabilizationMs < 1000 || p.StabilizationMs > 3_600_000:
		return refuse("stabilization of %d ms: want 1,000 to 3,600,000", p.StabilizationMs)
	case p.MaxTrailing < 1 || p.MaxTrailing > 1_000_000:
		return refuse("%d trailing entries: want 1 to 1,000,000", p.MaxTrailing)
	case p.DeadAfterMs != 0 && (p.DeadAfterMs < 10_000 || p.DeadAfterMs > 2_592_000_000):
		return refuse("dead after %d ms: want 10,000 to 2,592,000,000, or 0 for never", p.DeadAfterMs)
	}
	return a.Set([]byte{tabAutopilot}, append([]byte(nil), a.body...))
}

// Autopilot gives the settings in force.
func (v View) Autopilot() (Autopilot, error) {
	p := new(registrypb.Autopilot)
	ok, err := v.message([]byte{tabAutopilot}, p)
	if err != nil || !ok {
		return DefaultAutopilot(), err
	}
	ms := func(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
	return Autopilot{ms(p.StabilizationMs), p.MaxTrailing, ms(p.DeadAfterMs)}, nil
}
