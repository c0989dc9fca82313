package pace

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		begun := time.Now()
		if g.Pass(t.Context()); time.Since(begun) != 50*time.Microsecond || g.Waited() != 0 {
			t.Errorf("waited %v for nobody, want the rest alone", time.Since(begun))
		}
		begun = time.Now()
		leave, other := g.Enter(), g.Enter()
		go func() { time.Sleep(2 * time.Millisecond); leave(); time.Sleep(time.Millisecond); other() }()
		if g.Pass(t.Context()); time.Since(begun) != 3*time.Millisecond {
			t.Errorf("waited %v, want until both had left", time.Since(begun))
		}
		g.Rest = 200 * time.Microsecond
		defer g.Enter()()
		if begun = time.Now(); g.Pass(t.Context()) != nil || time.Since(begun) != g.Rest+5*time.Millisecond {
			t.Errorf("waited %v: a lot must get on, if slowly", time.Since(begun))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if g.Pass(ctx) == nil {
			t.Error("passed after the end")
		}
	})
}

func TestWindow(t *testing.T) {
	brussels, err := time.LoadLocation("Europe/Brussels")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) time.Time {
		v, err := time.ParseInLocation("15:04:05", s, brussels)
		if err != nil {
			t.Fatal(err)
		}
		return v.UTC()
	}
	for _, c := range []struct {
		window, at string
		wait       time.Duration
	}{
		{"", "12:00:00", 0}, {"20:00-06:00", "23:00:00", 0}, {"20:00-06:00", "05:59:59", 0}, {"20:00-06:00", "06:00:00", 14 * time.Hour},
		{"08:00-18:00", "08:00:00", 0}, {"08:00-18:00", "18:00:00", 14 * time.Hour}, {"08:00-18:00", "07:59:30", 30 * time.Second}, {"00:00-24:00", "13:00:00", 0},
	} {
		w, err := ParseWindow(c.window, brussels)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Opens(at(c.at)); got != c.wait {
			t.Errorf("%s at %s: opens in %v, want %v", c.window, c.at, got, c.wait)
		}
	}
	for _, bad := range []string{"8-18", "08:00-25:00", "08:60-09:00", "08:00-18:00x", "-1:00-18:00"} {
		if _, err := ParseWindow(bad, nil); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

func TestQuota(t *testing.T) {
	q := NewQuota(1000, 500)
	now := time.Unix(0, 0)
	if q.Take("a", 2000, now) != 0 || q.Take("b", 500, now) != 0 {
		t.Error("the first chunk of each is taken at once")
	}
	if wait := q.Take("a", 500, now); wait != 500*time.Millisecond {
		t.Errorf("wait %v", wait)
	}
	if q.Take("a", 500, now.Add(time.Second)) != 0 {
		t.Error("never full again")
	}
}
