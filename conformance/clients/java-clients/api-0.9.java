import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/** What differs between consumers: 0.9. */
final class Api {
    static ConsumerRecords<byte[], byte[]> poll(KafkaConsumer<byte[], byte[]> consumer) {
        return consumer.poll(100);
    }

    static long end(KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition) {
        consumer.seekToEnd(partition);
        return consumer.position(partition);
    }

    static Rec rec(ConsumerRecord<byte[], byte[]> r) {
        Rec out = new Rec(r.key(), r.value());
        return out;
    }
}
