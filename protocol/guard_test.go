package protocol

import (
	"errors"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill gives every field of a kmsg message a value, so that all of its layout is encoded.
func (r random) fill(v reflect.Value, flexible bool) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.n(1) == 0)
	case reflect.Int8:
		v.SetInt(int64(int8(r.Int32())))
	case reflect.Int16:
		v.SetInt(int64(int16(r.Int32())))
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.Int32()))
	case reflect.Uint16:
		v.SetUint(uint64(uint16(r.Int32())))
	case reflect.Float64:
		v.SetFloat(r.Float64())
	case reflect.String:
		v.SetString(r.str())
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(byte(r.Uint32())))
		}
	case reflect.Pointer:
		if r.n(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			r.fill(v.Elem(), flexible)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(r.str()))
			return
		}
		if n := r.n(4); n > 0 { // else null, where the layout allows it
			v.Set(reflect.MakeSlice(v.Type(), n-1, n-1))
		}
		for i := range v.Len() {
			r.fill(v.Index(i), flexible)
		}
	case reflect.Struct:
		if t, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			if flexible && r.n(8) == 0 {
				t.Set(100+uint32(r.n(100)), []byte(r.str()))
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Version" {
				r.fill(v.Field(i), flexible)
			}
		}
	default:
		panic("kmsg has a field of kind " + v.Kind().String())
	}
}

func (r random) request(key, version int16) kmsg.Request {
	k := kmsg.RequestForKey(key)
	k.SetVersion(version)
	r.fill(reflect.ValueOf(k).Elem(), k.IsFlexible())
	k.SetVersion(version)
	return k
}

// TestLayoutsEqualKmsg shows that each layout takes what kmsg encodes to the last byte, and that
// nothing less passes.
func TestLayoutsEqualKmsg(t *testing.T) {
	for key, fields := range layouts() {
		latest := kmsg.RequestForKey(key).MaxVersion()
		for version := int16(0); version <= latest; version++ {
			for seed := range uint64(12) {
				body := newRandom(seed).request(key, version).AppendTo(nil)
				if err := CheckRequest(key, version, body); err != nil {
					t.Fatalf("%s v%d seed %d: %v", kmsg.NameForKey(key), version, seed, err)
				}
				w := newWalker(key, version, append(body, 0xff))
				w.fields(fields)
				if w.flexible {
					w.tags()
				}
				if w.r.bad || len(w.r.src) != 1 {
					t.Fatalf("%s v%d seed %d: %d bytes are left", kmsg.NameForKey(key), version, seed, len(w.r.src)-1)
				}
				for cut := 0; cut < len(body); cut += 1 + cut/20 {
					if err := CheckRequest(key, version, body[:cut]); !errors.Is(err, ErrMalformed) {
						t.Fatalf("%s v%d seed %d: cut off after %d of %d bytes: %v", kmsg.NameForKey(key), version, seed, cut, len(body), err)
					}
				}
			}
		}
	}
}

// TestLayoutsAreThere fails when kmsg learns an API that is neither here nor
// decoded elsewhere.
func TestLayoutsAreThere(t *testing.T) {
	elsewhere := map[int16]bool{keyProduce: true, keyFetch: true}
	for _, key := range []int16{4, 5, 6, 7, 52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82, 83, 84, 85, 86, 87} {
		elsewhere[key] = true // between brokers
	}
	for key := int16(0); key < 200; key++ {
		_, here := layouts()[key]
		if known := kmsg.RequestForKey(key) != nil; known != (here || elsewhere[key]) || here && elsewhere[key] {
			t.Errorf("API key %d (%s): layout %v", key, kmsg.NameForKey(key), here)
		}
		if !here && CheckRequest(key, 0, make([]byte, 100)) == nil {
			t.Errorf("API key %d without a layout passes", key)
		}
	}
}

func TestCheckRequestRefuses(t *testing.T) {
	for _, c := range []struct {
		name         string
		key, version int16
		body         string
	}{
		{"a million topics", 3, 1, "\x00\x0f\x42\x40"},
		{"topics of length -2", 3, 1, "\xff\xff\xff\xfe"},
		{"topic name of length -2", 3, 1, "\x00\x00\x00\x01\xff\xfe"},
		{"4 billion topics", 3, 9, "\xff\xff\xff\xff\x0f\x00\x00\x00\x00"},
		{"4 billion tags", 3, 9, "\x00\x00\x00\x00\xff\xff\xff\xff\x0f"},
		{"4 billion tags in a topic", 3, 9, "\x02\x01\xff\xff\xff\xff\x0f\x00\x00\x00\x00"},
		{"too long", 18, 0, string(make([]byte, maxVersionsBytes+1))},
		{"too long for SASL", 36, 0, string(make([]byte, maxSaslRequestBytes+1))},
	} {
		if err := CheckRequest(c.key, c.version, []byte(c.body)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}

	// Two arrays of one more element together than is allowed.
	body := appendInt32(nil, maxRequestElements)
	body = append(body, make([]byte, 2*maxRequestElements)...)
	if err := CheckRequest(20, 1, appendInt32(body, 0)); err != nil {
		t.Errorf("as many elements as are allowed: %v", err)
	}
	body = appendInt32(nil, maxRequestElements+1)
	body = append(body, make([]byte, 2*maxRequestElements+2)...)
	if err := CheckRequest(20, 1, appendInt32(body, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("one element more than is allowed: %v", err)
	}

	body = appendUvarint([]byte{0, 0, 0, 0}, maxRequestTags)
	body = append(body, make([]byte, 2*maxRequestTags)...)
	if err := CheckRequest(3, 9, body); err != nil {
		t.Errorf("as many tagged fields as are allowed: %v", err)
	}
	body = appendUvarint([]byte{0, 0, 0, 0}, maxRequestTags+1)
	body = append(body, make([]byte, 2*maxRequestTags+2)...)
	if err := CheckRequest(3, 9, body); !errors.Is(err, ErrMalformed) {
		t.Errorf("one tagged field more than is allowed: %v", err)
	}
}

func FuzzCheckRequest(f *testing.F) {
	for key := range layouts() {
		version := kmsg.RequestForKey(key).MaxVersion()
		f.Add(key, version, newRandom(uint64(key)).request(key, version).AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		k := kmsg.RequestForKey(key)
		if k == nil || version < 0 || version > k.MaxVersion() || CheckRequest(key, version, body) != nil {
			return
		}
		// What has passed neither hangs kmsg nor makes it allocate much: the fuzzer
		// stops at 1 s and the memory of its worker.
		k.SetVersion(version)
		if k.ReadFrom(body) != nil {
			return // a null where none may be
		}
		if err := CheckRequest(key, version, k.AppendTo(nil)); err != nil {
			t.Fatalf("what kmsg encodes again does not pass: %v", err)
		}
	})
}
