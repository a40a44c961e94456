package offsets

import (
	"bytes"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quirelog/quire/storage/meta"
)

func decodeChunk(value []byte) map[int]Offset {
	m := map[int]Offset{}
	for c := openChunk(value); c.next(); {
		m[c.at] = c.decoded()
	}
	return m
}

func encodeChunk(m map[int]Offset) []byte {
	var k chunk
	k.open(nil)
	for at, o := range m {
		k.set(at, &o)
	}
	return k.append(nil)
}

// The value is a format on disk.
func TestChunkBytes(t *testing.T) {
	value := encodeChunk(map[int]Offset{
		0:   {Offset: 100, LeaderEpoch: 3, CommitTime: 1000, ExpireTime: NoExpireTime},
		1:   {Offset: 0, LeaderEpoch: -1, CommitTime: 1000, ExpireTime: NoExpireTime, Metadata: "m"},
		127: {Offset: 1 << 40, LeaderEpoch: -1, CommitTime: 999, ExpireTime: 2000},
	})
	want := "01" + "00c80106d00f" + "020001" + "00016d" + "f5030180808080804" + "0" + "01" + "01" + "d20f"
	want = "01" + // version
		"00" + "c801" + "06" + "d00f" +
		"02" + "00" + "01" + "00" + "016d" +
		"f503" + "808080808040" + "01" + "01" + "d20f"
	if got := hex.EncodeToString(value); got != want {
		t.Fatalf("chunk is\n%s, want\n%s", got, want)
	}
}

var anyOffset = rapid.Custom(func(t *rapid.T) Offset {
	o := Offset{
		Offset:      rapid.Int64().Draw(t, "offset"),
		LeaderEpoch: rapid.Int32().Draw(t, "epoch"),
		CommitTime:  rapid.Int64().Draw(t, "commit time"),
		ExpireTime:  NoExpireTime,
		Metadata:    rapid.String().Draw(t, "metadata"),
	}
	if rapid.Bool().Draw(t, "expires") {
		o.ExpireTime = rapid.Int64().Draw(t, "expire time")
	}
	return o
})

func TestChunkRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.MapOf(rapid.IntRange(0, PartitionsPerChunk-1), anyOffset).Draw(t, "offsets")
		value := encodeChunk(m)
		if len(m) == 0 {
			if value != nil {
				t.Fatalf("no offsets are %x", value)
			}
			return
		}
		if err := checkChunk(value); err != nil {
			t.Fatal(err)
		}
		if got := decodeChunk(value); !maps.Equal(got, m) {
			t.Fatalf("offsets come back as %v", got)
		}
	})
}

// A chunk changed again and again is the map changed again and again.
func TestChunkUpdate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var k chunk
		var value []byte
		m := map[int]Offset{}
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			k.open(value)
			changed := false
			for range rapid.IntRange(1, 4).Draw(t, "updates") {
				at := rapid.IntRange(0, 3).Draw(t, "at")
				u := Update{Action: Action(rapid.IntRange(0, 2).Draw(t, "action"))}
				u.Offset = anyOffset.Draw(t, "offset")
				if rapid.Bool().Draw(t, "unchanged") {
					u.Offset = m[at]
				}
				before, had := m[at]
				switch {
				case u.Action == Set:
					m[at] = u.Offset
				case u.Action == Remove || before == u.Offset:
					delete(m, at)
				}
				after, has := m[at]
				did := k.update(at, &u, 0)
				if !did && (had != has || before != after) {
					t.Fatalf("%+v on %+v changed nothing", u, before)
				}
				changed = changed || did
			}
			if changed {
				value = k.append(nil)
			}
			if got := decodeChunk(value); !maps.Equal(got, m) {
				t.Fatalf("offsets are %v, want %v", got, m)
			}
			if len(m) == 0 {
				value = nil
			}
		}
	})
}

func TestUnchangedIsSkipped(t *testing.T) {
	stored := Offset{Offset: 5, CommitTime: 1000, ExpireTime: NoExpireTime, LeaderEpoch: 1, Metadata: "m"}
	for name, test := range map[string]struct {
		change func(*Offset)
		want   bool
	}{
		"same":         {func(*Offset) {}, false},
		"soon after":   {func(o *Offset) { o.CommitTime += 59_999 }, false},
		"long after":   {func(o *Offset) { o.CommitTime += 60_000 }, true},
		"before":       {func(o *Offset) { o.CommitTime-- }, true},
		"offset":       {func(o *Offset) { o.Offset++ }, true},
		"leader epoch": {func(o *Offset) { o.LeaderEpoch++ }, true},
		"metadata":     {func(o *Offset) { o.Metadata = "n" }, true},
		"expire time":  {func(o *Offset) { o.ExpireTime = 5000 }, true},
	} {
		var k chunk
		k.open(encodeChunk(map[int]Offset{0: stored}))
		u := Update{PartitionOffset: PartitionOffset{Offset: stored}}
		test.change(&u.Offset)
		if got := k.update(0, &u, 60_000); got != test.want {
			t.Errorf("%s: changes %v, want %v", name, got, test.want)
		}
	}
}

// A full chunk with as much metadata as Kafka allows by default is one value.
func TestFullChunkFits(t *testing.T) {
	m := map[int]Offset{}
	for at := range PartitionsPerChunk {
		m[at] = Offset{Offset: 1<<63 - 1, LeaderEpoch: 1<<31 - 1, CommitTime: int64(at%2) << 62, ExpireTime: 1 << 61, Metadata: strings.Repeat("x", 4096)}
	}
	if n := len(encodeChunk(m)); n > meta.MaxValueBytes {
		t.Fatalf("a full chunk is %d bytes, a value at most %d", n, meta.MaxValueBytes)
	}
}

func TestChunkRefused(t *testing.T) {
	good := encodeChunk(map[int]Offset{0: {ExpireTime: 7, Metadata: "abc"}, 127: {ExpireTime: NoExpireTime}})
	bad := map[string][]byte{
		"empty":            {},
		"no entries":       {chunkVersion},
		"other version":    append([]byte{chunkVersion + 1}, good[1:]...),
		"entry too far":    slices.Concat(good, []byte{0, 0, 0, 0}),
		"long varint":      append([]byte{chunkVersion}, bytes.Repeat([]byte{0xff}, 11)...),
		"epoch of 64 bits": {chunkVersion, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 0},
		"metadata cut off": {chunkVersion, hasMetadata, 0, 0, 0, 5, 'a'},
	}
	for n := 1; n < len(good); n++ {
		if n != len(encodeChunk(map[int]Offset{0: {ExpireTime: 7, Metadata: "abc"}})) {
			bad["cut at "+hex.EncodeToString([]byte{byte(n)})] = good[:n]
		}
	}
	for name, value := range bad {
		if err := checkChunk(value); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %x gives %v", name, value, err)
		}
	}
}

func FuzzChunk(f *testing.F) {
	f.Fuzz(func(t *testing.T, value []byte) {
		if checkChunk(value) != nil {
			return
		}
		m := decodeChunk(value)
		if len(m) == 0 {
			t.Fatalf("%x is taken and has no offsets", value)
		}
		var k chunk
		k.open(value)
		again := k.append(nil)
		if got := decodeChunk(again); !maps.Equal(got, m) {
			t.Fatalf("%x holds %v, and %v when it is written again", value, m, got)
		}
		if len(again) > len(value) {
			t.Fatalf("%x grows to %x", value, again)
		}
	})
}
