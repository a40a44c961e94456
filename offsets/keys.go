package offsets

import (
	"encoding/base64"
	"strconv"
	"strings"
)

// Keys names the facts of groups. All lie under Prefix, "quire/{cluster}/":
//
//	g/{slot}/{group}                      group record; its format is its writer's
//	o/{slot}/{group}/{topic id}/{chunk}   offsets of PartitionsPerChunk partitions, see encoding.go
//	seq/{name}                            sequence of the committer of that name
//	seq/{name}/{any}                      its spares, see sequence
//
// The slot is four decimal digits. A topic id is 22 characters of base64url.
// The chunk is decimal; chunk n holds the partitions from n × PartitionsPerChunk
// on. A group id is any bytes: all but printable ASCII without '%' and '/' is
// %XX with upper-case digits, and the empty id, which some clients use, is "%".
type Keys struct{ Prefix string }

// PartitionsPerChunk is how many partitions of a topic share one key. A chunk
// of as many offsets with metadata of 4,096 bytes each, Kafka's default limit,
// fits into a value of the metadata store.
const PartitionsPerChunk = 128

// Records is the prefix of the group records of a slot.
func (k Keys) Records(slot int) string { return k.slot("g/", slot) }

// Record is the key of a group's record.
func (k Keys) Record(slot int, group string) string {
	return string(appendEscaped(k.appendSlot(nil, "g/", slot), group))
}

// Offsets is the prefix of the offsets of all groups of a slot.
func (k Keys) Offsets(slot int) string { return k.slot("o/", slot) }

// GroupOffsets is the prefix of a group's offsets and of no other's: an escaped
// id has no '/'.
func (k Keys) GroupOffsets(slot int, group string) string {
	return string(append(appendEscaped(k.appendSlot(nil, "o/", slot), group), '/'))
}

// Sequence is the key that chains a committer's transactions.
func (k Keys) Sequence(name string) string { return k.Prefix + "seq/" + name }

// Spares is the prefix of a committer's spare keys.
func (k Keys) Spares(name string) string { return k.Sequence(name) + "/" }

func (k Keys) slot(kind string, slot int) string { return string(k.appendSlot(nil, kind, slot)) }

func (k Keys) appendSlot(dst []byte, kind string, slot int) []byte {
	dst = append(append(dst, k.Prefix...), kind...)
	for width := 1000; width > 1 && slot < width; width /= 10 {
		dst = append(dst, '0')
	}
	return append(strconv.AppendInt(dst, int64(slot), 10), '/')
}

// appendChunk appends the rest of a chunk's key to what GroupOffsets returns.
func appendChunk(dst []byte, topic *TopicID, chunk int32) []byte {
	dst = base64.RawURLEncoding.AppendEncode(dst, topic[:])
	return strconv.AppendInt(append(dst, '/'), int64(chunk), 10)
}

// parseChunk takes apart what follows Offsets in a key. escaped is the group as
// it stands there, also if the rest is not what it should be.
func parseChunk(rest string) (escaped string, topic TopicID, chunk int32, ok bool) {
	escaped, rest, _ = strings.Cut(rest, "/")
	id, number, _ := strings.Cut(rest, "/")
	if len(id) != base64.RawURLEncoding.EncodedLen(len(topic)) {
		return escaped, topic, 0, false
	}
	// Decode takes line breaks for nothing, so the length is not enough.
	if n, err := base64.RawURLEncoding.Strict().Decode(topic[:], []byte(id)); err != nil || n != len(topic) {
		return escaped, topic, 0, false
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n > maxChunk || number[0] == '0' && len(number) > 1 {
		return escaped, topic, 0, false
	}
	return escaped, topic, int32(n), true
}

const maxChunk = 1<<32/PartitionsPerChunk - 1

// chunkOf returns where a partition's offset lies: its chunk and its place there.
func chunkOf(partition int32) (chunk int32, at int) {
	return int32(uint32(partition) / PartitionsPerChunk), int(uint32(partition) % PartitionsPerChunk)
}

// partitionAt is chunkOf the other way round.
func partitionAt(chunk int32, at int) int32 {
	return int32(uint32(chunk)*PartitionsPerChunk + uint32(at))
}

const hexDigits = "0123456789ABCDEF"

func plain(b byte) bool { return '!' <= b && b <= '~' && b != '%' && b != '/' }

// appendEscaped appends a group id in the form that it has in keys.
func appendEscaped(dst []byte, group string) []byte {
	if group == "" {
		return append(dst, '%')
	}
	for i := range len(group) {
		if b := group[i]; plain(b) {
			dst = append(dst, b)
		} else {
			dst = append(dst, '%', hexDigits[b>>4], hexDigits[b&15])
		}
	}
	return dst
}

// unescape is strict: each id has one form only, so a key that it takes is the
// key that would be written.
func unescape(escaped string) (group string, ok bool) {
	if escaped == "%" {
		return "", true
	}
	raw := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		b := escaped[i]
		if plain(b) {
			raw = append(raw, b)
			continue
		}
		if b != '%' || i+2 >= len(escaped) {
			return "", false
		}
		high, low := strings.IndexByte(hexDigits, escaped[i+1]), strings.IndexByte(hexDigits, escaped[i+2])
		if high < 0 || low < 0 || plain(byte(high<<4|low)) {
			return "", false
		}
		raw = append(raw, byte(high<<4|low))
		i += 2
	}
	return string(raw), len(raw) > 0
}
