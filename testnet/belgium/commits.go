package belgium

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/certs/genesis"
	"github.com/crossroads-mesh/crossroads/registry"
	"github.com/crossroads-mesh/crossroads/registry/bare"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/record"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

const (
	commitsInFlight = 64
	commitsFor      = 8 * time.Second
)

func (r *run) commits(ctx context.Context) (err error) {
	if err := r.untilRead(ctx, append(r.members[:len(r.members):len(r.members)], r.newcomer)); err != nil { // they have the same processors
		return err
	}
	if r.report.Commits, err = commits(ctx, r.Dir, r.country, commitsFor); err != nil {
		return err
	}
	r.say("commits at %d in flight: %s/s, bare consensus %s/s", commitsInFlight, count(int(r.report.Commits.PerSecond)), count(int(r.report.Commits.BareRaftPerSecond)))
	return nil
}

// MeasureCommits measures small commands, of one reference each, signed by as many
// institutions as are in flight, in three registries in this process over the mesh on
// loopback; and entries of the same size in bare consensus with the same log store and
// transport. They take turns, twice each for so long, so that what else the machine does
// falls on both.
func MeasureCommits(ctx context.Context, during time.Duration) (Commits, error) {
	return commits(ctx, "", National(100_000), during)
}

// comparison of small commands and bare consensus.
type comparison struct {
	country *Country
	during  time.Duration
}

func commits(ctx context.Context, dir string, country *Country, during time.Duration) (_ Commits, err error) {
	if dir, err = os.MkdirTemp(dir, "commits-"); err != nil {
		return Commits{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &comparison{country, during}
	var ours, bares []float64
	var used [3]float64 // at the beginning of a turn, between, and at its end
	var c Commits
	for turn := range 2 {
		used[0] = usedBy([]int{os.Getpid()})
		b, err := r.bareCommits(ctx, filepath.Join(dir, fmt.Sprintf("bare%d", turn)))
		if err != nil {
			return Commits{}, fmt.Errorf("bare consensus: %w", err)
		}
		used[1] = usedBy([]int{os.Getpid()})
		o, err := r.ourCommits(ctx, filepath.Join(dir, fmt.Sprintf("ours%d", turn)))
		if err != nil {
			return Commits{}, fmt.Errorf("commits: %w", err)
		}
		used[2] = usedBy([]int{os.Getpid()})
		bares, ours = append(bares, b), append(ours, o)
		c.BareRaftCPU += (used[1] - used[0]) * 1e6 / (b * during.Seconds()) / 2
		c.CPU += (used[2] - used[1]) * 1e6 / (o * during.Seconds()) / 2
	}
	c.InFlight, c.PerSecond, c.BareRaftPerSecond = commitsInFlight, (ours[0]+ours[1])/2, (bares[0]+bares[1])/2
	return c, nil
}

const smallMesh names.MeshID = "commits.belgium.test"

func smallMember(n int) names.NodeID {
	return names.NodeID{Institution: names.InstitutionID(fmt.Sprintf("m%d", n+1)), Node: "a"}
}

func (r *comparison) bareCommits(ctx context.Context, dir string) (perSecond float64, err error) {
	mesh, err := newLoopback(dir, "bare-raft/1")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, mesh.close()) }()
	var all []bare.Member
	for n := range members {
		id := smallMember(n)
		all = append(all, bare.Member{ID: id, Stream: registry.Consensus(mesh.layer(id)), Dir: filepath.Join(dir, string(id.Institution)), StorageKey: smallKey(n)})
	}
	raw, err := (&committer{Institution: r.country.institutions[0], country: r.country}).next()
	if err != nil {
		return 0, err
	}
	return bare.Commits(ctx, all, len(raw), commitsInFlight, r.during)
}

func smallKey(n int) []byte { k := sha256.Sum256([]byte{byte(n)}); return k[:] }

func (r *comparison) ourCommits(ctx context.Context, dir string) (perSecond float64, err error) {
	mesh, err := newLoopback(dir, "crossroads-raft/1")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, mesh.close()) }()
	group := genesis.Group{Threshold: 1, Keys: []ed25519.PublicKey{Key("@operators").Public().(ed25519.PublicKey)}}
	file := &genesis.File{
		Mesh: smallMesh, Operators: group, Committee: group, Recovery: group, RecoveryDelay: time.Hour,
		Bounds: genesis.Bounds{Lease: 4 * time.Second, PresentLife: time.Second, ReleaseLife: 2 * time.Second, Skew: time.Second},
	}
	for n := range members {
		id := smallMember(n)
		file.Members = append(file.Members, genesis.Member{
			Institution: id.Institution, Node: id.Node, Name: string(id.Institution), Type: "office", Address: "127.0.0.1:1",
			PublicKey: Key(id.Institution).Public().(ed25519.PublicKey),
		})
	}
	ctx, stop := context.WithCancel(ctx)
	g, running := errgroup.WithContext(ctx)
	defer func() { stop(); err = errors.Join(err, g.Wait()) }()
	all := make([]*registry.Registry, members)
	for n := range members {
		id := smallMember(n)
		all[n], err = registry.Open(registry.Config{
			Self: id, Genesis: file, Dir: filepath.Join(dir, string(id.Institution)), StorageKey: smallKey(n), Signer: Key(id.Institution),
			Raft: registry.Consensus(mesh.layer(id)), Peers: eachOther(all),
		})
		if err != nil {
			for _, one := range all[:n] {
				err = errors.Join(err, one.Close())
			}
			return 0, err
		}
	}
	for _, one := range all {
		g.Go(func() error { return one.Run(running) })
	}
	leader, err := waitLeads(ctx, all)
	if err != nil {
		return 0, err
	}
	return r.submitSmall(ctx, leader)
}

func waitLeads(ctx context.Context, all []*registry.Registry) (*registry.Registry, error) {
	for {
		for n, one := range all {
			if id, ok := one.Leader(); ok && id == smallMember(n) {
				return one, nil
			}
		}
		if err := pause(ctx, poll); err != nil {
			return nil, err
		}
	}
}

func (r *comparison) submitSmall(ctx context.Context, leader *registry.Registry) (perSecond float64, err error) {
	operators := registry.NewAuthor(leader, smallMesh, record.Operators, Key("@operators"))
	var senders []*committer
	for n := range commitsInFlight {
		c := &committer{Institution: r.country.institutions[0], country: r.country}
		c.ID = names.InstitutionID(fmt.Sprintf("sender-%d", n))
		resp, err := operators.Do(ctx, &registrypb.Command{Body: &registrypb.Command_SetInstitution{SetInstitution: c.admission()}})
		if err != nil {
			return 0, err
		}
		if !resp.Accepted {
			return 0, errors.New(resp.Refusal)
		}
		senders = append(senders, c)
	}
	limited, cancel := context.WithTimeout(ctx, r.during)
	defer cancel()
	var done atomic.Int64
	g, _ := errgroup.WithContext(ctx)
	began := time.Now()
	for _, c := range senders {
		g.Go(func() error {
			for ; limited.Err() == nil; done.Add(1) {
				raw, err := c.next()
				if err != nil {
					return err
				}
				resp, err := leader.Submit(ctx, raw)
				if err != nil {
					return err
				}
				if !resp.Accepted {
					return errors.New(resp.Refusal)
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(done.Load()) / time.Since(began).Seconds(), err
}

// committer makes one institution's commands of one reference each.
type committer struct {
	Institution
	country  *Country
	sent     int
	previous []byte
	key      ed25519.PrivateKey // as a node holds its own ready
}

func (c *committer) next() ([]byte, error) {
	ref := protoOf(c.country.reference(&c.Institution, c.sent%c.count))
	nonce := sha256.Sum256([]byte(fmt.Sprint(c.ID, c.sent)))
	c.sent++
	payload, err := proto.Marshal(&registrypb.Command{
		Mesh: string(smallMesh), Author: string(c.ID), Chain: registrypb.Chain_DIRECTORY, Sequence: uint64(c.sent), Previous: c.previous,
		TimeUnixMs: 1, Nonce: nonce[:],
		Body: &registrypb.Command_DeclareReferences{DeclareReferences: &registrypb.References{References: []*registrypb.Reference{ref}}},
	})
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(payload)
	c.previous = hash[:]
	if c.key == nil {
		c.key = Key(c.ID)
	}
	return envelope.Sign(envelope.Command, payload, c.key)
}

// eachOther are the members, which pass commands on to the one that leads, if that changes on
// a busy machine; the members that are measured need no watchers.
type eachOther []*registry.Registry

var errNobody = errors.New("nobody is reached for that in this measurement")

func (e eachOther) Call(ctx context.Context, to names.NodeID, method string, req, resp proto.Message) error {
	for n, one := range e {
		submit, ok := req.(*registrypb.SubmitRequest)
		if !ok || method != registry.MethodSubmit || smallMember(n) != to {
			continue
		}
		got, err := one.HandleSubmit(ctx, smallMember((n+1)%members), submit)
		if err == nil {
			proto.Merge(resp, got)
		}
		return err
	}
	return errNobody
}

func (eachOther) Watch(context.Context, names.NodeID, *registrypb.WatchRequest) (registry.WatchStream, error) {
	return nil, errNobody
}
