// Package veil makes the replies of a sector look alike from outside: their sizes fall
// into few classes, and they leave at few instants.
//
// # Size classes
//
// Powers of two from Floor on. A message is padded itself, with zeros in a field that
// its readers drop, so that what travels below it (frames, records, datagrams) depends
// on its class alone. A message that is larger than the largest class is not sent.
//
// # Time classes
//
// What arrived at t leaves at t + Prompt if it is ready by then, else at t + Late, and
// else at the next whole multiple of Late. It is written down (signed, journaled: with
// times that others read) a lead before, and not when it was ready. Prompt is meant to be longer than the
// slowest of the institutions behind takes on an ordinary day: then every answer of
// every one of them leaves at t + Prompt. What fails leaves at t + Late whatever the
// cause, and however soon that was known.
//
// What remains: two instants tell an answer that was late from one that was not. With
// Prompt and Late the same there is one instant, for answers and failures alike, and
// nothing remains but whether it failed; everything then takes that long. See DESIGN.md of
// package sector.
package veil

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The classes of size, in bytes of the encoded message.
const (
	Floor   = 4 << 10
	Ceiling = 2 << 20
)

// ErrTooLarge means that a message fits into no class.
var ErrTooLarge = errors.New("larger than the largest size class")

// Class gives the size that a message of this many bytes is padded to.
func Class(size int) (int, error) {
	for c := Floor; c <= Ceiling; c *= 2 {
		if size == c || size <= c-2 { // a field takes two bytes at least
			return c, nil
		}
	}
	return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, Ceiling)
}

// paddingField is the number of the field, the same in every message that is padded:
// repeated bytes padding = 15. Its tag takes one byte.
const paddingField protowire.Number = 15

// Padded is a message with a padding field.
type Padded interface {
	proto.Message
	GetPadding() [][]byte
}

// Padding gives what to put into m's padding field, which must be empty, so that m is as
// large as its class.
func Padding(m Padded) ([][]byte, error) {
	size := proto.Size(m)
	class, err := Class(size)
	if err != nil {
		return nil, err
	}
	return fill(class - size), nil
}

// fill gives elements that take exactly n bytes, n = 0 or n >= 2.
func fill(n int) [][]byte {
	if n == 0 {
		return nil
	}
	for first := range 4 { // as the length of a length grows, one size in each step is passed over
		rest := n
		var all [][]byte
		if first > 0 {
			all, rest = [][]byte{make([]byte, first-1)}, n-first-1
		}
		if p, ok := single(rest); ok {
			return append(all, p)
		}
	}
	panic("veil: no padding of this size") // a test tries every size
}

// single gives one element that takes exactly n bytes, if there is one.
func single(n int) ([]byte, bool) {
	tag := protowire.SizeTag(paddingField)
	for k := 1; k <= 4; k++ { // bytes of the length
		if l := n - tag - k; l >= 0 && protowire.SizeVarint(uint64(l)) == k {
			return make([]byte, l), true
		}
	}
	return nil, false
}

// Times are the time classes.
type Times struct {
	Prompt, Late time.Duration // 0 < Prompt; Late is the same, or at least twice that
}

// Lead is how long before its bound something is written down, and so what writing may
// take.
func (t Times) Lead() time.Duration { return t.Prompt / 5 }

// Room is how long before Late the institutions behind must have answered, so that what
// then follows, verifying and writing down, never falls into a later class.
func (t Times) Room() time.Duration { return t.Lead() + t.Late/10 }

// DefaultTimes answer within half a second, and fail within three: a consultant waits
// four.
func DefaultTimes() Times { return Times{Prompt: 500 * time.Millisecond, Late: 3 * time.Second} }

// Validate says what is wrong with them.
func (t Times) Validate() error {
	if t.Prompt <= 0 || t.Late != t.Prompt && t.Late < 2*t.Prompt {
		return fmt.Errorf("time classes %v and %v: want the first above 0, and the second the same, or at least twice that", t.Prompt, t.Late)
	}
	return nil
}

// after gives the bound of the class of something that is ready this long after its
// arrival, counted from the arrival.
func (t Times) after(ready time.Duration, failed bool) time.Duration {
	if ready <= t.Prompt && !failed {
		return t.Prompt
	}
	return max(1, (ready+t.Late-1)/t.Late) * t.Late
}

// Settle returns when something that is ready now, and arrived then, may be written
// down; Hold, after that, when it may leave. Both return early only when ctx is done.
// arrived must carry its monotonic reading.
func (t Times) Settle(ctx context.Context, arrived time.Time, failed bool) {
	ready := time.Since(arrived)
	wait(ctx, t.after(ready+t.Lead(), failed)-t.Lead()-ready)
}

// Hold is described at Settle.
func (t Times) Hold(ctx context.Context, arrived time.Time, failed bool) {
	ready := time.Since(arrived)
	wait(ctx, t.after(ready, failed)-ready)
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
