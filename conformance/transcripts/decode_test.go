package transcripts

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
)

// recordLines makes the lines of fetched bytes: batches and messages with
// everything in them but the compressed bytes themselves, which are a matter of
// the library. A batch that is cut off is one line if nothing whole is before
// it; else clients ignore it, and how much of it is sent is a server's own
// matter.
// Offsets of batches are counted from base.
func recordLines(path string, b []byte, base int64) []string {
	if b == nil {
		return []string{path + " = null"}
	}
	if len(b) == 0 {
		return []string{path + " = empty"}
	}
	var lines []string
	for len(b) > 0 {
		const sizeEnd = 12
		size := 0
		if len(b) > posMagic {
			size = int(int32(binary.BigEndian.Uint32(b[posLength:])))
		}
		if size < 0 {
			return append(lines, fmt.Sprintf("%s: a size of %d", path, size))
		}
		if len(b) <= posMagic || size > len(b)-sizeEnd {
			if lines == nil {
				lines = []string{path + ": the beginning of a batch"}
			}
			return lines
		}
		one := b[:sizeEnd+size]
		b = b[sizeEnd+size:]
		var text []string
		if one[posMagic] == 2 {
			text = batchLines(one, base)
		} else {
			text = messageLines(one, false)
		}
		for _, line := range text {
			lines = append(lines, path+": "+line)
		}
	}
	return lines
}

func batchLines(b []byte, from int64) []string {
	if len(b) < posRecords {
		return []string{"a batch shorter than its header"}
	}
	e := binary.BigEndian
	base, attributes := int64(e.Uint64(b))-from, int16(e.Uint16(b[posAttributes:]))
	first, count := int64(e.Uint64(b[posFirstTimestamp:])), int(e.Uint32(b[posCount:]))
	records, name, err := unpack(int8(attributes&7), b[posRecords:])
	if err != nil {
		return []string{fmt.Sprintf("batch at %d: %v", base, err)}
	}
	lines := []string{fmt.Sprintf("batch at %d to %d, magic 2, %s, attributes %d, times %s to %s, producer %d epoch %d sequence %d, leader epoch %d, %d records%s",
		base, base+int64(int32(e.Uint32(b[posLastOffsetDelta:]))), name, attributes&^7, when(first), when(int64(e.Uint64(b[posMaxTimestamp:]))),
		int64(e.Uint64(b[43:])), int16(e.Uint16(b[51:])), int32(e.Uint32(b[53:])), int32(e.Uint32(b[12:])), count,
		wrong(crc32.Checksum(b[posAttributes:], castagnoli) == e.Uint32(b[posCRC:])))}
	r := &varints{b: records}
	for i := 0; i < count && !r.bad; i++ {
		length := r.next()
		rest := len(r.b)
		attributes := r.bytes(1)
		millis, offset := first+r.next(), base+r.next()
		key, value := r.bytes(r.next()), r.bytes(r.next())
		headers := ""
		for n := r.next(); n > 0 && !r.bad; n-- {
			headers += fmt.Sprintf(" %s=%s", quote(r.bytes(r.next())), quote(r.bytes(r.next())))
		}
		if r.bad || int(length) != rest-len(r.b) {
			return append(lines, fmt.Sprintf("record %d does not parse", i))
		}
		lines = append(lines, fmt.Sprintf("record %d at %s: %s=%s%s%s", offset, when(millis), quote(key), quote(value), headers,
			wrong(attributes[0] == 0)))
	}
	if len(r.b) > 0 {
		lines = append(lines, "bytes behind the records")
	}
	return lines
}

// messageLines makes the lines of one message of magic 0 or 1, and of those
// inside it.
func messageLines(m []byte, inside bool) []string {
	e := binary.BigEndian
	magic := int8(m[posMessageMagic])
	keyAt := posMessageKey0
	if magic == 1 {
		keyAt = posMessageKey1
	} else if magic != 0 {
		return []string{fmt.Sprintf("a message of magic %d", magic)}
	}
	if len(m) < keyAt+8 {
		return []string{"a message shorter than its header"}
	}
	attributes, time := int8(m[posMessageAttributes]), ""
	if magic == 1 {
		time = " at " + when(int64(e.Uint64(m[18:])))
	}
	r := &varints{b: m[keyAt:]}
	key, value := r.fixed(), r.fixed()
	if r.bad || len(r.b) > 0 {
		return []string{"a message that does not parse"}
	}
	crc := wrong(crc32.ChecksumIEEE(m[posMessageMagic:]) == e.Uint32(m[posMessageCRC:]))
	what := "message"
	if inside {
		what = "inner message"
	}
	if attributes&7 == 0 {
		return []string{fmt.Sprintf("%s %d%s, magic %d, attributes %d: %s=%s%s", what, int64(e.Uint64(m)), time, magic, attributes, quote(key), quote(value), crc)}
	}
	inner, name, err := unpack(attributes&7, value)
	if err != nil {
		return []string{fmt.Sprintf("wrapper %d: %v", int64(e.Uint64(m)), err)}
	}
	lines := []string{fmt.Sprintf("wrapper %d%s, magic %d, %s, attributes %d, key %s%s", int64(e.Uint64(m)), time, magic, name, attributes&^7, quote(key), crc)}
	for len(inner) > 0 {
		if len(inner) < posMessageKey0 || int(e.Uint32(inner[posMessageSize:])) > len(inner)-posMessageCRC {
			return append(lines, "an inner message that does not parse")
		}
		end := posMessageCRC + int(e.Uint32(inner[posMessageSize:]))
		lines = append(lines, messageLines(inner[:end], true)...)
		inner = inner[end:]
	}
	return lines
}

// when names a time of the samples by its distance from firstMillis, and any
// other as it is, or "now" if it is of this run.
func when(millis int64) string {
	const day = 24 * 60 * 60 * 1000
	switch {
	case millis >= firstMillis && millis < firstMillis+day:
		return fmt.Sprintf("t+%d", millis-firstMillis)
	case millis > firstMillis+day && millis < 2*firstMillis:
		return "now"
	}
	return strconv.FormatInt(millis, 10)
}

func wrong(right bool) string {
	if right {
		return ""
	}
	return ", WRONG"
}

func quote(b []byte) string {
	if b == nil {
		return "null"
	}
	if len(b) > 64 {
		return fmt.Sprintf("%d bytes", len(b))
	}
	return strconv.Quote(string(b))
}

// varints reads what records and messages are made of; bad is set by the first
// thing that is not there.
type varints struct {
	b   []byte
	bad bool
}

func (r *varints) next() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes takes n bytes; -1 is null.
func (r *varints) bytes(n int64) []byte {
	if n == -1 {
		return nil
	}
	if n < 0 || n > int64(len(r.b)) {
		r.bad, r.b = true, nil
		return []byte{0}
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// fixed takes bytes with their length in four before them.
func (r *varints) fixed() []byte {
	if len(r.b) < 4 {
		r.bad, r.b = true, nil
		return nil
	}
	n := int32(binary.BigEndian.Uint32(r.b))
	r.b = r.b[4:]
	return r.bytes(int64(n))
}
