package mesh

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/crossroads-mesh/crossroads/mesh/meshpb"
)

// The example of the package documentation is the wire format.
func TestWireFormat(t *testing.T) {
	b, err := appendFrame(nil, &meshpb.CallHeader{Method: "m", TimeoutMs: 1000}, maxHeader)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = appendFrame(b, &emptypb.Empty{}, 0); err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(b), "00000006"+"0a016d10e807"+"00000000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 'x', 0, 0, 0, 0}, 10)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 1<<20)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		limit = max(limit%(1<<20), 0)
		r := bytes.NewReader(b)
		slow := iotest.OneByteReader(bytes.NewReader(b))
		for {
			one, err := readFrame(r, limit)
			two, err2 := readFrame(slow, limit)
			if (err == nil) != (err2 == nil) || err == nil && !bytes.Equal(one, two) {
				t.Fatalf("depends on how it arrives: %v, %v", err, err2)
			}
			if err != nil {
				var large *tooLargeError
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &large) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if len(one) > limit {
				t.Fatalf("%d bytes above the limit of %d", len(one), limit)
			}
		}
	})
}

// Whatever a peer sends as a status, it is an error, short, and clean.
func FuzzStatus(f *testing.F) {
	for _, st := range []*meshpb.Status{{}, {Code: 5, Message: "a\x1b[2Jb", RetryAfterMs: -1, Reason: "R"}, {Code: 99, RetryAfterMs: 1 << 62}} {
		b, err := proto.Marshal(&meshpb.ReplyHeader{Status: st})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		hdr := new(meshpb.ReplyHeader)
		if proto.Unmarshal(b, hdr) != nil {
			return
		}
		e := errorOf(spiffeid.ID{}, hdr.Status)
		if e.Code == OK || e.RetryAfter < 0 || e.RetryAfter > maxWait || len(e.Message) > maxText || len(e.Reason) > maxReason {
			t.Errorf("got %#v", e)
		}
		if strings.ContainsAny(e.Error(), "\x00\x07\x1b\n\r") {
			t.Errorf("got %q", e.Error())
		}
	})
}
