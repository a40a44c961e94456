package metadata_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

func TestServiceInfo(t *testing.T) {
	for value, port := range map[string]int{
		"32220a06626f6f6b696510ed181a093132372e302e302e31220a626f6f6b69652d727063":   3181,
		"32230a06626f6f6b696510c3f8011a093132372e302e302e31220a626f6f6b69652d727063": 31811,
	} {
		data := decode(t, value)
		want := metadata.ServiceInfo{Endpoints: []metadata.Endpoint{{ID: "bookie", Host: "127.0.0.1", Port: port, Protocol: "bookie-rpc"}}}
		got, err := metadata.ParseServiceInfo(data)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", value, got, err)
		}
		if back := metadata.AppendServiceInfo(nil, want); string(back) != string(data) {
			t.Errorf("wrote %x, want %x", back, data)
		}
	}
	tls := metadata.ServiceInfo{Endpoints: []metadata.Endpoint{{ID: "bookie", Host: "::1", Port: 1, Protocol: "bookie-rpc", Extensions: []string{"tls", "x"}}}}
	// Properties (7) are a bookie's own business.
	data := append(metadata.AppendServiceInfo(nil, tls), lengthPrefixed(7, join(lengthPrefixed(1, []byte("k")), lengthPrefixed(2, []byte("v"))))...)
	if got, err := metadata.ParseServiceInfo(data); err != nil || !reflect.DeepEqual(got, tls) {
		t.Errorf("with TLS: %+v, %v", got, err)
	}
	if got, err := metadata.ParseServiceInfo(nil); err != nil || len(got.Endpoints) != 0 {
		t.Errorf("an empty registration: %+v, %v", got, err)
	}
	for name, data := range map[string][]byte{
		"no message":       {0xff},
		"cut short":        data[:20],
		"endpoint number":  varint(6, 1),
		"port 65536":       lengthPrefixed(6, varint(2, 65536)),
		"port -1":          lengthPrefixed(6, varint(2, -1)),
		"port is bytes":    lengthPrefixed(6, lengthPrefixed(2, nil)),
		"host is a number": lengthPrefixed(6, varint(3, 1)),
	} {
		if got, err := metadata.ParseServiceInfo(data); !errors.Is(err, metadata.ErrCorrupt) {
			t.Errorf("%s: %+v, %v, want ErrCorrupt", name, got, err)
		}
	}
}

func FuzzParseServiceInfo(f *testing.F) {
	f.Add(decode(f, "32220a06626f6f6b696510ed181a093132372e302e302e31220a626f6f6b69652d727063"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := metadata.ParseServiceInfo(data)
		if err != nil {
			if !errors.Is(err, metadata.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		again, err := metadata.ParseServiceInfo(metadata.AppendServiceInfo(nil, info))
		if err != nil || !reflect.DeepEqual(again, info) {
			t.Fatalf("%+v, %v after %+v", again, err, info)
		}
	})
}
