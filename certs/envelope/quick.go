package envelope

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/crossroads-mesh/crossroads/certs/certspb"
)

// quickly reads an envelope as everybody writes them: each field once at most, none that
// is unknown. What it gives shares raw. It gives nil for all else, right or wrong, which
// package proto judges. Every exchange opens some ten envelopes.
func quickly(raw []byte) *certspb.Envelope {
	made := new(struct { // made together
		env  certspb.Envelope
		sigs [1]*certspb.Signature
		sig  certspb.Signature
	})
	env := &made.env
	var typed, paid bool
	for len(raw) > 0 {
		num, v, rest := field(raw)
		switch {
		case num == 1 && !typed && utf8.Valid(v):
			typed, env.Type = true, typeName(v)
		case num == 2 && !paid:
			paid, env.Payload = true, v
		case num == 3 && env.Signatures == nil:
			if !quickSignature(v, &made.sig) {
				return nil
			}
			made.sigs[0] = &made.sig
			env.Signatures = made.sigs[:]
		default:
			return nil
		}
		raw = rest
	}
	return env
}

func quickSignature(raw []byte, s *certspb.Signature) bool {
	var named, signed bool
	for len(raw) > 0 {
		num, v, rest := field(raw)
		switch {
		case num == 1 && !named && utf8.Valid(v):
			named, s.KeyId = true, string(v)
		case num == 2 && !signed:
			signed, s.Signature = true, v
		case num == 3 && s.Group == nil:
			if s.Group = quickPath(v); s.Group == nil {
				return false
			}
		default:
			return false
		}
		raw = rest
	}
	return true
}

func quickPath(raw []byte) *certspb.GroupPath {
	g := new(certspb.GroupPath)
	var salted, indexed, sized bool
	for len(raw) > 0 {
		num, t, n := protowire.ConsumeTag(raw)
		if n > 0 && t == protowire.VarintType {
			v, m := protowire.ConsumeVarint(raw[n:])
			switch {
			case m < 0:
				return nil
			case num == 2 && !indexed:
				indexed, g.Index = true, v
			case num == 3 && !sized:
				sized, g.Size = true, v
			default:
				return nil
			}
			raw = raw[n+m:]
			continue
		}
		num, v, rest := field(raw)
		switch {
		case num == 1 && !salted:
			salted, g.Salt = true, v
		case num == 4:
			if g.Path == nil {
				g.Path = make([][]byte, 0, 4)
			}
			g.Path = append(g.Path, v)
		default:
			return nil
		}
		raw = rest
	}
	return g
}

// field takes a field of bytes; 0: what comes is none.
func field(raw []byte) (num protowire.Number, v, rest []byte) {
	num, t, n := protowire.ConsumeTag(raw)
	if n < 0 || t != protowire.BytesType {
		return 0, nil, nil
	}
	v, m := protowire.ConsumeBytes(raw[n:])
	if m < 0 {
		return 0, nil, nil
	}
	end := n + m
	return num, v[:len(v):len(v)], raw[end:]
}

// typeName gives the name of a type, the usual ones without making it anew.
func typeName(v []byte) string {
	for _, t := range [...]Type{Request, Clearance, Answer, Grant, Decision} {
		if string(v) == string(t) {
			return string(t)
		}
	}
	return string(v)
}
