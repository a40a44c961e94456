package offsets

import (
	"encoding/hex"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func id(b byte) TopicID {
	var t TopicID
	for i := range t {
		t[i] = b
	}
	return t
}

// The keys are a format on disk.
func TestKeys(t *testing.T) {
	k := Keys{Prefix: "quire/c/"}
	topic := id(0xfb)
	chunk := string(appendChunk([]byte(k.GroupOffsets(7, "my group/ü%")), &topic, 12))
	for _, test := range []struct{ got, want string }{
		{k.Records(0), "quire/c/g/0000/"},
		{k.Records(1023), "quire/c/g/1023/"},
		{k.Record(7, "billing"), "quire/c/g/0007/billing"},
		{k.Record(7, ""), "quire/c/g/0007/%"},
		{k.Record(12345, "x"), "quire/c/g/12345/x"},
		{k.Offsets(70), "quire/c/o/0070/"},
		{k.GroupOffsets(700, "a/b"), "quire/c/o/0700/a%2Fb/"},
		{chunk, "quire/c/o/0007/my%20group%2F%C3%BC%25/-_v7-_v7-_v7-_v7-_v7-w/12"},
		{k.Sequence("7-0"), "quire/c/seq/7-0"},
	} {
		if test.got != test.want {
			t.Errorf("key %q, want %q", test.got, test.want)
		}
	}
}

func TestKeysRoundTrip(t *testing.T) {
	k := Keys{Prefix: "quire/c/"}
	rapid.Check(t, func(t *rapid.T) {
		group := string(rapid.SliceOf(rapid.Byte()).Draw(t, "group"))
		var topic TopicID
		copy(topic[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic"))
		partition := rapid.Int32().Draw(t, "partition")
		number, at := chunkOf(partition)
		if got := partitionAt(number, at); got != partition {
			t.Fatalf("partition %d is %d in chunk %d, which is partition %d", partition, at, number, got)
		}
		key := string(appendChunk([]byte(k.GroupOffsets(3, group)), &topic, number))
		escaped, gotTopic, gotNumber, ok := parseChunk(strings.TrimPrefix(key, k.Offsets(3)))
		if !ok || gotTopic != topic || gotNumber != number {
			t.Fatalf("key %q is of topic %x, chunk %d, %v", key, gotTopic, gotNumber, ok)
		}
		if got, ok := unescape(escaped); !ok || got != group {
			t.Fatalf("group %q comes back as %q, %v", group, got, ok)
		}
		if strings.ContainsRune(escaped, '/') || escaped == "" {
			t.Fatalf("group %q is %q in a key", group, escaped)
		}
	})
}

// What is taken for a key is exactly what would be written.
func FuzzParseChunk(f *testing.F) {
	for _, s := range []string{
		"g/AAAAAAAAAAAAAAAAAAAAAA/0", "%/AAAAAAAAAAAAAAAAAAAAAA/33554431", "%2F/AAAAAAAAAAAAAAAAAAAAAA/01",
		"%2f/AAAAAAAAAAAAAAAAAAAAAA/1", "a/AAAAAAAAAAAAAAAAAAAAAB/1", "a/AAAAAAAAAAAAAAAAAAAAA\n/1", "a//", "", "%41/AAAAAAAAAAAAAAAAAAAAAA/+1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		escaped, topic, number, ok := parseChunk(rest)
		if !ok {
			return
		}
		group, ok := unescape(escaped)
		if !ok {
			return
		}
		again := string(appendChunk(append(appendEscaped(nil, group), '/'), &topic, number))
		if again != rest {
			t.Fatalf("%q is read as group %s, which is written %q", rest, hex.EncodeToString([]byte(group)), again)
		}
	})
}
