package testnet

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/crossroads-mesh/crossroads/certs"
	"github.com/crossroads-mesh/crossroads/certs/authority"
	"github.com/crossroads-mesh/crossroads/node"
	"github.com/crossroads-mesh/crossroads/node/journal/disk"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// TestJournalUnwritable takes the disk away from the journal of the consultant,
// the supplier and every possible clearing peer, one role at a time: no answer
// comes, and no data.
func TestJournalUnwritable(t *testing.T) {
	t.Parallel()
	n := start(t, Options{})
	e := answered(n, "")[0]
	supplier := e.Answer.Suppliers[0].Supplier
	var members []names.InstitutionID
	for _, s := range n.layout.sites {
		if s.member {
			members = append(members, s.ID)
		}
	}
	for role, at := range map[string][]names.InstitutionID{
		"consultant": {e.Requester}, "supplier": {supplier}, "clearing peers": members,
	} {
		t.Run(role, func(t *testing.T) {
			ctx := within(t)
			disks := make([]*brittle, len(at))
			for i, id := range at {
				disks[i] = &brittle{FS: openDisk(t, filepath.Join(n.site(id).dir, "data", "journal", "log"))}
				restart(t, n, id, func(d *node.Deps) { d.JournalFS = disks[i] })
			}
			if err := n.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			if got, err := n.expect(ctx, e.Consultation, e.Answer); err != nil {
				t.Fatalf("before the fault: %+v, %v", got, err)
			}
			for _, d := range disks {
				d.full.Store(true)
			}
			got, err := n.Consult(ctx, e.Consultation, "")
			if err == nil && (got.Status == "DATA_FOUND" || got.Status == "NO_DATA_FOUND") {
				t.Fatalf("answered %+v without a journal", got)
			}
			if err == nil && hasRecords(got.Suppliers) {
				t.Fatalf("data came without a journal: %+v", got)
			}
			for _, id := range at {
				if ready, err := n.Client(id).Ready(ctx); err != nil || ready.Ready {
					t.Errorf("%s says that it is ready (%v)", id, err)
				}
				restart(t, n, id, nil)
			}
			if err := n.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
			if got, err := n.expect(ctx, e.Consultation, e.Answer); err != nil {
				t.Errorf("after the fault: %+v, %v", got, err)
			}
		})
	}
}

// brittle is a real disk until it is full.
type brittle struct {
	disk.FS
	full atomic.Bool
}

var errFull = errors.New("the disk is full")

func openDisk(t *testing.T, dir string) disk.FS {
	t.Helper()
	d, err := disk.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (b *brittle) Open(name string, create bool) (disk.File, error) {
	f, err := b.FS.Open(name, create)
	return brittleFile{f, b}, err
}

type brittleFile struct {
	disk.File
	on *brittle
}

func (f brittleFile) Sync() error {
	if f.on.full.Load() {
		return errFull
	}
	return f.File.Sync()
}

func hasRecords[S ~[]E, E any](suppliers S) bool {
	return regexp.MustCompile(`"records":\s*\[\s*\{`).MatchString(canonical(suppliers))
}

func restart(t *testing.T, n *Network, id names.InstitutionID, adjust func(*node.Deps)) {
	t.Helper()
	if err := n.StopNode(id); err != nil && !strings.Contains(err.Error(), "disk is full") {
		t.Fatalf("stop %s: %v", id, err)
	}
	if err := n.StartNode(id, adjust); err != nil {
		t.Fatalf("start %s: %v", id, err)
	}
}

// TestSuspendedIsCutOff suspends an institution whose connections are live. When
// the command has returned, it gets nothing more, from anybody.
func TestSuspendedIsCutOff(t *testing.T) {
	t.Parallel()
	notShort(t)
	n := start(t, Options{})
	ctx := within(t)
	e := answered(n, "")[0]
	if got, err := n.expect(ctx, e.Consultation, e.Answer); err != nil {
		t.Fatalf("before: %+v, %v", got, err)
	}
	operators, err := n.Operators(ctx)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	suspend := func(yes bool) {
		cmd := &registrypb.Command{Body: &registrypb.Command_SetSuspended{
			SetSuspended: &registrypb.Suspension{Institution: string(e.Requester), Suspended: yes},
		}}
		if err := do(ctx, operators, cmd); err != nil {
			t.Fatal(err)
		}
	}
	suspend(true)
	t.Logf("the suspension returned after %d ms", time.Since(begun).Milliseconds())
	for range 5 {
		got, err := n.Consult(ctx, e.Consultation, "")
		if err == nil && got.Status != "NO_RESULT" {
			t.Fatalf("a suspended institution got %+v", got)
		}
	}
	suspend(false)
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := n.expect(ctx, e.Consultation, e.Answer); err != nil {
		t.Errorf("after it was lifted: %+v, %v", got, err)
	}
}

// TestRevokedIsRefused revokes an authorization under load: from the moment the
// command returns, no answer comes under it.
func TestRevokedIsRefused(t *testing.T) {
	t.Parallel()
	notShort(t)
	n := start(t, Options{})
	ctx := within(t)
	e := answered(n, "")[0]
	committee, err := n.Committee(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stop, underWay := make(chan struct{}), make(chan struct{})
	var began sync.Once
	var asking errgroup.Group
	var mu sync.Mutex
	var lastData time.Time // when the last question was put that brought data
	for range 4 {
		asking.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				asked := time.Now()
				got, err := n.consultOnce(ctx, e.Consultation)
				if err != nil {
					return err
				}
				if got.Status == "DATA_FOUND" {
					began.Do(func() { close(underWay) })
					mu.Lock()
					lastData = maxTime(lastData, asked)
					mu.Unlock()
				} else if got.Status != "NO_RESULT" && !unavailable(got) {
					return fmt.Errorf("unexpected %+v", got)
				}
			}
		})
	}
	select {
	case <-underWay:
	case <-ctx.Done():
		t.Fatal("no question was answered before the revocation")
	}
	revoked := time.Now()
	err = do(ctx, committee, &registrypb.Command{Body: &registrypb.Command_RevokeAuthorization{
		RevokeAuthorization: &registrypb.AuthorizationID{Id: string(e.Answer.Authorization)},
	}})
	returned := time.Now()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if got, err := n.expect(ctx, e.Consultation, data.Answer{Status: nodepb.Status_NO_RESULT, Reason: registrypb.Reason_NOT_ALLOWED}); err != nil {
			t.Errorf("after the revocation: %+v, %v", got, err)
		}
	}
	close(stop)
	if err := asking.Wait(); err != nil {
		t.Fatal(err)
	}
	if lastData.After(returned) {
		t.Fatalf("data came for a question put %s after the revocation had returned", lastData.Sub(returned))
	}
	t.Logf("the revocation returned after %d ms; the last question that brought data was put %d ms before that",
		returned.Sub(revoked).Milliseconds(), returned.Sub(lastData).Milliseconds())
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// refusalTellsNothing compares what somebody without a file on a person learns
// about a person the network knows, and about one that nobody knows.
func refusalTellsNothing(t *testing.T, n *Network) {
	ctx := within(t)
	e := answered(n, "")[0]
	var known, unknown string
	holds := make(map[string]bool)
	for p := range n.World().Persons() {
		mine := false
		for _, r := range n.World().References(p) {
			mine = mine || r.Institution == e.Requester
			holds[r.Subject.Number()] = true
		}
		if !mine && known == "" {
			known = p.SSIN.Number()
		}
	}
	for seq := 1; unknown == ""; seq += 2 {
		if number := ssin(70, 2, 3, seq); !holds[number] {
			unknown = number
		}
	}
	ask := func(number string) string {
		c := e.Consultation
		c.Number = number
		got, err := n.Consult(ctx, c, "same")
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != "NO_RESULT" || got.Reason != "NOT_INTEGRATED" {
			t.Errorf("got %s %s", got.Status, got.Reason)
		}
		got.Ticket, got.ClientTicket = "", ""
		return canonical(got)
	}
	c := e.Consultation
	c.Number = known
	first, err := n.Consult(ctx, c, "known")
	if err != nil {
		t.Fatal(err)
	}
	first.Ticket, first.ClientTicket = "", ""
	if other := ask(unknown); canonical(first) != other {
		t.Errorf("the refusals differ:\n%s\n%s", canonical(first), other)
	}
}

func ssin(yy, mm, dd, seq int) string {
	head := ((yy*100+mm)*100+dd)*1000 + seq
	return fmt.Sprintf("%09d%02d", head, 97-head%97)
}

// randomConsultations asks whatever the dice say, allowed or not, and compares
// every answer with the lives.
func randomConsultations(t *testing.T, n *Network) {
	ctx := within(t)
	today := names.DateOf(time.Now().UTC())
	dice := rand.New(rand.NewPCG(11, 7))
	questions := make([]data.Consultation, 400)
	outcomes := make(map[string]int)
	var mu sync.Mutex
	for i := range questions {
		questions[i] = randomQuestion(n.World(), dice)
	}
	var g errgroup.Group
	g.SetLimit(16)
	for _, q := range questions {
		g.Go(func() error {
			want := n.World().Expected(q, today)
			got, err := n.expect(ctx, q, want)
			if err != nil {
				t.Errorf("%s asks %s for %s: %v", q.Requester, q.Dataset, q.Purpose, err)
				return nil
			}
			mu.Lock()
			outcomes[got.Status+" "+got.Reason]++
			mu.Unlock()
			return nil
		})
	}
	_ = g.Wait()
	t.Logf("outcomes: %v", outcomes)
	if outcomes["DATA_FOUND "] < 20 {
		t.Errorf("only %d of the random questions brought data", outcomes["DATA_FOUND "])
	}
}

func randomQuestion(w *data.World, dice *rand.Rand) data.Consultation {
	authorizations, insts := w.Authorizations(), w.Institutions()
	a := authorizations[dice.IntN(len(authorizations))]
	p := w.Person(dice.IntN(w.Config().Persons))
	q := data.Consultation{
		Requester: insts[dice.IntN(len(insts))].ID, Purpose: names.Purpose(a.Purpose), Dataset: names.DatasetID(a.Dataset),
		Scheme: p.SSIN.Scheme(), Number: p.SSIN.Number(), AuthLevel: uint32(dice.IntN(5)),
		Period: names.Period{From: data.Today - names.Date(dice.IntN(4000)), Until: data.Today},
	}
	if dice.IntN(10) > 0 { // mostly somebody of the type that is authorized
		for _, i := range insts {
			if string(i.Type) == a.RequesterType {
				q.Requester = i.ID
			}
		}
	}
	if dice.IntN(4) > 0 { // mostly about somebody on whom it has a file
		for range 500 {
			p := w.Person(dice.IntN(w.Config().Persons))
			for _, r := range w.References(p) {
				if r.Institution == q.Requester {
					q.Number = p.SSIN.Number()
				}
			}
			if q.Number == p.SSIN.Number() {
				break
			}
		}
	}
	return q
}

// noNumberInLogs lets a network whose logs are at their loudest lose a node, and
// looks in the logs for the numbers that were asked about.
func noNumberInLogs(t *testing.T, n *Network, log *lockedBuffer) {
	ctx := within(t)
	var numbers []string
	gone := n.layout.sites[3].ID
	ask := func(without names.InstitutionID) {
		var all sync.WaitGroup
		for _, e := range n.Examples() {
			if e.Requester != without {
				all.Go(func() { _, _ = n.Consult(ctx, e.Consultation, "") })
			}
		}
		all.Wait()
	}
	for _, e := range n.Examples() {
		numbers = append(numbers, e.Number)
	}
	ask("")
	if err := n.StopNode(gone); err != nil {
		t.Fatal(err)
	}
	ask(gone)
	text := log.String()
	if len(text) < 1000 {
		t.Fatalf("only %d bytes were logged: the test shows nothing", len(text))
	}
	for _, number := range numbers {
		if strings.Contains(text, number) {
			at := strings.Index(text, number)
			t.Errorf("a subject's number was logged: ...%s", text[max(0, at-200):at])
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rotationUnderLoad gives every node a new identity, again and again, and moves
// to another root, while questions are asked: none may fail.
func rotationUnderLoad(t *testing.T, n *Network) {
	ctx := within(t)
	examples := answered(n, "")
	stop := make(chan struct{})
	var asking errgroup.Group
	asked := 0
	asking.Go(func() error {
		for i := 0; ; i++ {
			select {
			case <-stop:
				asked = i
				return nil
			default:
			}
			e := examples[i%len(examples)]
			got, err := n.consultOnce(ctx, e.Consultation)
			if err != nil {
				return err
			}
			if d := Differs(got, e.Answer); d != "" {
				return errors.New(d)
			}
		}
	})
	renew := func() {
		t.Helper()
		for _, s := range n.layout.sites {
			id, err := certs.NodeSPIFFE(MeshName, s.id())
			if err != nil {
				t.Fatal(err)
			}
			if err := authority.NewRenewer(n.layout.authority, id, s.svidDir(), 0, slog.New(slog.DiscardHandler)).Renew(); err != nil {
				t.Fatal(err)
			}
		}
		waitUntil(ctx, 300*time.Millisecond) // for the watchers of the folders; questions go on
	}
	renew()
	if _, err := n.layout.authority.AddRoot(); err != nil {
		t.Fatal(err)
	}
	renew() // the new root is known everywhere before it signs
	if err := n.layout.authority.UseRoot(); err != nil {
		t.Fatal(err)
	}
	renew()
	close(stop)
	if err := asking.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d questions were answered during three rotations and a change of root", asked)
	if asked < 10 {
		t.Errorf("only %d questions were asked", asked)
	}
}

// waitUntil lets time pass that is itself part of what is tested.
func waitUntil(ctx interface{ Done() <-chan struct{} }, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// garbageOnTheMeshPort throws bytes at a node's UDP port; it goes on working.
func garbageOnTheMeshPort(t *testing.T, n *Network) {
	ctx := within(t)
	dice := rand.New(rand.NewPCG(3, 4))
	for _, s := range n.layout.sites {
		c, err := net.Dial("udp", s.ports.Mesh)
		if err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			b := make([]byte, dice.IntN(1400)+1)
			for i := range b {
				b[i] = byte(dice.Uint32())
			}
			_, _ = c.Write(b)
		}
		_ = c.Close()
	}
	e := answered(n, "")[0]
	if got, err := n.expect(ctx, e.Consultation, e.Answer); err != nil {
		t.Errorf("after the garbage: %+v, %v", got, err)
	}
}

// TestKeptNetworkComesBack brings a network down and up again in its folder: what
// was answered is answered the same, and the old tickets can be traced.
func TestKeptNetworkComesBack(t *testing.T) {
	t.Parallel()
	notShort(t)
	dir := t.TempDir() + "/net"
	n := start(t, Options{Dir: dir})
	ctx := within(t)
	e := answered(n, "")[0]
	first, err := n.Consult(ctx, e.Consultation, "kept")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(ctx, Options{Dir: dir, Persons: 3000}); !errors.Is(err, ErrOptions) {
		t.Fatalf("other persons in the same folder: %v", err)
	}
	n = start(t, Options{Dir: dir})
	again, err := n.Consult(ctx, e.Consultation, "kept")
	if err != nil {
		t.Fatal(err)
	}
	if canonical(first) != canonical(again) {
		t.Errorf("another answer under the same client ticket:\n%s\n%s", canonical(first), canonical(again))
	}
	checkTrace(t, n, e.Requester, first.Ticket)
}
