// Package protocol is Kafka's wire format, as far as it is not left to kmsg:
// request and response headers, the Produce and Fetch APIs, the error codes,
// and the guard in front of kmsg's decoders. It imports nothing of ours but
// its own folders and does no I/O.
//
// A frame is an int32 size, which never reaches this package, and then a
// request: header, body. Bodies come in versions. From an API's first flexible
// version on (KIP-482, FirstFlexible) lengths are varints, stored one higher
// than they are with 0 for null, and every struct ends with tagged fields.
//
// Produce and Fetch are written by hand, because each partition costs there.
// Their decoders (ProduceRequest, FetchRequest) alias the frame and reuse
// their memory; their encoders (ProduceEncoder, FetchEncoder) append, and the
// Fetch encoder refers to record bytes instead of copying them. Both are held to kmsg's bytes by
// differential tests over all versions. All other APIs are
// decoded and encoded by kmsg, behind CheckRequest: kmsg believes counts that it
// reads, so an unchecked frame can make it allocate 64 times its size or
// loop four billion times.
//
// Nothing here panics on bytes from outside: they give an error that wraps
// ErrMalformed. A type of this package belongs to one goroutine at a time.
package protocol

import "errors"

// ErrMalformed means that bytes do not follow the protocol. As in Kafka, the
// answer is to close the connection.
var ErrMalformed = errors.New("malformed request")
