package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/agree"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/store"
)

const (
	// compareWithin bounds one comparison; who does not answer then is silent.
	compareWithin = 5 * time.Second
	// rememberedStates of each member are held against what it says later.
	rememberedStates = 64
	// soundLook is how often who waits for a standing looks whether the state was confirmed,
	// and differenceWithin bounds the search for the record that differs.
	soundLook        = 50 * time.Millisecond
	differenceWithin = 2 * time.Minute
)

// Agreement is how this replica's state compares with the members'.
type Agreement struct {
	// Mark is this replica's state that was compared; on a watcher only its public root
	// means anything. Index 0: none yet.
	Mark store.Mark
	// Same and Differ are the members that signed the same and another, Silent the others.
	Same, Differ, Silent []names.NodeID
	// Diverged says that this replica is the one that is wrong, and since what index; nil: it
	// is not known to be.
	Diverged error
}

// comparison is what a Registry knows of others' states. The zero value is ready, and safe
// for concurrent use.
type comparison struct {
	mu   sync.Mutex
	last Agreement
	// suspect: the tables were made anew after they differed, and nobody has confirmed them.
	suspect bool
	said    map[names.NodeID]map[uint64]agree.State
	lied    map[names.NodeID]bool // signed two states of one index
	told    map[string]bool       // differences that are in the log already
}

// Agreement tells how this replica's state compared, lately, with the members'.
func (r *Registry) Agreement() Agreement {
	r.compared.mu.Lock()
	defer r.compared.mu.Unlock()
	return r.compared.last
}

// StateNow gives the hash of this replica's tables as they stand.
func (r *Registry) StateNow() (store.Mark, error) { return r.store.Now() }

// Sound gives an error while this replica must not be relied on: its state is another
// than most members signed, or was, and is not confirmed yet.
func (r *Registry) Sound() error {
	r.compared.mu.Lock()
	defer r.compared.mu.Unlock()
	switch {
	case r.compared.last.Diverged != nil:
		return r.compared.last.Diverged
	case r.compared.suspect:
		return fmt.Errorf("%w: its tables were made anew, and no majority has confirmed them yet", ErrDiverged)
	}
	return nil
}

// keepComparing compares this replica's marks with the members', each when there is a new
// one, and again while some are silent.
func (r *Registry) keepComparing(ctx context.Context) error {
	every := r.cfg.Tuning.CompareEvery
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := r.compareOnce(ctx); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// compareOnce compares the last mark, unless all have said the same of it before.
func (r *Registry) compareOnce(ctx context.Context) error {
	marks, err := r.store.Marks(0)
	if err != nil {
		if errors.Is(err, store.ErrClosed) {
			return nil
		}
		return err
	}
	if len(marks) == 0 {
		return nil
	}
	mine := marks[len(marks)-1]
	before := r.Agreement()
	if before.Diverged != nil || before.Mark == mine && len(before.Silent)+len(before.Differ) == 0 {
		return nil
	}
	voters, err := r.voters()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, compareWithin)
	defer cancel()
	now := Agreement{Mark: mine}
	var mu sync.Mutex
	var wg sync.WaitGroup
	signed := map[names.NodeID]agree.State{}
	var others []agree.State
	for _, m := range voters {
		if m == r.cfg.Self {
			continue
		}
		wg.Go(func() {
			states, witnessed, err := r.askStates(ctx, m, &registrypb.StateRequest{Index: mine.Index})
			mu.Lock()
			defer mu.Unlock()
			others = append(others, witnessed...)
			switch {
			case err != nil || len(states) == 0 || states[0].Index != mine.Index:
				now.Silent = append(now.Silent, m)
				return
			case r.alike(mine, states[0]):
				now.Same = append(now.Same, m)
			default:
				now.Differ = append(now.Differ, m)
			}
			signed[m] = states[0]
		})
	}
	wg.Wait()
	for _, s := range signed {
		r.holdAgainst(s)
	}
	for _, s := range others {
		r.holdAgainst(s)
	}
	return r.conclude(ctx, now, len(voters), signed)
}

func (r *Registry) alike(mine store.Mark, s agree.State) bool {
	return s.Public == mine.Public && (r.member == nil || s.Root == mine.Root)
}

// conclude judges a comparison. This replica goes on as long as nobody contradicts it, or
// most say the same; when it is contradicted and is not of a majority, it is wrong, or
// nobody can tell: it stops.
func (r *Registry) conclude(ctx context.Context, now Agreement, voters int, signed map[names.NodeID]agree.State) error {
	same := 0
	for _, m := range now.Same { // who says one thing here and another there says nothing
		if !r.liar(m) {
			same++
		}
	}
	if r.member != nil && r.isVoter(r.cfg.Self) {
		same++
	}
	for _, l := range [][]names.NodeID{now.Same, now.Differ, now.Silent} {
		slices.SortFunc(l, func(a, b names.NodeID) int { return slices.Compare([]byte(a.String()), []byte(b.String())) })
	}
	confirmed := same > voters/2
	for _, m := range now.Differ {
		if r.tellOnce(fmt.Sprint(m, now.Mark.Index, confirmed)) {
			continue
		}
		r.cfg.Log.Error("registry: a member signed another state than this node holds", "member", m.String(), "index", now.Mark.Index,
			"here", fmt.Sprintf("%x", now.Mark.Root), "there", fmt.Sprintf("%x", signed[m].Root), "majority_is_here", confirmed,
			"signed", base64.StdEncoding.EncodeToString(signed[m].Raw))
	}
	if len(now.Differ) > 0 && !confirmed {
		if r.member == nil && len(now.Differ) <= voters/2 {
			// A watcher is no party: it waits until most members say so.
			r.remember(now, false)
			return nil
		}
		return r.diverge(ctx, now)
	}
	r.remember(now, confirmed)
	return nil
}

func (r *Registry) remember(now Agreement, confirmed bool) {
	r.compared.mu.Lock()
	defer r.compared.mu.Unlock()
	if now.Diverged == nil { // found meanwhile, in another way
		now.Diverged = r.compared.last.Diverged
	}
	r.compared.last = now
	if r.compared.suspect && confirmed {
		if err := os.Remove(filepath.Join(r.dir, rebuiltFile)); err == nil || errors.Is(err, os.ErrNotExist) {
			r.compared.suspect = false
			r.cfg.Log.Info("registry: the tables that were made anew are those of a majority", "index", now.Mark.Index)
		}
	}
}

// The marks of a member's directory. DIVERGED: its tables are not to be used again, and
// are made anew at the next start. REBUILT: they were, and nobody has confirmed them yet.
const (
	divergedFile = "DIVERGED"
	rebuiltFile  = "REBUILT"
)

// diverge has this replica stop: it clears, releases, leads and grants nothing any more.
func (r *Registry) diverge(ctx context.Context, now Agreement) error {
	why := fmt.Errorf("%w: at index %d its state is not what %v signed", ErrDiverged, now.Mark.Index, now.Differ)
	if err := r.diverged(now, why); err != nil {
		return err
	}
	for _, m := range now.Differ {
		where, err := r.findDifference(ctx, m, now.Mark.Index)
		if err != nil {
			r.cfg.Log.Warn("registry: where the states differ was not found", "member", m.String(), "error", err)
			continue
		}
		r.cfg.Log.Error("registry: where the states differ", "member", m.String(), "first", where)
		r.compared.mu.Lock()
		r.compared.last.Diverged = fmt.Errorf("%w; first: %s", why, where)
		r.compared.mu.Unlock()
		break
	}
	return nil
}

// diverged stops this replica, durably. A watcher ends, and fetches everything anew at its
// next start.
func (r *Registry) diverged(now Agreement, why error) error {
	now.Diverged = why
	r.remember(now, false)
	if r.member == nil {
		r.cfg.Log.Error("registry: this watcher's tables are not what they must be", "error", why)
		return r.giveUp()
	}
	mark := filepath.Join(r.dir, divergedFile)
	if err := os.WriteFile(mark, fmt.Appendf(nil, "%d\n", now.Mark.Index), 0o600); err != nil {
		return fmt.Errorf("%w: and it could not be marked: %w", why, err)
	}
	r.cfg.Log.Error("registry: this member's tables are not what they must be. It stops clearing, leading and granting. "+
		"Keep a copy of its directory for whoever looks into it, then start the node again: it makes its tables anew from its log and what others send", "error", why)
	return nil
}

// holdAgainst compares what a member says with what it said before of the same index.
func (r *Registry) holdAgainst(s agree.State) {
	r.compared.mu.Lock()
	defer r.compared.mu.Unlock()
	c := &r.compared
	if c.said == nil {
		c.said = map[names.NodeID]map[uint64]agree.State{}
	}
	said := c.said[s.Member]
	if said == nil {
		said = map[uint64]agree.State{}
		c.said[s.Member] = said
	}
	before, ok := said[s.Index]
	if c.lied[s.Member] {
		return
	}
	if ok && (before.Root != s.Root || before.Public != s.Public) {
		r.cfg.Log.Error("registry: a member signed two different states of one index: it lies, or was restored from elsewhere under its old name",
			"member", s.Member.String(), "index", s.Index,
			"first", base64.StdEncoding.EncodeToString(before.Raw), "second", base64.StdEncoding.EncodeToString(s.Raw))
		if c.lied == nil {
			c.lied = map[names.NodeID]bool{}
		}
		c.lied[s.Member] = true
		return
	}
	said[s.Index] = s
	for index := range said {
		if len(said) <= rememberedStates {
			break
		}
		if index != s.Index {
			delete(said, index)
		}
	}
}

// witnessed gives what other members signed to this one of an index.
func (r *Registry) witnessed(index uint64) (raw [][]byte) {
	r.compared.mu.Lock()
	defer r.compared.mu.Unlock()
	for _, said := range r.compared.said {
		if s, ok := said[index]; ok && len(raw) < maxWitnessed {
			raw = append(raw, s.Raw)
		}
	}
	return raw
}

func (r *Registry) liar(m names.NodeID) bool {
	r.compared.mu.Lock()
	defer r.compared.mu.Unlock()
	return r.compared.lied[m]
}

// tellOnce reports whether what was told before, and remembers it.
func (r *Registry) tellOnce(what string) bool {
	r.compared.mu.Lock()
	defer r.compared.mu.Unlock()
	c := &r.compared
	if c.told == nil || len(c.told) > rememberedStates {
		c.told = map[string]bool{}
	}
	before := c.told[what]
	c.told[what] = true
	return before
}

// afterDivergence has a member whose state differed begin with empty tables. The log is
// kept, and with it how the member voted, so that this is safe; what a majority signs must
// then confirm the new tables. Those that differ a second time are for people to look at.
func afterDivergence(dir string, state string) (suspect bool, err error) {
	rebuilt := filepath.Join(dir, rebuiltFile)
	_, err = os.Stat(rebuilt)
	suspect = err == nil
	mark := filepath.Join(dir, divergedFile)
	if _, err := os.Stat(mark); err != nil {
		return suspect, nil
	}
	if suspect {
		return true, fmt.Errorf("this member's tables were made anew once because they differed from the other members', and differ again: "+
			"its log or its snapshot is not what was agreed on, or its program or machine computes something else. Have the operators replace the member; %s says since which index", mark)
	}
	if state != "" {
		if err := os.RemoveAll(state); err != nil {
			return true, err
		}
	}
	// The mark goes last, so that a crash in between begins again.
	return true, os.Rename(mark, rebuilt)
}
