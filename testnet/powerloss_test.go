package testnet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// TestPowerLoss takes the power away from all nodes at once, in the midst of
// questions and of commands to the registry. The network lies on a file system in
// a file: that file holds what was synced, and not what the kernel still had in
// memory. It is copied while everything stands still, the nodes are killed, and
// the network is brought up again on the copy. Whatever had been acknowledged must
// be there, and asking again must give the same answers.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	disk := newPowerDisk(t)
	o := processes(t)
	o.Dir, o.Persons = filepath.Join(disk.mount, "net"), 2000
	n, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	disk.run("sync", "-f", disk.mount) // the institutions' own systems are not what is tested

	ctx := within(t)
	examples := answered(n, "")
	var mu sync.Mutex
	var done []asked
	declared := 0
	load, stop := context.WithCancel(ctx)
	defer stop()
	var askers sync.WaitGroup
	for w := range 4 {
		askers.Go(func() {
			for i := 0; load.Err() == nil; i++ {
				a := asked{Example: examples[(i*5+w)%len(examples)], client: names.ClientTicket(fmt.Sprintf("power-%d-%d", w, i))}
				var err error
				if a.got, err = n.Consult(load, a.Consultation, a.client); err != nil {
					return
				}
				mu.Lock()
				done = append(done, a)
				mu.Unlock()
			}
		})
	}
	askers.Go(func() {
		for load.Err() == nil {
			if _, err := n.Client(examples[0].Requester).DeclareReferences(load, []api.Reference{inventedReference(declared)}); err != nil {
				return
			}
			mu.Lock()
			declared++
			mu.Unlock()
		}
	})
	awaitMore(ctx, &mu, &done, 60)

	for _, e := range n.Endpoints().Nodes {
		if err := syscall.Kill(e.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	acknowledged, references := append([]asked(nil), done...), declared
	mu.Unlock()
	disk.copy()
	stop()
	for _, s := range n.layout.sites {
		if err := n.KillNode(s.ID); err != nil {
			t.Fatal(err)
		}
	}
	askers.Wait()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	disk.swap()
	t.Logf("the power went after %d answers and %d declarations were acknowledged", len(acknowledged), references)

	n, err = Start(ctx, o)
	if err != nil {
		t.Fatalf("after the power came back: %v", err)
	}
	for _, a := range acknowledged {
		a.check(ctx, t, n)
	}
	for i := range references {
		want := inventedReference(i)
		got, err := n.Client(examples[0].Requester).FindReferences(ctx, want.Subject)
		if err != nil || len(got.References) == 0 {
			t.Errorf("declaration %d was acknowledged and is gone: %v", i, err)
		}
	}
}

// inventedReference is on somebody who is nobody else's.
func inventedReference(i int) api.Reference {
	return api.Reference{
		Subject: api.Subject{Scheme: "ssin", Number: ssin(10, 1, 1, 1+i%998)}, Quality: "tested",
		Period: names.Period{From: 20000 + names.Date(i), Until: 30000},
	}
}

// powerDisk is a file system in a file.
type powerDisk struct {
	t                  *testing.T
	image, next, mount string
}

func newPowerDisk(t *testing.T) *powerDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: a loss of power is tested on a loop device, which needs root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("SKIPPED: a loss of power is tested on a loop device, and there are none here")
	}
	dir := t.TempDir()
	d := &powerDisk{t: t, image: filepath.Join(dir, "image"), next: filepath.Join(dir, "next"), mount: filepath.Join(dir, "mount")}
	if err := os.Mkdir(d.mount, 0o700); err != nil {
		t.Fatal(err)
	}
	d.run("truncate", "-s", "3G", d.image)
	d.run("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", d.image)
	d.attach(d.image)
	t.Cleanup(func() { _ = exec.Command("umount", "--lazy", d.mount).Run() })
	return d
}

// attach mounts an image. The kernel commits by itself only every ten minutes, so
// that what nobody synced stays in memory.
func (d *powerDisk) attach(image string) {
	d.t.Helper()
	d.run("mount", "-o", "loop,commit=600", image, d.mount)
}

// copy keeps what the disk holds now; nobody may be writing to it.
func (d *powerDisk) copy() {
	d.t.Helper()
	d.run("cp", "--sparse=always", d.image, d.next)
}

// swap puts the copy in the place of the disk.
func (d *powerDisk) swap() {
	d.t.Helper()
	d.run("umount", d.mount)
	d.attach(d.next)
}

func (d *powerDisk) run(name string, args ...string) {
	d.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
