package protocol

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestParseRequestHeader(t *testing.T) {
	for _, c := range []struct {
		name     string
		frame    string
		flexible bool
		clientID string
		body     string // "!" means malformed
	}{
		{"v1", "\x00\x03\x00\x01\x00\x00\x00\x07\x00\x02idbody", false, "id", "body"},
		{"v1, null client id", "\x00\x03\x00\x01\x00\x00\x00\x07\xff\xffbody", false, "", "body"},
		{"v2", "\x00\x03\x00\x09\x00\x00\x00\x07\x00\x02id\x00body", true, "id", "body"},
		{"v2, null client id", "\x00\x03\x00\x09\x00\x00\x00\x07\xff\xff\x00body", true, "", "body"},
		{"v2, tagged fields", "\x00\x03\x00\x09\x00\x00\x00\x07\x00\x02id\x02\x00\x03abc\x90\x01\x00body", true, "id", "body"},
		{"v0 of ControlledShutdown", "\x00\x07\x00\x00\x00\x00\x00\x07body", false, "", "body"},
		{"empty body", "\x00\x03\x00\x01\x00\x00\x00\x07\x00\x00", false, "", ""},
		{"nothing", "", false, "", "!"},
		{"cut off in the correlation id", "\x00\x03\x00\x01\x00\x00\x00", false, "", "!"},
		{"no client id", "\x00\x03\x00\x01\x00\x00\x00\x07", false, "", "!"},
		{"client id of length -2", "\x00\x03\x00\x01\x00\x00\x00\x07\xff\xfe", false, "", "!"},
		{"client id beyond the end", "\x00\x03\x00\x01\x00\x00\x00\x07\x00\x09id", false, "", "!"},
		{"no tagged fields", "\x00\x03\x00\x09\x00\x00\x00\x07\x00\x02id", true, "", "!"},
		{"4 billion tagged fields", "\x00\x03\x00\x09\x00\x00\x00\x07\x00\x02id\xff\xff\xff\xff\x0f", true, "", "!"},
		{"tagged field beyond the end", "\x00\x03\x00\x09\x00\x00\x00\x07\x00\x02id\x01\x00\xff\x01", true, "", "!"},
	} {
		h, body, err := ParseRequestHeader([]byte(c.frame), c.flexible)
		if c.body == "!" {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || h.CorrelationID != 7 || h.ClientID != c.clientID || string(body) != c.body {
			t.Errorf("%s: %+v, body %q, %v", c.name, h, body, err)
		}
		p, err := PeekRequestHeader([]byte(c.frame))
		if err != nil || p.Key != h.Key || p.Version != h.Version || p.CorrelationID != 7 {
			t.Errorf("%s: peek: %+v, %v", c.name, p, err)
		}
	}
	if _, err := PeekRequestHeader([]byte("\x00\x03\x00\x01\x00\x00\x00")); !errors.Is(err, ErrMalformed) {
		t.Errorf("peek at 7 bytes: %v", err)
	}
}

// TestHeadersEqualKmsg holds which header a request and its response have to kmsg.
func TestHeadersEqualKmsg(t *testing.T) {
	keys := 0
	for key := int16(0); key < 200; key++ {
		k := kmsg.RequestForKey(key)
		if k == nil {
			if FirstFlexible(key) != -1 {
				t.Errorf("key %d: first flexible version %d of an unknown API", key, FirstFlexible(key))
			}
			continue
		}
		keys++
		for version := int16(0); version <= k.MaxVersion(); version++ {
			k.SetVersion(version)
			if got := FlexibleRequest(key, version); got != k.IsFlexible() {
				t.Errorf("%s v%d: flexible %v", kmsg.NameForKey(key), version, got)
			}
			response := k.ResponseKind()
			if got, want := FlexibleResponse(key, version), response.IsFlexible() && key != 18; got != want {
				t.Errorf("%s v%d: flexible response %v", kmsg.NameForKey(key), version, got)
			}
		}
	}
	if keys < 90 {
		t.Fatalf("compared %d APIs", keys)
	}
	if FirstFlexible(-1) != -1 || FlexibleRequest(17, 9) || FlexibleRequest(-5, 0) {
		t.Error("an API without flexible versions is flexible")
	}
	if !FlexibleRequest(18, 99) || FlexibleResponse(18, 99) {
		t.Error("ApiVersions of a version to come must be read with header v2 and answered with header v0")
	}
}

func FuzzRequestHeader(f *testing.F) {
	f.Add([]byte("\x00\x03\x00\x09\x00\x00\x00\x07\x00\x02id\x02\x00\x03abc\x90\x01\x00body"), true)
	f.Add([]byte("\x00\x03\x00\x01\x00\x00\x00\x07\xff\xffbody"), false)
	f.Fuzz(func(t *testing.T, frame []byte, flexible bool) {
		h, body, err := ParseRequestHeader(frame, flexible)
		if err != nil {
			if h != (RequestHeader{}) || body != nil || !errors.Is(err, ErrMalformed) {
				t.Fatalf("%+v, %q, %v", h, body, err)
			}
			return
		}
		if len(h.ClientID)+len(body)+8 > len(frame) {
			t.Fatalf("took %d bytes of client id and %d of body from %d", len(h.ClientID), len(body), len(frame))
		}
	})
}
