package batch

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/clearing"
	"github.com/crossroads-mesh/crossroads/registry/clearing/chunk"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

const (
	maxChunkBytes = chunk.MaxBytes
	// requestLife is how long a request is good for, with room for what is still to be done.
	requestLife = clearing.RequestLife - 5*time.Minute
)

// work is one chunk being worked on. Its goroutine owns it.
type work struct {
	*Consultant
	*job
	in    *nodepb.InputBlock
	files *files
	kept  *nodepb.KeptChunk
	out   []*nodepb.ResultLine // of each line, in the making
	began map[*nodepb.KeptPart]bool
	acks  []acknowledgement
}

func chunkKey(l *lot, i int) outbox.Key {
	return outbox.Key{Table: chunkRows, ID: fmt.Sprintf("%s/%d", l.Ticket, i)}
}

// work brings a chunk to its end: every line of it has its result on disk.
func (c *Consultant) work(ctx context.Context, j *job) error {
	f, err := c.open(j.l)
	if err != nil {
		return err
	}
	if !f.begin() {
		return ErrNotFound // acknowledged meanwhile
	}
	defer f.done()
	if err := c.cfg.Gate.Pass(ctx); err != nil {
		return err
	}
	x := &work{Consultant: c, job: j, files: f, kept: new(nodepb.KeptChunk), began: map[*nodepb.KeptPart]bool{}}
	if x.in, err = f.block(j.chunk); err != nil {
		return err
	}
	resumed, err := load(c.cfg.Outbox, chunkKey(j.l, j.chunk), x.kept)
	if err != nil {
		return err
	}
	lines, numbers := x.begin()
	if !resumed && len(lines) > 0 {
		if err := x.add(lines, numbers, nil); err != nil {
			return err
		}
	}
	for _, p := range x.kept.Parts {
		x.began[p] = resumed
	}
	for i := 0; i < len(x.kept.Parts); i++ { // parts may add parts behind themselves
		if err := x.part(ctx, i); err != nil {
			return err
		}
	}
	tally := x.conclude()
	block := marshalled(&nodepb.ResultBlock{Lines: x.out})
	if err := c.cfg.Spool.Put(resultName(j.l.kept.Files, j.chunk), block); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := c.finish(j.l, j.chunk, tally, outbox.Change{Key: chunkKey(j.l, j.chunk), Delete: true}); err != nil {
		return err
	}
	for _, a := range x.acks {
		c.acknowledge(a.to, a.msg.RequestHash)
	}
	return nil
}

// begin settles the lines that need no asking, and gives the others.
func (x *work) begin() (lines []uint32, numbers []string) {
	first := uint32(x.chunk) * x.l.kept.ChunkLines
	for i, in := range x.in.Lines {
		r := new(nodepb.ResultLine)
		x.out = append(x.out, r)
		if in.Number == "" {
			r.Status, r.Reason = nodepb.Status_NO_RESULT, registrypb.Reason_MALFORMED_NUMBER
			continue
		}
		if r.SameAs = x.files.twinOf(first + uint32(i)); r.SameAs > 0 {
			r.Status, r.Reason = nodepb.Status_NO_RESULT, registrypb.Reason_DUPLICATE_LINE
			continue
		}
		lines, numbers = append(lines, uint32(i)), append(numbers, in.Number)
	}
	return lines, numbers
}

// add signs a request about some lines and puts it among the parts; it is kept before it
// leaves.
func (x *work) add(lines []uint32, numbers []string, cleared []string) error {
	for len(lines) > 0 { // numbers may be long: as many as a chunk may hold
		n := len(lines)
		for packed.Size(packed.Of(subject.Scheme(x.l.Scheme), numbers[:n])) > maxChunkBytes {
			n /= 2
		}
		request, err := x.sign(numbers[:n])
		if err != nil {
			return err
		}
		x.kept.Parts = append(x.kept.Parts, &nodepb.KeptPart{Request: request, Lines: lines[:n], Cleared: cleared})
		lines, numbers = lines[n:], numbers[n:]
	}
	return nil
}

func (x *work) sign(numbers []string) ([]byte, error) {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	payload, err := proto.Marshal(&registrypb.ChunkRequest{
		Mesh: string(x.cfg.Mesh), Nonce: nonce, Order: x.l.Envelope, Number: uint32(x.chunk),
		Subjects: packed.Of(subject.Scheme(x.l.Scheme), numbers), TimeUnixMs: x.cfg.Now().UnixMilli(),
	})
	if err != nil {
		return nil, err
	}
	signed, err := envelope.Sign(envelope.LotChunk, payload, x.cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("sign a chunk's request: %w", err)
	}
	return signed, nil
}

// save writes the chunk's row.
func (x *work) save() error {
	err := x.cfg.Outbox.Write(outbox.Change{Key: chunkKey(x.l, x.chunk), Value: marshalled(x.kept)})
	if err != nil {
		return fmt.Errorf("%w: outbox: %w", ErrUnavailable, err)
	}
	return nil
}

// askedAfter reports whether a part after the i-th asks about a line.
func (x *work) askedAfter(i int, line uint32) bool {
	return slices.ContainsFunc(x.kept.Parts[i+1:], func(p *nodepb.KeptPart) bool { return slices.Contains(p.Lines, line) })
}

// follow asks, in a further part, about the subjects of lines whose number was replaced,
// under the number that replaced it: each subject once in the whole lot, wherever else in
// the file it stands. It says which lines are another one's.
func (x *work) follow(i int, replaced map[uint32]string) error {
	for line := range replaced {
		if x.askedAfter(i, line) { // before a crash
			delete(replaced, line)
		}
	}
	if len(replaced) == 0 {
		return nil
	}
	x.l.following.Lock()
	defer x.l.following.Unlock()
	want := map[string]bool{}
	for line, n := range replaced {
		x.out[line].Successor = n
		want[n] = true
	}
	found, err := x.files.find(want, int(x.l.kept.Chunks), int(x.l.kept.ChunkLines))
	if err != nil {
		return err
	}
	first := uint32(x.chunk) * x.l.kept.ChunkLines
	var lines []uint32
	var numbers []string
	var claims []outbox.Change
	claimed := map[string]uint32{}
	for line := range uint32(len(x.out)) {
		n, ok := replaced[line]
		if !ok {
			continue
		}
		other, known := found[n]
		if !known {
			other, known = claimed[n]
		}
		if !known {
			if other, known, err = x.claimedBy(n); err != nil {
				return err
			}
		}
		if known && other != first+line {
			x.out[line].Status, x.out[line].Reason, x.out[line].SameAs = nodepb.Status_NO_RESULT, registrypb.Reason_DUPLICATE_LINE, uint64(other)+1
			continue
		}
		claimed[n] = first + line
		claims = append(claims, outbox.Change{Key: followKey(x.l, n), Value: fmt.Appendf(nil, "%d", first+line), Until: x.cfg.Now().Add(x.cfg.Keep)})
		lines, numbers = append(lines, line), append(numbers, n)
	}
	if len(lines) == 0 {
		return nil
	}
	if err := x.cfg.Outbox.Write(claims...); err != nil {
		return fmt.Errorf("%w: outbox: %w", ErrUnavailable, err)
	}
	return x.add(lines, numbers, nil)
}

func followKey(l *lot, number string) outbox.Key {
	return outbox.Key{Table: followRows, ID: string(l.Ticket) + "/" + number}
}

// claimedBy gives the line under which a number is asked instead of one it replaced.
func (x *work) claimedBy(number string) (line uint32, ok bool, err error) {
	raw, err := x.cfg.Outbox.Get(followKey(x.l, number))
	if errors.Is(err, outbox.ErrNotFound) {
		return 0, false, nil
	}
	if err == nil {
		_, err = fmt.Sscanf(string(raw), "%d", &line)
	}
	if err != nil {
		return 0, false, fmt.Errorf("%w: outbox: %w", ErrUnavailable, err)
	}
	return line, true, nil
}

// conclude sums every line up in the words of the network, and counts.
func (x *work) conclude() map[string]uint64 {
	tally := map[string]uint64{}
	for _, r := range x.out {
		if r.SameAs == 0 && len(r.Parts) > 0 {
			sumUp(r)
		}
		if r.Status == nodepb.Status_STATUS_UNSPECIFIED { // nobody cleared it, and nobody refused
			r.Status = nodepb.Status_NO_RESULT
			if r.Reason == 0 {
				r.Reason = registrypb.Reason_CLEARING_UNAVAILABLE
			}
		}
		key := r.Status.String()
		if r.Status == nodepb.Status_NO_RESULT {
			key = r.Reason.String()
		}
		tally[key]++
	}
	return tally
}

// sumUp is what exchange does with the replies of a consultation. A reason that stands
// already is why some suppliers could not be cleared.
func sumUp(r *nodepb.ResultLine) {
	slices.SortStableFunc(r.Parts, func(a, b *nodepb.ResultPart) int { return cmp.Compare(a.Supplier, b.Supplier) })
	good, bad, found := 0, 0, false
	incomplete := r.Reason != 0
	for _, p := range r.Parts {
		if p.Status == nodepb.Status_NO_RESULT {
			bad++
			if r.Reason == 0 {
				r.Reason = p.Reason
			}
			continue
		}
		good++
		found = found || p.Status == nodepb.Status_DATA_FOUND
	}
	switch {
	case good == 0:
		r.Status = nodepb.Status_NO_RESULT
	case bad > 0 || incomplete:
		r.Status = nodepb.Status_INCOMPLETE_DATA
	case found:
		r.Status = nodepb.Status_DATA_FOUND
	default:
		r.Status = nodepb.Status_NO_DATA_FOUND
	}
}

// stale reports whether a request is older than clearing peers take it, or soon will be.
func (x *work) stale(r *registrypb.ChunkRequest) bool {
	return x.cfg.Now().Sub(time.UnixMilli(r.TimeUnixMs)) > requestLife
}
