package protocol

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestPeekGroup holds against kmsg what is read of requests about one group.
func TestPeekGroup(t *testing.T) {
	compared := 0
	for key := int16(0); key < 100; key++ {
		q := kmsg.RequestForKey(key)
		if q == nil {
			continue
		}
		for version := int16(0); version <= q.MaxVersion(); version++ {
			if !NamesGroup(key, version) {
				continue
			}
			compared++
			q := kmsg.RequestForKey(key)
			q.SetVersion(version)
			reflect.ValueOf(q).Elem().FieldByName("Group").SetString("the group")
			if j, ok := q.(*kmsg.JoinGroupRequest); ok {
				j.SessionTimeoutMillis, j.RebalanceTimeoutMillis = 10_000, 60_000
			}
			body := q.AppendTo(nil)
			if id, err := PeekGroup(key, version, body); err != nil || id != "the group" {
				t.Errorf("%s v%d: %q, %v", kmsg.NameForKey(key), version, id, err)
			}
			for n := range len("the group") {
				if id, err := PeekGroup(key, version, body[:n]); !errors.Is(err, ErrMalformed) {
					t.Errorf("%s v%d: %d bytes are the group %q, %v", kmsg.NameForKey(key), version, n, id, err)
				}
			}
			if key == keyJoinGroup {
				want := time.Minute
				if version == 0 {
					want = 10 * time.Second
				}
				if d, err := PeekJoinTimeout(version, body); err != nil || d != want {
					t.Errorf("JoinGroup v%d may wait for %v, %v; want %v", version, d, err, want)
				}
				if _, err := PeekJoinTimeout(version, body[:12]); !errors.Is(err, ErrMalformed) {
					t.Errorf("JoinGroup v%d without timeouts: %v", version, err)
				}
			}
		}
	}
	if compared < 40 {
		t.Errorf("compared %d versions only", compared)
	}
	if NamesGroup(keyOffsetFetch, offsetFetchOfMany) || NamesGroup(keyProduce, 0) {
		t.Error("an API that is not about one group is taken for one that is")
	}
}

func FuzzPeekGroup(f *testing.F) {
	f.Add(int16(keyJoinGroup), int16(9), []byte("\x02g\x00\x00\x27\x10\x00\x00\x27\x10"))
	f.Add(int16(keyHeartbeat), int16(0), []byte("\x00\x01g"))
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		id, err := PeekGroup(key, version, body)
		if err != nil && !errors.Is(err, ErrMalformed) || len(id) > len(body) {
			t.Fatalf("%q, %v", id, err)
		}
		if _, err := PeekJoinTimeout(version, body); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
	})
}
