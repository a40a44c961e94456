package wire

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch returns a valid, uncompressed record batch (magic 2) of one record
// with a null key. producerID, epoch and sequence are -1 for a producer that
// is not idempotent.
func Batch(producerID int64, epoch int16, sequence int32, millis int64, value string) []byte {
	rec := kmsg.Record{Value: []byte(value)}
	rec.Length = int32(len(rec.AppendTo(nil)) - 1) // its own varint takes one byte while zero
	records := rec.AppendTo(nil)
	b := kmsg.RecordBatch{
		Magic: 2, PartitionLeaderEpoch: -1, FirstTimestamp: millis, MaxTimestamp: millis,
		ProducerID: producerID, ProducerEpoch: epoch, FirstSequence: sequence, NumRecords: 1, Records: records,
	}
	raw := b.AppendTo(nil)
	const lengthEnd = 12
	binary.BigEndian.PutUint32(raw[lengthEnd-4:], uint32(len(raw)-lengthEnd))
	return Seal(raw)
}

// Seal sets the checksum of a batch to what its bytes demand, and returns it.
func Seal(batch []byte) []byte {
	const crcEnd = 21
	binary.BigEndian.PutUint32(batch[crcEnd-4:], crc32.Checksum(batch[crcEnd:], castagnoli))
	return batch
}

// Produce returns a request that writes one batch to one partition with
// acks=all.
func Produce(topic string, partition int32, batch []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 30_000
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, batch
	tp := kmsg.NewProduceRequestTopic()
	tp.Topic, tp.Partitions = topic, []kmsg.ProduceRequestTopicPartition{part}
	req.Topics = []kmsg.ProduceRequestTopic{tp}
	return req
}
