package protocol

import "fmt"

// Keys of the APIs that this package knows by name.
const (
	keyProduce            = 0
	keyFetch              = 1
	keyControlledShutdown = 7
	keySaslHandshake      = 17
	keyAPIVersions        = 18
	keySaslAuthenticate   = 36
)

// RequestHeader is a request's header, versions 0 to 2. ClientID aliases the frame.
type RequestHeader struct {
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      string // empty if null
}

// PeekRequestHeader reads the part of a request that all header versions
// share, so that key and version can be judged before anything else is read.
func PeekRequestHeader(frame []byte) (RequestHeader, error) {
	r := reader{src: frame}
	h := RequestHeader{Key: r.int16(), Version: r.int16(), CorrelationID: r.int32()}
	return h, r.err("header")
}

// ParseRequestHeader reads a request's header; body is what follows it.
// flexible says that the header has tagged fields (v2), as FlexibleRequest
// does. The client id is a nullable string with a length of two bytes in all
// versions (KIP-482), but ControlledShutdown v0 has none.
func ParseRequestHeader(frame []byte, flexible bool) (h RequestHeader, body []byte, err error) {
	r := reader{src: frame}
	h = RequestHeader{Key: r.int16(), Version: r.int16(), CorrelationID: r.int32()}
	if h.Key != keyControlledShutdown || h.Version != 0 {
		h.ClientID, _ = r.nullableString(false)
	}
	if flexible {
		r.skipTags()
	}
	if r.bad {
		return RequestHeader{}, nil, fmt.Errorf("%w: header of API key %d v%d: %s", ErrMalformed, h.Key, h.Version, r.why)
	}
	return h, r.src, nil
}

// FlexibleRequest says whether requests of that key and version have a header
// v2 and a body with compact lengths and tagged fields.
func FlexibleRequest(key, version int16) bool {
	first := FirstFlexible(key)
	return first >= 0 && version >= first
}

// FlexibleResponse says whether the header of the response has tagged fields
// (v1). That of ApiVersions never has: the client reads it before it knows
// what the broker speaks (KIP-511).
func FlexibleResponse(key, version int16) bool {
	return key != keyAPIVersions && FlexibleRequest(key, version)
}

// AppendResponseHeader appends a response header to dst; flexible is
// FlexibleResponse of the request's key and version.
func AppendResponseHeader(dst []byte, correlationID int32, flexible bool) []byte {
	dst = appendInt32(dst, correlationID)
	if flexible {
		dst = append(dst, 0)
	}
	return dst
}

// FirstFlexible returns the first flexible version of an API, -1 if there is
// none or the key is unknown.
func FirstFlexible(key int16) int16 {
	if key < 0 || int(key) >= len(firstFlexible) {
		return -1
	}
	return int16(firstFlexible[key])
}

// firstFlexible is flexibleVersions of each API's schema, by key.
var firstFlexible = [...]int8{
	0: 9, 1: 12, 2: 6, 3: 9, 4: 4, 5: 2, 6: 6, 7: 3, 8: 8, 9: 6,
	10: 3, 11: 6, 12: 4, 13: 4, 14: 4, 15: 5, 16: 3, 17: -1, 18: 3, 19: 5,
	20: 4, 21: 2, 22: 2, 23: 4, 24: 3, 25: 3, 26: 3, 27: 1, 28: 3, 29: 2,
	30: 2, 31: 2, 32: 4, 33: 2, 34: 2, 35: 2, 36: 2, 37: 2, 38: 2, 39: 2,
	40: 2, 41: 2, 42: 2, 43: 2, 44: 1, 45: 0, 46: 0, 47: -1, 48: 1, 49: 1,
	50: 0, 51: 0, 52: 0, 53: 1, 54: 1, 55: 0, 56: 0, 57: 0, 58: 0, 59: 0,
	60: 0, 61: 0, 62: 0, 63: 0, 64: 0, 65: 0, 66: 0, 67: 0, 68: 0, 69: 0,
	70: 0, 71: 0, 72: 0, 73: 0, 74: 0, 75: 0, 76: 0, 77: 0, 78: 0, 79: 0,
	80: 0, 81: 0, 82: 0, 83: 0, 84: 0, 85: 0, 86: 0, 87: 0, 88: 0, 89: 0,
	90: 0, 91: 0, 92: 0, 93: 0, 94: 0,
}
