import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/** What differs between consumers: 0.11 to 1.1, with headers. */
final class Api {
    static ConsumerRecords<byte[], byte[]> poll(KafkaConsumer<byte[], byte[]> consumer) {
        return consumer.poll(100);
    }

    static long end(KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition) {
        consumer.seekToEnd(List.of(partition));
        return consumer.position(partition);
    }

    static Rec rec(ConsumerRecord<byte[], byte[]> r) {
        Rec out = new Rec(r.key(), r.value());
        out.time = r.timestamp();
        out.headers = new ArrayList<>();
        r.headers().forEach(h -> out.headers.add(new Header(h.key(), h.value())));
        return out;
    }
}
