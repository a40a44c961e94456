package api

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/quirelog/quire/protocol/batch"
)

// oldMessage is a message of the old formats, as a test writes it and reads it back.
type oldMessage struct {
	offset     int64
	timestamp  int64 // magic 1
	key, value []byte
	codec      batch.Codec
	attributes byte // more bits
}

// encodeMessage writes one message of a magic by hand, byte by byte.
func encodeMessage(magic int8, m oldMessage) []byte {
	b := []byte{byte(magic), byte(m.codec) | m.attributes}
	if magic > 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(m.timestamp))
	}
	for _, field := range [][]byte{m.key, m.value} {
		if field == nil {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
		} else {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(field))), field...)
		}
	}
	out := binary.BigEndian.AppendUint64(nil, uint64(m.offset))
	out = binary.BigEndian.AppendUint32(out, uint32(len(b)+4))
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(b))
	return append(out, b...)
}

// messageSet writes messages with the given values, the key of each being its value
// in capitals, at the test's own time.
func messageSet(magic int8, timestamp int64, values ...string) []byte {
	var set []byte
	for i, v := range values {
		set = append(set, encodeMessage(magic, oldMessage{
			offset: int64(i), timestamp: timestamp + int64(i), key: []byte(strings.ToUpper(v)), value: []byte(v),
		})...)
	}
	return set
}

// wrapped puts a set into a wrapper.
func wrapped(t testing.TB, magic int8, codec batch.Codec, timestamp int64, last int64, set []byte) []byte {
	t.Helper()
	value, err := batch.Compress(nil, codec, 0, set)
	check(t, err)
	return encodeMessage(magic, oldMessage{offset: last, timestamp: timestamp, codec: codec, value: value})
}

// readMessages reads a fetched set: whole messages, wrappers opened, their
// offsets made absolute as a consumer does.
func readMessages(t testing.TB, magic int8, set []byte) []oldMessage {
	t.Helper()
	var out []oldMessage
	for len(set) > 0 {
		m, rest, err := batch.NextMessage(set)
		check(t, err)
		if m == nil {
			t.Fatalf("%d bytes at the end are no message", len(set))
		}
		set = rest
		check(t, m.Verify())
		if m.Magic() != magic {
			t.Fatalf("magic %d, want %d", m.Magic(), magic)
		}
		if m.Codec() == batch.None {
			key, value, err := m.KeyValue()
			check(t, err)
			out = append(out, oldMessage{offset: m.Offset(), timestamp: m.Timestamp(), key: key, value: value})
			continue
		}
		inner, err := m.Inflate(nil, 1<<20)
		check(t, err)
		in := readMessages(t, magic, inner)
		if magic > 0 {
			shift := m.Offset() - in[len(in)-1].offset
			for i := range in {
				in[i].offset += shift
			}
		}
		for i := range in {
			in[i].codec = m.Codec()
		}
		out = append(out, in...)
	}
	return out
}

// texts are the values of messages with their offsets.
func texts(ms []oldMessage) []string {
	var out []string
	for _, m := range ms {
		out = append(out, fmt.Sprintf("%d:%s", m.offset, m.value))
	}
	return out
}

func wantTexts(t testing.TB, what string, got []oldMessage, want ...string) {
	t.Helper()
	if !slices.Equal(texts(got), want) {
		t.Errorf("%s: messages %v, want %v", what, texts(got), want)
	}
}
