package transcripts

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// produceOld writes message sets of magic 0 and 1, as clients before 0.11 did.
// Every set goes to a partition of its own at each version, and what became of
// it is read back in every format.
func (s *script) produceOld() {
	sets := oldSets()
	const versions = 3
	s.create(
		topicSpec{"old", int32(versions * len(sets)), nil},
		topicSpec{"old-again", versions, nil},
		topicSpec{"old-compact", 6 * versions, []string{"cleanup.policy", "compact"}},
		topicSpec{"old-small", 6 * versions, []string{"max.message.bytes", "200"}},
		topicSpec{"old-recent", 6 * versions, []string{"message.timestamp.before.max.ms", "86400000", "message.timestamp.after.max.ms", "86400000"}},
		topicSpec{"old-append", 6 * versions, []string{"message.timestamp.type", "LogAppendTime"}},
		topicSpec{"old-lz4", 6 * versions, []string{"compression.type", "lz4"}},
		topicSpec{"old-uncompressed", 6 * versions, []string{"compression.type", "uncompressed"}},
	)
	next := map[string]int32{}
	try := func(name, topic string, raw []byte) {
		s.t.Helper()
		partition := next[topic]
		next[topic] += versions
		stored := map[int16]bool{}
		for v := range int16(versions) {
			s.own = partition + int32(v)
			resp := s.ask(name, s.produceTo(part{topic, s.own, raw}), v)
			stored[v] = resp != nil && resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode == 0
		}
		read := func(v, fetch int16) {
			s.own = partition + int32(v)
			of := fmt.Sprintf("%s, written at v%d", name, v)
			if stored[v] {
				s.ask(of, s.fetchFrom(fetchPart{topic, s.own, 0, 1 << 20}), fetch)
			} else {
				s.note(fmt.Sprintf("%s: Fetch v%d", of, fetch), nothing)
			}
		}
		for v := range int16(versions) {
			read(v, 4)
		}
		for fetch := range int16(4) {
			read(versions-1, fetch)
		}
		s.own = -1
	}
	now := time.Now().UnixMilli()
	const dayMillis = 24 * 60 * 60 * 1000
	s.old(func() {
		for _, c := range sets {
			try(c.name, "old", c.raw)
		}
		for magic := range int8(2) {
			of := fmt.Sprintf("of magic %d, ", magic)
			try("old set "+of+"with and without keys", "old-compact", set(messages(magic, sample(3))...))
			try("old set "+of+"with keys", "old-compact", set(messages(magic, keyed(2))...))
			try("old set "+of+"too large", "old-small", set(message{magic: magic, value: make([]byte, 200), millis: firstMillis}))
			try("old set "+of+"too large until packed", "old-small", set(wrapper(magic, gzipped, set(message{magic: magic, value: make([]byte, 200), millis: firstMillis}))))
			try("old set "+of+"several small messages", "old-small", set(messages(magic, sample(8))...))
			try("old set "+of+"too old", "old-recent", set(messages(magic, sample(2))...))
			try("old set "+of+"too new", "old-recent", set(messages(magic, at(now+2*dayMillis, sample(2)))...))
			try("old set "+of+"to time of appending", "old-append", set(messages(magic, sample(2))...))
			try("old set "+of+"packed by the topic", "old-lz4", set(messages(magic, sample(2))...))
			try("old set "+of+"unpacked by the topic", "old-uncompressed", set(wrapper(magic, gzipped, set(messages(magic, sample(2))...))))
		}
		one := set(messages(0, sample(1))...)
		s.all("old set, unknown topic", same(s.produceTo(part{"nothing", 0, one})), 0, 2)
		s.all("old set, unknown partition", same(s.produceTo(part{"old", 9999, one})), 0, 2)
		for _, acks := range []int16{0, 1, 2} {
			for _, partition := range []int32{0, 9999} {
				r := s.produceTo(part{"old-again", partition, one})
				r.Acks = acks
				s.all(fmt.Sprintf("old set to partition %d, acks %d", partition, acks), func(v int16) kmsg.Request {
					r.Topics[0].Partitions[0].Partition = partition + int32(v)
					return r
				}, 0, 2)
			}
		}
		s.all("old set and others", func(v int16) kmsg.Request {
			return s.produceTo(part{"old-again", int32(v), one}, part{"old-again", 9999, one}, part{"nothing", 0, one}, part{"old", 1, flip(one)})
		}, 0, 2)
	})
}

type namedSet struct {
	name string
	raw  []byte
}

// oldSets are the sets of both magics, right and wrong.
func oldSets() []namedSet {
	var list []namedSet
	add := func(magic int8, name string, raw []byte) {
		list = append(list, namedSet{fmt.Sprintf("old set of magic %d, %s", magic, name), raw})
	}
	put32 := func(pos int, v int32) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint32(b[pos:], uint32(v)); return b }
	}
	for magic := range int8(2) {
		key, other := posMessageKey0, 1-magic
		if magic == 1 {
			key = posMessageKey1
		}
		one := func() message { return messages(magic, sample(1))[0] }
		changed := func(f func([]byte) []byte) []byte { m := one(); m.change = f; return m.bytes() }
		finished := func(f func([]byte) []byte) []byte { m := one(); m.last = f; return m.bytes() }
		three := messages(magic, sample(5))[1:4]
		relative := messages(magic, sample(3))
		packed := func(c codec, inner ...message) []byte { return set(wrapper(magic, c, set(inner...))) }
		add(magic, "one message", one().bytes())
		add(magic, "several messages", set(three...))
		add(magic, "offsets all zero", set(one(), one(), one()))
		add(magic, "null key and value", message{magic: magic, millis: firstMillis}.bytes())
		for _, c := range []codec{gzipped, snappyXerial, snappyRaw, lz4Framed, lz4Broken, zstdFramed} {
			add(magic, c.name, packed(c, relative...))
		}
		add(magic, "two wrappers", append(packed(gzipped, relative...), packed(snappyXerial, relative...)...))
		add(magic, "message and wrapper", append(one().bytes(), packed(gzipped, relative...)...))
		add(magic, "wrapper and message", append(packed(gzipped, relative...), one().bytes()...))
		add(magic, "inner offsets from 5", packed(gzipped, func() []message {
			list := messages(magic, sample(3))
			for i := range list {
				list[i].offset += 5
			}
			return list
		}()...))
		add(magic, "inner offsets zero", packed(gzipped, one(), one()))
		add(magic, "inner offsets with a gap", packed(gzipped, func() []message {
			list := messages(magic, sample(3))
			list[2].offset = 9
			return list
		}()...))
		add(magic, "wrapper's offset of the last", set(func() message {
			w := wrapper(magic, gzipped, set(relative...))
			w.offset = 2
			return w
		}()))
		add(magic, "wrapper with key", set(func() message {
			w := wrapper(magic, gzipped, set(relative...))
			w.key = text("k")
			return w
		}()))
		add(magic, "wrapper of nothing", packed(gzipped))
		add(magic, "wrapper without value", message{magic: magic, attributes: 1, millis: firstMillis}.bytes())
		add(magic, "wrapper of an empty value", message{magic: magic, attributes: 1, millis: firstMillis, value: []byte{}}.bytes())
		add(magic, "wrapper of garbage", message{magic: magic, attributes: 1, millis: firstMillis, value: text("never compressed")}.bytes())
		add(magic, "wrapper in wrapper", packed(gzipped, wrapper(magic, gzipped, set(relative...))))
		add(magic, "message and wrapper in wrapper", packed(gzipped, one(), wrapper(magic, gzipped, set(relative...))))
		add(magic, "inner message of the other magic", packed(gzipped, messages(other, sample(2))...))
		add(magic, "inner batch of magic 2", set(wrapper(magic, gzipped, plain(sample(2)...).bytes())))
		add(magic, "inner checksum wrong", set(wrapper(magic, gzipped, flip(set(relative...)))))
		add(magic, "inner message cut off", set(wrapper(magic, gzipped, set(relative...)[:len(set(relative...))-2])))
		add(magic, "inner partial message", set(wrapper(magic, gzipped, append(set(relative...), set(relative...)[:20]...))))
		add(magic, "inner size negative", set(wrapper(magic, gzipped, put32(posMessageSize, -4)(set(relative...)))))
		add(magic, "inner key too long", packed(gzipped, message{magic: magic, millis: firstMillis, change: put32(key, 1000)}))
		add(magic, "checksum wrong", flip(one().bytes()))
		add(magic, "wrapper's checksum wrong", flip(packed(gzipped, relative...)))
		add(magic, "second checksum wrong", append(one().bytes(), flip(one().bytes())...))
		add(magic, "partial message behind", append(one().bytes(), one().bytes()[:20]...))
		add(magic, "three bytes behind", append(one().bytes(), 1, 2, 3))
		add(magic, "partial message alone", one().bytes()[:20])
		add(magic, "size too high", finished(func(b []byte) []byte { return put32(posMessageSize, int32(len(b)))(b) }))
		add(magic, "size negative", finished(put32(posMessageSize, -1)))
		add(magic, "size of 3", finished(put32(posMessageSize, 3)))
		add(magic, "size too low", finished(func(b []byte) []byte { return put32(posMessageSize, int32(len(b)-13))(b) }))
		add(magic, "key longer than the message", changed(put32(key, 1000)))
		add(magic, "key of length -2", changed(put32(key, -2)))
		add(magic, "value longer than the message", message{magic: magic, millis: firstMillis, key: text("k"), change: put32(key+5, 1000)}.bytes())
		add(magic, "bytes behind the value", changed(func(b []byte) []byte { return append(b, 1, 2, 3) }))
		add(magic, "offset of 9", message{magic: magic, millis: firstMillis, offset: 9, key: text("k")}.bytes())
		add(magic, "offset negative", message{magic: magic, millis: firstMillis, offset: -9, key: text("k")}.bytes())
		add(magic, "codec 5", message{magic: magic, attributes: 5, millis: firstMillis, value: text("v")}.bytes())
		add(magic, "time type bit", message{magic: magic, attributes: 8, millis: firstMillis, value: text("v")}.bytes())
		add(magic, "time type bit on a wrapper", set(func() message {
			w := wrapper(magic, gzipped, set(relative...))
			w.attributes |= 8
			return w
		}()))
		add(magic, "unknown attribute", message{magic: magic, attributes: 16, millis: firstMillis, value: text("v")}.bytes())
		add(magic, "and the other magic", append(one().bytes(), messages(other, sample(1))[0].bytes()...))
		add(magic, "and magic 2", append(one().bytes(), plain(sample(1)...).bytes()...))
	}
	add(1, "time of -1", message{magic: 1, millis: -1, value: text("v")}.bytes())
	add(1, "time of -5", message{magic: 1, millis: -5, value: text("v")}.bytes())
	add(1, "wrapper's time wrong", set(func() message {
		w := wrapper(1, gzipped, set(messages(1, sample(2))...))
		w.millis = 5
		return w
	}()))
	add(2, "plain", plain(sample(3)...).bytes())
	add(2, "gzip", plain(sample(3)...).packed(gzipped).bytes())
	add(2, "zstd", plain(sample(3)...).packed(zstdFramed).bytes())
	add(2, "two batches", append(plain(sample(3)...).bytes(), plain(sample(1)...).bytes()...))
	add(2, "base offset of 5", func() []byte {
		b := plain(sample(1)...)
		b.change = func(raw []byte) []byte { raw[7] = 5; return raw }
		return b.bytes()
	}())
	add(2, "idempotent", plain(sample(1)...).from(7100, 0, 0).bytes())
	add(2, "checksum wrong", flip(plain(sample(1)...).bytes()))
	add(3, "plain", func() []byte {
		b := plain(sample(1)...)
		b.change = func(raw []byte) []byte { raw[posMagic] = 3; return raw }
		return b.bytes()
	}())
	list = append(list, namedSet{"old set, empty", []byte{}})
	return list
}
