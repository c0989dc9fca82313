package envelope

import "google.golang.org/protobuf/encoding/protowire"

// inGroup is what a message that was signed with others carries beside the signature.
type inGroup struct {
	salt        []byte
	index, size uint64
	path        [][]byte
}

// write gives the bytes of an envelope with one signature, just as package proto has them;
// g is nil for a message that was signed alone. Every exchange signs some three.
func write(t Type, payload []byte, keyID string, sig []byte, g *inGroup) []byte {
	group := 0
	if g != nil {
		group = g.bytes()
	}
	signature := sizeOf(len(keyID)) + sizeOf(len(sig))
	if g != nil {
		signature += 1 + protowire.SizeBytes(group)
	}
	b := make([]byte, 0, sizeOf(len(t))+sizeOf(len(payload))+1+protowire.SizeBytes(signature))
	b = appendField(b, 1, t)
	b = appendField(b, 2, payload)
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(signature))
	b = appendField(b, 1, keyID)
	b = appendField(b, 2, sig)
	if g != nil {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = g.append(protowire.AppendVarint(b, uint64(group)))
	}
	return b
}

// sizeOf is that of a field of n bytes, with its tag; one that is empty is left out.
func sizeOf(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(n)
}

func appendField[T ~string | ~[]byte](b []byte, num protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

func (g *inGroup) bytes() int {
	n := sizeOf(len(g.salt)) + 1 + protowire.SizeVarint(g.size)
	if g.index != 0 {
		n += 1 + protowire.SizeVarint(g.index)
	}
	for _, p := range g.path {
		n += 1 + protowire.SizeBytes(len(p))
	}
	return n
}

func (g *inGroup) append(b []byte) []byte {
	b = appendField(b, 1, g.salt)
	if g.index != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), g.index)
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), g.size)
	for _, p := range g.path {
		b = protowire.AppendBytes(protowire.AppendTag(b, 4, protowire.BytesType), p)
	}
	return b
}
