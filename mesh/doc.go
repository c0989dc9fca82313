// Package mesh carries authenticated messages between peers over one UDP port.
//
// An [Endpoint] listens and dials with QUIC on one socket. Every connection is
// mutually authenticated by TLS 1.3 (how is the business of [Credentials]), and a
// peer is known by its SPIFFE ID only. On top of that there are three things:
//
//   - calls: [Handle] and [Endpoint.Call], one request and one reply; [HandleStream]
//     and [Endpoint.OpenStream], one request and many messages back;
//   - stream layers: [Endpoint.StreamLayer] gives net.Conns of another protocol
//     (ALPN), such as consensus, on connections of their own;
//   - packets: [Endpoint.Packets] sends and receives plain, unauthenticated
//     datagrams on the same port, for gossip.
//
// # On the wire
//
// The protocol of calls is ALPN "crossroads/1". Each call has a bidirectional QUIC
// stream for itself. A message on it is a big-endian uint32 length and that many
// bytes of protobuf (package meshpb). The caller sends a CallHeader and the request
// and ends its side; the other side sends a ReplyHeader and, if its status is OK, its
// message or messages, and ends. Where CallHeader.keep is set and one message is the
// answer, neither ends its side: once the answer was read, the caller may send another
// call on the stream, or end it. An answer that is an error ends the stream all the same.
// For example, a call of method "m" with a timeout of
// one second and an empty request is, in hexadecimal,
//
//	00000006  0a016d 10e807  00000000  FIN
//
// and the answer OK with an empty message
//
//	00000000  00000000  FIN
//
// A stream of messages that fails after it began is reset with the [Code] as QUIC
// stream error code. A caller that loses interest resets its stream, and that cancels
// the handler's context.
//
// A stream of a stream layer starts with the byte 0x01, because a QUIC stream is
// invisible to the other side until its first byte. Connections are closed with the
// QUIC application error codes 0 (going away), 1 (peer not admitted), 2 (certificate
// expired), 3 (too many connections).
//
// # Who is served
//
// [Config].Admit is asked for every connection and again for every call and stream, in
// both directions; [Endpoint.Drop] closes the live connections of peers that are no
// longer welcome. A connection ends when the peer's certificate does. Each peer has a
// [Quota]; what is above it is answered with [ResourceExhausted] and a time to come
// back after, never with silence.
//
// Nothing here knows what the messages mean.
package mesh
