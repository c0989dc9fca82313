package belgium

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// quietFor is how long look-ups are measured while nothing else goes on.
const quietFor = 8 * time.Second

// settle waits until all members hold the same, and what goes on behind has ended.
func (r *run) settle(ctx context.Context) error {
	began := time.Now()
	for {
		var applied []uint64
		for _, m := range r.members {
			st, err := r.net.Client(m).RegistryStatus(ctx)
			if err != nil {
				return err
			}
			applied = append(applied, st.AppliedIndex)
			r.report.Subjects, r.report.References = st.Subjects, st.References
		}
		if applied[0] == applied[1] && applied[1] == applied[2] {
			break
		}
		if err := pause(ctx, poll); err != nil {
			return err
		}
	}
	r.report.SettleSeconds = time.Since(began).Seconds()
	// Merges of runs go on for a while; their end is when the folders stand still.
	for last, same := int64(-1), 0; same < 4; {
		var all int64
		for _, m := range r.members {
			all += diskMB(r.registryDir(m))
		}
		if all == last {
			same++
		} else {
			last, same = all, 0
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	r.report.DiskMB, r.report.MemoryMB = nil, nil
	for _, m := range r.members {
		r.report.DiskMB = append(r.report.DiskMB, diskMB(r.registryDir(m)))
		r.report.MemoryMB = append(r.report.MemoryMB, residentMB(r.pid(m)))
	}
	r.say("all members hold %s references on %s subjects; disk %s MB, memory %s MB", count(int(r.report.References)), count(int(r.report.Subjects)),
		list(r.report.DiskMB), list(r.report.MemoryMB))
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restart kills a member and times its way back to serving, nothing of its registry in the
// memory of the operating system.
func (r *run) restart(ctx context.Context) error {
	_, follower, err := r.leader(ctx)
	if err != nil {
		return err
	}
	if err := r.net.KillNode(follower); err != nil {
		return err
	}
	if err := forgetPages(r.registryDir(follower)); err != nil {
		return err
	}
	began := time.Now()
	if err := r.net.StartNode(follower, nil); err != nil {
		return err
	}
	if err := r.untilReady(ctx, follower); err != nil {
		return err
	}
	r.report.RestartSeconds = time.Since(began).Seconds()
	r.say("a killed member served again after %.2f s", r.report.RestartSeconds)
	return nil
}

// untilReady waits until a node says that it is ready, its view of the registry confirmed.
func (r *run) untilReady(ctx context.Context, id names.InstitutionID) error {
	for {
		ready, err := r.net.Client(id).Ready(ctx)
		if err == nil && ready.Ready {
			return nil
		}
		if err := pause(ctx, poll); err != nil {
			return err
		}
	}
}

// snapshot streams a snapshot from a member, as an operator who saves one does, has two
// members write their own and let go of log, and measures what others feel of it; and the
// same while nothing goes on, to compare.
func (r *run) snapshot(ctx context.Context) error {
	leader, follower, err := r.leader(ctx)
	if err != nil {
		return err
	}
	quiet := r.probe(leader, follower)
	if err := pause(ctx, quietFor); err != nil {
		return err
	}
	r.report.Snapshot.QuietReads, _, _ = quiet.end()
	probes := r.probe(leader, follower)
	began := time.Now()
	n, err := r.net.Client(follower).Archive(ctx, "snapshot", io.Discard)
	r.report.Snapshot.Seconds, r.report.Snapshot.MB = time.Since(began).Seconds(), n>>20
	r.report.Snapshot.Reads, _, _ = probes.end()
	if err != nil {
		return err
	}
	r.say("a snapshot of %s was streamed in %.1f s; look-ups meanwhile p99 %.1f ms, before %.1f ms", size(n), r.report.Snapshot.Seconds,
		r.report.Snapshot.Reads.P99/1000, r.report.Snapshot.QuietReads.P99/1000)
	return r.writeSnapshots(ctx, follower, leader)
}

// writeSnapshots has members write their own snapshots, one after the other.
func (r *run) writeSnapshots(ctx context.Context, members ...names.InstitutionID) error {
	probes := r.probe(members...)
	began := time.Now()
	var err error
	for _, id := range members {
		if _, err = r.net.Client(id).Compact(ctx); err != nil {
			err = fmt.Errorf("%s writes its snapshot: %w", id, err)
			break
		}
	}
	r.report.Snapshot.WriteSeconds = time.Since(began).Seconds()
	r.report.Snapshot.ReadsAtWriting, _, _ = probes.end()
	if err != nil {
		return err
	}
	r.say("%d members wrote their snapshots and let go of log in %.1f s; look-ups meanwhile p99 %.1f ms", len(members), r.report.Snapshot.WriteSeconds, r.report.Snapshot.ReadsAtWriting.P99/1000)
	return nil
}

// catchUp makes an empty node a member, or, when an earlier run did, takes that member's disk
// away, and times until it holds everything.
func (r *run) catchUp(ctx context.Context) error {
	leader, _, err := r.leader(ctx)
	if err != nil {
		return err
	}
	before, err := r.net.Client(leader).RegistryStatus(ctx)
	if err != nil {
		return err
	}
	probes := r.probe(leader)
	began := time.Now()
	if r.grown {
		err = r.replaceDisk(r.newcomer)
	} else {
		err = r.net.Promote(ctx, r.newcomer)
	}
	if err != nil {
		return err
	}
	var peak int64
	told := began
	for {
		peak = max(peak, residentMB(r.pid(r.newcomer)))
		st, err := r.net.Client(r.newcomer).RegistryStatus(ctx)
		if err == nil && st.AppliedIndex >= before.AppliedIndex {
			break
		}
		if time.Since(told) > 2*reportEvery {
			told = time.Now()
			r.say("the new member fetches: %v, %d MB of memory, %d MB of disk", time.Since(began).Round(time.Second), peak, diskMB(r.registryDir(r.newcomer)))
		}
		if time.Since(began) > r.Within {
			return fmt.Errorf("the new member did not catch up within %v", r.Within)
		}
		if err := pause(ctx, poll); err != nil {
			return err
		}
	}
	r.report.CatchUp.DiskMB = diskMB(r.registryDir(r.newcomer))
	r.report.CatchUp.Seconds, r.report.CatchUp.PeakMemoryMB = time.Since(began).Seconds(), peak
	r.report.CatchUp.Reads, _, _ = probes.end()
	r.say("an empty member held everything after %.1f s, with at most %d MB", r.report.CatchUp.Seconds, peak)
	return nil
}

// replaceDisk starts a member anew that has lost all it kept of the registry.
func (r *run) replaceDisk(id names.InstitutionID) error {
	return errors.Join(r.net.StopNode(id), os.RemoveAll(r.registryDir(id)), r.net.StartNode(id, nil))
}

// forgetPages has the operating system drop what it keeps in memory of the files in dir.
func forgetPages(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		// What is not on disk yet cannot be dropped.
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
}
