package exchange

import (
	"crypto"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
)

// resigned gives the payload of an envelope, changed and signed anew.
func (w *world) resigned(t envelope.Type, raw []byte, by crypto.Signer, m proto.Message, change func()) []byte {
	w.t.Helper()
	if err := openInto(t, raw, m); err != nil {
		w.t.Fatal(err)
	}
	if change != nil {
		change()
	}
	payload, err := proto.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := envelope.Sign(t, payload, by)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// resign changes an answer.
func (w *world) resign(raw []byte, by string, change func(*nodepb.Answer)) []byte {
	a := new(nodepb.Answer)
	return w.resigned(envelope.Answer, raw, w.signers[by], a, func() {
		if change != nil {
			change(a)
		}
	})
}

// reclear changes a clearance.
func (w *world) reclear(raw []byte, by string, change func(*registrypb.Clearance)) []byte {
	c := new(registrypb.Clearance)
	return w.resigned(envelope.Clearance, raw, w.signers[by], c, func() {
		if change != nil {
			change(c)
		}
	})
}

// rerequest changes a request.
func (w *world) rerequest(raw []byte, by string, change func(*registrypb.Request)) []byte {
	r := new(registrypb.Request)
	return w.resigned(envelope.Request, raw, w.signers[by], r, func() {
		if change != nil {
			change(r)
		}
	})
}

// reseal changes a payload and leaves the signature as it was.
func (w *world) reseal(raw []byte, change func(payload []byte) []byte) []byte {
	w.t.Helper()
	env := new(certspb.Envelope)
	if err := proto.Unmarshal(raw, env); err != nil {
		w.t.Fatal(err)
	}
	env.Payload = change(env.Payload)
	out, err := proto.Marshal(env)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}
