package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// flat is a message as a reader sees it.
type flat struct {
	offset    int64
	timestamp int64
	key       []byte
	value     []byte
}

func (f flat) equal(g flat) bool {
	return f.offset == g.offset && f.timestamp == g.timestamp &&
		bytes.Equal(f.key, g.key) && (f.key == nil) == (g.key == nil) &&
		bytes.Equal(f.value, g.value) && (f.value == nil) == (g.value == nil)
}

// message makes a message with franz-go's types, so that what is tested here is
// not measured with its own rule.
func message(magic, attributes int8, f flat) []byte {
	if magic == 1 {
		m := kmsg.MessageV1{Offset: f.offset, Magic: magic, Attributes: attributes, Timestamp: f.timestamp, Key: f.key, Value: f.value}
		m.MessageSize = int32(len(m.AppendTo(nil)) - 12)
		return summed(m.AppendTo(nil))
	}
	m := kmsg.MessageV0{Offset: f.offset, Magic: magic, Attributes: attributes, Key: f.key, Value: f.value}
	m.MessageSize = int32(len(m.AppendTo(nil)) - 12)
	return summed(m.AppendTo(nil))
}

// summed puts the CRC of the one message right.
func summed(m []byte) []byte {
	m = bytes.Clone(m)
	binary.BigEndian.PutUint32(m[12:], crc32.ChecksumIEEE(m[16:]))
	return m
}

// wrapper makes a compressed message set of magic 0 or 1.
func wrapper(t testing.TB, magic int8, c Codec, f flat, inner ...[]byte) []byte {
	t.Helper()
	if c != None {
		packed, err := Compress(nil, c, 0, slices.Concat(inner...))
		if err != nil {
			t.Fatal(err)
		}
		f.value = packed
	}
	return message(magic, int8(c), f)
}

// altered returns m changed by f, with its CRC put right again.
func altered(m []byte, f func(m []byte)) []byte {
	m = bytes.Clone(m)
	f(m)
	return summed(m)
}

// readSet reads a message set as an old consumer does: with wrappers inflated
// and all offsets absolute.
func readSet(t testing.TB, set []byte) (all []flat) {
	t.Helper()
	for len(set) > 0 {
		m, rest, err := NextMessage(set)
		if err != nil || m == nil {
			t.Fatalf("%d bytes from the end of a set: %v", len(set), err)
		}
		set = rest
		key, value := checkMessage(t, m)
		if m.Codec() == None {
			all = append(all, flat{m.Offset(), m.Timestamp(), key, value})
			continue
		}
		if key != nil {
			t.Fatalf("a wrapper with key %q", key)
		}
		inner, err := m.Inflate(nil, 1<<26)
		if err != nil {
			t.Fatal(err)
		}
		var in []flat
		for len(inner) > 0 {
			i, rest, err := NextMessage(inner)
			if err != nil || i == nil {
				t.Fatalf("%d bytes from the end of an inner set: %v", len(inner), err)
			}
			inner = rest
			if i.Codec() != None || i.Magic() != m.Magic() || i.LogAppendTime() != m.LogAppendTime() {
				t.Fatalf("codec %v, magic %d, LogAppendTime %t in a wrapper of magic %d, LogAppendTime %t",
					i.Codec(), i.Magic(), i.LogAppendTime(), m.Magic(), m.LogAppendTime())
			}
			key, value := checkMessage(t, i)
			in = append(in, flat{i.Offset(), i.Timestamp(), key, value})
		}
		newest := NoTimestamp
		for i := range in {
			newest = max(newest, in[i].timestamp)
			if m.Magic() == 1 {
				in[i].offset += m.Offset() - in[len(in)-1].offset
			}
		}
		if last := in[len(in)-1].offset; last != m.Offset() || newest != m.Timestamp() {
			t.Fatalf("wrapper of offset %d and time %d, in it %d and %d", m.Offset(), m.Timestamp(), last, newest)
		}
		if m.Magic() == 1 && m.Offset() != 0 {
			if i, _, _ := NextMessage(mustInflate(t, m)); i.Offset() != 0 {
				t.Fatalf("the first relative offset is %d", i.Offset())
			}
		}
		all = append(all, in...)
	}
	return all
}

func mustInflate(t testing.TB, m Message) []byte {
	b, err := m.Inflate(nil, 1<<26)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkMessage(t testing.TB, m Message) (key, value []byte) {
	t.Helper()
	if err := m.Verify(); err != nil {
		t.Fatal(err)
	}
	key, value, err := m.KeyValue()
	if err != nil {
		t.Fatal(err)
	}
	return key, value
}

func compareFlat(t testing.TB, what string, got, want []flat) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d messages, not %d", what, len(got), len(want))
	}
	for i := range got {
		if !got[i].equal(want[i]) {
			t.Fatalf("%s: message %d: %d %d %q %q, not %d %d %q %q", what, i,
				got[i].offset, got[i].timestamp, got[i].key, got[i].value,
				want[i].offset, want[i].timestamp, want[i].key, want[i].value)
		}
	}
}

func TestMessageAccessors(t *testing.T) {
	f := flat{1 << 40, 1600000000123, []byte("k"), []byte("value")}
	for magic := range int8(2) {
		raw := message(magic, 0x0b, f)
		m, rest, err := NextMessage(append(raw, 1, 2, 3))
		if err != nil || !bytes.Equal(m, raw) || len(rest) != 3 {
			t.Fatalf("%d bytes, %d left: %v", len(m), len(rest), err)
		}
		key, value := checkMessage(t, m)
		want := f
		if magic == 0 {
			want.timestamp = NoTimestamp
		}
		if got := (flat{m.Offset(), m.Timestamp(), key, value}); !got.equal(want) {
			t.Fatalf("magic %d: %v, not %v", magic, got, want)
		}
		if m.Magic() != magic || m.Codec() != LZ4 || m.LogAppendTime() != (magic == 1) {
			t.Fatalf("magic %d: %d, codec %v, LogAppendTime %t", magic, m.Magic(), m.Codec(), m.LogAppendTime())
		}
		if m, _, err := NextMessage(rest); m != nil || err != nil {
			t.Fatalf("of 3 bytes: %x, %v", m, err)
		}
		// A message cut off at the end of a set is no message.
		for n := range len(raw) {
			if m, _, err := NextMessage(raw[:n]); m != nil || err != nil {
				t.Fatalf("of %d bytes: %x, %v", n, m, err)
			}
		}
	}
}

func TestNextMessageRefuses(t *testing.T) {
	good := message(1, 0, flat{key: []byte("k"), value: []byte("v")})
	size := func(n int32) []byte {
		return altered(good, func(m []byte) { binary.BigEndian.PutUint32(m[8:], uint32(n)) })
	}
	for name, c := range map[string]struct {
		set  []byte
		want error
	}{
		"size below the minimum":          {size(13), ErrCorrupt},
		"size 0":                          {size(0), ErrCorrupt},
		"negative size":                   {size(-1), ErrCorrupt},
		"smallest size":                   {size(-1 << 31), ErrCorrupt},
		"magic 3":                         {altered(good, func(m []byte) { m[16] = 3 }), ErrCorrupt},
		"magic -1":                        {altered(good, func(m []byte) { m[16] = 0xff }), ErrCorrupt},
		"a batch":                         {reference(None, nil, threeRecords()...), ErrInvalid},
		"a size is bad before a magic is": {altered(size(13), func(m []byte) { m[16] = 9 }), ErrCorrupt},
		"the magic of a cut off message":  {altered(size(1<<30), func(m []byte) { m[16] = 9 }), ErrCorrupt},
	} {
		if m, _, err := NextMessage(c.set); m != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
	}
	if m, _, err := NextMessage(size(1 << 30)); m != nil || err != nil {
		t.Errorf("cut off: %v", err)
	}
}

func TestMessageVerifySeesEveryBit(t *testing.T) {
	for magic := range int8(2) {
		good := message(magic, 0, flat{0, 77, []byte("k"), []byte("v")})
		for i := 12 * 8; i < len(good)*8; i++ {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			if err := Message(bad).Verify(); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("magic %d, bit %d: %v", magic, i, err)
			}
		}
	}
	small := summed(append(binary.BigEndian.AppendUint32(make([]byte, 8), 21), append([]byte{0, 0, 0, 0, 1}, make([]byte, 16)...)...))
	if err := Message(small).Verify(); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("magic 1 of 21 bytes: %v", err)
	}
}

func TestXXH32(t *testing.T) {
	// From the reference implementation.
	for in, want := range map[string]uint32{"": 0x02cc5d05, "a": 0x550d7456, "abc": 0x32d153ff} {
		if got := xxh32([]byte(in)); got != want {
			t.Errorf("%q: %08x, not %08x", in, got, want)
		}
	}
}
