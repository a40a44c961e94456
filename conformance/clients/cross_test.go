package clients

import (
	"testing"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What one client wrote, another reads: each key, value, header and timestamp
// to the byte, for every codec.
func TestEveryClientReadsEveryOther(t *testing.T) {
	sent := samples()
	// kcat prints headers without their lengths; it is compared without them.
	plain := make([]record, len(sent))
	for i, r := range sent {
		r.Headers = nil
		plain[i] = r
	}
	writers := map[string]func(t *testing.T, topic, codec string){
		"franz-go": func(t *testing.T, topic, codec string) {
			produce(t, topic, toFranz(sent), kgo.ProducerBatchCompression(franzCodecs[codec]))
		},
		"librdkafka": func(t *testing.T, topic, codec string) {
			confluentProduce(t, topic, sent, "compression.type", codec, "enable.idempotence", "true", "linger.ms", "20")
		},
	}
	for writer, write := range writers {
		for codec := range franzCodecs {
			t.Run(writer+"/"+codec, func(t *testing.T) {
				topic := newTopic(t, 1)
				write(t, topic, codec)
				diff(t, "franz-go", fromFranz(consume(t, topic, 0, 0, len(sent))), sent)
				diff(t, "librdkafka", confluentConsume(t, topic, kafka.OffsetBeginning, len(sent)), sent)
				diff(t, "kcat", kcatConsume(t, topic, 0), plain)
			})
		}
	}
}
