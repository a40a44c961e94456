package transcripts

import (
	"encoding/binary"
	"hash/crc32"
)

// The encoders are this package's own, so that the server's are compared with
// something else, and so that any field can be wrong.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// firstMillis is the time of the first record of a batch unless a step says
// otherwise; each further one is a second later.
const firstMillis = 1_600_000_000_000

// text is an optional byte string: nil is null.
func text(s string) []byte { return []byte(s) }

// A record as all formats have it. Those before magic 2 have no headers, magic
// 0 has no time.
type record struct {
	key, value []byte
	millis     int64
	headers    [][2][]byte
}

// sample are n records: a null key, a null value, an empty value, headers with
// and without value.
func sample(n int) []record {
	all := []record{
		{key: text("k0"), value: text("v0"), headers: [][2][]byte{{text("h"), text("x")}, {text("n"), nil}}},
		{key: nil, value: text("v1")},
		{key: text("k2"), value: nil},
		{key: text("k3"), value: text("")},
		{key: text(""), value: text("v4")},
	}
	var list []record
	for i := range n {
		r := all[i%len(all)]
		r.millis = firstMillis + 1000*int64(i)
		list = append(list, r)
	}
	return list
}

// keyed are n records with keys.
func keyed(n int) []record {
	list := sample(n)
	for i := range list {
		list[i].key = text("key")
	}
	return list
}

// at moves records in time: the first is at millis.
func at(millis int64, list []record) []record {
	for i := range list {
		list[i].millis = millis + 1000*int64(i)
	}
	return list
}

// A batch is one record batch of magic 2. Numbers that follow from the records
// are filled in by bytes before change sees them.
type batch struct {
	records    []record
	codec      codec
	attributes int16 // beside the codec
	producerID int64
	epoch      int16
	sequence   int32
	inner      func(records []byte) []byte // changes the records before they are compressed
	change     func(b []byte) []byte       // changes the batch before its checksum is made
	last       func(b []byte) []byte       // changes the finished batch
}

func plain(records ...record) batch {
	return batch{records: records, codec: none, producerID: -1, epoch: -1, sequence: -1}
}

func (b batch) packed(c codec) batch { b.codec = c; return b }

func (b batch) from(producerID int64, epoch int16, sequence int32) batch {
	b.producerID, b.epoch, b.sequence = producerID, epoch, sequence
	return b
}

// Positions in a record batch.
const (
	posLength          = 8
	posMagic           = 16
	posCRC             = 17
	posAttributes      = 21
	posLastOffsetDelta = 23
	posFirstTimestamp  = 27
	posMaxTimestamp    = 35
	posCount           = 57
	posRecords         = 61
)

func (b batch) bytes() []byte {
	var records []byte
	base, highest := int64(firstMillis), int64(-1)
	if len(b.records) > 0 {
		base = b.records[0].millis
	}
	for i, r := range b.records {
		highest = max(highest, r.millis)
		one := []byte{0}
		one = binary.AppendVarint(one, r.millis-base)
		one = binary.AppendVarint(one, int64(i))
		one = appendVarBytes(one, r.key)
		one = appendVarBytes(one, r.value)
		one = binary.AppendVarint(one, int64(len(r.headers)))
		for _, h := range r.headers {
			one = appendVarBytes(one, h[0])
			one = appendVarBytes(one, h[1])
		}
		records = binary.AppendVarint(records, int64(len(one)))
		records = append(records, one...)
	}
	if b.inner != nil {
		records = b.inner(records)
	}
	e := binary.BigEndian
	out := make([]byte, posMagic, 256)
	e.PutUint32(out[12:], 0xffffffff) // no leader epoch
	out = append(out, 2, 0, 0, 0, 0)
	out = e.AppendUint16(out, uint16(b.attributes)|uint16(b.codec.number))
	out = e.AppendUint32(out, uint32(len(b.records)-1))
	out = e.AppendUint64(out, uint64(base))
	out = e.AppendUint64(out, uint64(highest))
	out = e.AppendUint64(out, uint64(b.producerID))
	out = e.AppendUint16(out, uint16(b.epoch))
	out = e.AppendUint32(out, uint32(b.sequence))
	out = e.AppendUint32(out, uint32(len(b.records)))
	out = append(out, b.codec.pack(records)...)
	e.PutUint32(out[posLength:], uint32(len(out)-12))
	if b.change != nil {
		out = b.change(out)
	}
	e.PutUint32(out[posCRC:], crc32.Checksum(out[posAttributes:], castagnoli))
	if b.last != nil {
		out = b.last(out)
	}
	return out
}

func appendVarBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

// A message of magic 0 or 1 in an old message set.
type message struct {
	magic      int8
	attributes int8
	offset     int64
	millis     int64
	key, value []byte
	change     func(m []byte) []byte // changes the message before its checksum is made
	last       func(m []byte) []byte // changes the finished message
}

// Positions in a message of a set.
const (
	posMessageSize       = 8
	posMessageCRC        = 12
	posMessageMagic      = 16
	posMessageAttributes = 17
	posMessageKey0       = 18 // length of the key in magic 0
	posMessageKey1       = 26 // and in magic 1
)

func (m message) bytes() []byte {
	e := binary.BigEndian
	out := e.AppendUint64(nil, uint64(m.offset))
	out = append(out, 0, 0, 0, 0, 0, 0, 0, 0, byte(m.magic), byte(m.attributes))
	if m.magic > 0 {
		out = e.AppendUint64(out, uint64(m.millis))
	}
	out = appendBytes(out, m.key)
	out = appendBytes(out, m.value)
	if m.change != nil {
		out = m.change(out)
	}
	e.PutUint32(out[posMessageSize:], uint32(len(out)-posMessageCRC))
	e.PutUint32(out[posMessageCRC:], crc32.ChecksumIEEE(out[posMessageMagic:]))
	if m.last != nil {
		out = m.last(out)
	}
	return out
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.BigEndian.AppendUint32(dst, 0xffffffff)
	}
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(b))), b...)
}

// messages makes single messages of records with the offsets 0, 1, 2….
func messages(magic int8, records []record) []message {
	var list []message
	for i, r := range records {
		list = append(list, message{magic: magic, offset: int64(i), millis: r.millis, key: r.key, value: r.value})
	}
	return list
}

func set(list ...message) []byte {
	var out []byte
	for _, m := range list {
		out = append(out, m.bytes()...)
	}
	return out
}

// wrapper makes the message that holds a compressed set, with the offset that
// producers give it: 0.
func wrapper(magic int8, c codec, inner []byte) message {
	return message{magic: magic, attributes: c.number, millis: firstMillis, value: c.pack(inner)}
}
