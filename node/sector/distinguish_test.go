package sector

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/sector/veil"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// view is all that somebody outside sees of one exchange: requester, clearing peer,
// registry, whoever reads the wire and the journals that are shown to parties.
func (w *world) view(q exchange.Question) string {
	w.t.Helper()
	before := map[names.NodeID]int{}
	for id, n := range w.nodes {
		before[id] = n.journal.size()
	}
	w.outside = nil
	began := time.Now()
	r := w.consult(q)
	took := time.Since(began)
	synctest.Wait()
	var b strings.Builder
	fmt.Fprintf(&b, "status %s reason %s withheld %v", r.Status, r.Reason, r.Withheld)
	for _, s := range r.Suppliers {
		fmt.Fprintf(&b, " | %s %s %s %s", s.Supplier, s.Status, s.Reason, s.Records)
	}
	fmt.Fprintf(&b, " | took %v", took)
	for _, o := range w.outside {
		fmt.Fprintf(&b, " | %d bytes after %v", o.size, o.after)
	}
	var seen []string
	for id, n := range w.nodes {
		name := string(id.Institution)
		if slices.Contains([]string{"alpha", "bravo", "delta"}, name) { // which one clears is drawn from the request
			name = "clearer"
		}
		for _, s := range n.journal.stored[before[id]:] {
			seen = append(seen, name+" "+shape(s.Entry.ProtoReflect(), began))
		}
	}
	slices.Sort(seen)
	return b.String() + " | " + strings.Join(seen, " | ")
}

// shape tells a message by all of its fields, but of what is random or signed by its
// length, of times how long after the beginning, and of a subject nothing.
func shape(m protoreflect.Message, began time.Time) string {
	fields := map[string]string{}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(f.Name())
		one := func(v protoreflect.Value) string {
			switch {
			case name == "subject" || name == "client_ticket" || name == "clearer" || name == "ticket":
				return "-"
			case f.Kind() == protoreflect.MessageKind:
				return shape(v.Message(), began)
			case f.Kind() == protoreflect.BytesKind:
				return fmt.Sprint(len(v.Bytes()), " bytes")
			case strings.HasSuffix(name, "_unix_ms"):
				return fmt.Sprint(v.Int()-began.UnixMilli(), " ms")
			}
			return v.String()
		}
		if f.IsList() {
			var all []string
			for i := range v.List().Len() {
				all = append(all, one(v.List().Get(i)))
			}
			fields[name] = strings.Join(all, ",")
		} else {
			fields[name] = one(v)
		}
		return true
	})
	var all []string
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		all = append(all, k+"="+fields[k])
	}
	return "{" + strings.Join(all, " ") + "}"
}

// TestNobodyCanTell compares what is seen outside, field by field, for subjects of
// different funds: quick ones, slow ones, one that gives much, with one fund and with
// two; and for whatever can fail: a fund that is dead, or unknown, that has an error,
// that answers against the schema, that lies, that gives too much, or is too late.
func TestNobodyCanTell(t *testing.T) {
	w := newWorld(t)
	var answered, failed []exchange.Question
	const each = 12
	n := 0
	next := func() (subject.ID, string) {
		n++
		return ssin(n), fmt.Sprintf("T-%04d", n)
	}
	for i := range each {
		for _, fund := range funds {
			_, ticket := next()
			answered = append(answered, question(w.person(n, fund), ticket))
			_ = i
		}
		_, ticket := next()
		id := w.person(n, "")
		w.affiliate(id, funds[i%3], names.Period{From: names.Always, Until: 9500})
		w.affiliate(id, funds[(i+1)%3], names.Period{From: 9501, Until: names.Forever})
		answered = append(answered, question(id, ticket))
	}
	failures := []string{"dead", "absent", "error", "schema", "lie", "much", "late", "suspended"}
	kinds := map[subject.ID]string{}
	for _, kind := range failures {
		for i := range each {
			_, ticket := next()
			fund := funds[i%3]
			if kind == "absent" {
				fund = ""
			}
			id := w.person(n, fund)
			kinds[id] = kind
			failed = append(failed, question(id, ticket))
		}
	}
	w.bubble(t, func(t *testing.T) {
		delays := map[string]time.Duration{"fund-a": 2 * time.Millisecond, "fund-b": 180 * time.Millisecond, "fund-c": 399 * time.Millisecond}
		for _, q := range answered {
			id := subject.Raw(q.Scheme, q.Number)
			for _, f := range funds {
				w.node(f).source.set(id, yes)
				w.node(f).source.delay = delays[f]
			}
		}
		compare(t, "answered", w, answered, veil.DefaultTimes().Prompt, nil)
		w.outside = nil
		compare(t, "failed", w, failed, veil.DefaultTimes().Late, func(q exchange.Question) {
			id := subject.Raw(q.Scheme, q.Number)
			w.fail(id, kinds[id])
		})
	})
}

// TestOneTimeClass: with prompt and late the same, a fund that takes two thirds of it, one
// that is quick, and every failure are told at the same instant.
func TestOneTimeClass(t *testing.T) {
	w := newWorld(t)
	only := time.Second
	w.node("nic").manager.times = veil.Times{Prompt: only, Late: only}
	var answered, failed []exchange.Question
	for n := range 12 {
		answered = append(answered, question(w.person(n+1, funds[n%3]), fmt.Sprintf("T-%04d", n)))
		failed = append(failed, question(w.person(n+101, funds[n%3]), fmt.Sprintf("F-%04d", n)))
	}
	w.bubble(t, func(t *testing.T) {
		slow := map[string]time.Duration{"fund-a": time.Millisecond, "fund-b": 450 * time.Millisecond, "fund-c": 680 * time.Millisecond}
		for _, q := range answered {
			for _, f := range funds {
				w.node(f).source.set(subject.Raw(q.Scheme, q.Number), yes)
				w.node(f).source.delay = slow[f]
			}
		}
		compare(t, "answered", w, answered, only, nil)
		compare(t, "failed", w, failed, only, func(q exchange.Question) {
			kinds := []string{"dead", "error", "schema", "lie", "late", "suspended"}
			w.fail(subject.Raw(q.Scheme, q.Number), kinds[rand.IntN(len(kinds))])
		})
	})
}

// fail lets every fund fail in one way.
func (w *world) fail(id subject.ID, kind string) {
	w.disturbing(nil)
	for _, f := range funds {
		s := w.node(f).source
		s.set(id, yes)
		s.err, s.delay = nil, 5*time.Millisecond
		switch kind {
		case "error":
			s.err = errors.New("disk")
		case "schema":
			s.set(id, `{"entitled":"perhaps"}`)
		case "much":
			s.set(id, `{"entitled":true,"ground":"`+strings.Repeat("x", 9<<20)+`"}`)
		case "late":
			s.delay = 2900 * time.Millisecond
		}
	}
	w.disturbing(func(ctx context.Context, method string, _, to names.NodeID, arrived bool) error {
		if method != "forward" {
			return nil
		}
		switch {
		case kind == "dead" && to.Institution == "fund-a": // it swallows everything
			<-ctx.Done()
			return ctx.Err()
		case kind == "dead" && to.Institution == "fund-b": // nothing listens
			return errLost
		case kind == "dead": // the answer is lost
			if arrived {
				return errLost
			}
		case kind == "lie" && arrived, kind == "suspended":
			return &exchange.Refusal{Reason: 25}
		}
		return nil
	})
}

func compare(t *testing.T, what string, w *world, questions []exchange.Question, release time.Duration, before func(exchange.Question)) {
	t.Helper()
	rand.Shuffle(len(questions), func(i, j int) { questions[i], questions[j] = questions[j], questions[i] })
	var first string
	for _, q := range questions {
		if before != nil {
			before(q)
		}
		v := w.view(q)
		if len(w.outside) != 1 || w.outside[0].after != release || w.outside[0].size != veil.Floor {
			t.Fatalf("%s: one reply of %d bytes after %v is wanted, got %+v", what, veil.Floor, release, sizes(w.outside))
		}
		if first == "" {
			first = v
		}
		if v != first {
			t.Fatalf("%s: two exchanges differ outside:\n%s\n\n%s", what, diff(first, v), diff(v, first))
		}
	}
}

func sizes(all []observed) (out []string) {
	for _, o := range all {
		out = append(out, fmt.Sprint(o.size, " after ", o.after))
	}
	return out
}

// diff gives the parts of a that are not in b.
func diff(a, b string) string {
	parts := strings.Split(b, " | ")
	return strings.Join(slices.DeleteFunc(strings.Split(a, " | "), func(p string) bool { return slices.Contains(parts, p) }), "\n")
}

// TestSizeClasses: records of any size make messages of few sizes, and an answer is as
// large whichever funds gave it.
func TestSizeClasses(t *testing.T) {
	w := newWorld(t)
	var ids []subject.ID
	for n := range 24 {
		ids = append(ids, w.person(n, funds[n%3]))
	}
	w.bubble(t, func(t *testing.T) {
		seen := map[int]bool{}
		for n, id := range ids {
			records := slices.Repeat([]string{yes}, 1<<(n/3*2)/2)
			for _, f := range funds {
				w.node(f).source.set(id, records...)
			}
			w.outside = nil
			w.consult(question(id, fmt.Sprint("T-", n)))
			for _, o := range w.outside {
				if o.size&(o.size-1) != 0 || o.size < veil.Floor {
					t.Errorf("%d bytes are no class", o.size)
				}
				seen[o.size] = true
			}
		}
		if len(seen) < 2 {
			t.Errorf("only sizes %v were seen: the test tests little", seen)
		}
	})
}
