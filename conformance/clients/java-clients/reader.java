import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/** The Java consumer on partitions that it is told. */
final class Reader implements AutoCloseable {
    final KafkaConsumer<byte[], byte[]> consumer;

    Reader(String... settings) {
        consumer = consumer(settings);
    }

    static KafkaConsumer<byte[], byte[]> consumer(String... settings) {
        Properties p = new Properties();
        p.put("bootstrap.servers", Main.BOOTSTRAP);
        p.put("key.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        p.put("value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
        p.put("enable.auto.commit", "false");
        p.put("auto.offset.reset", "earliest");
        p.put("fetch.max.wait.ms", "100");
        for (int i = 0; i < settings.length; i += 2)
            p.put(settings[i], settings[i + 1]);
        return new KafkaConsumer<>(p);
    }

    /** Reads partition 0: count records, or up to its end when count is negative. */
    List<Rec> readAll(String topic, int count) {
        TopicPartition partition = new TopicPartition(topic, 0);
        consumer.assign(List.of(partition));
        long end = Api.end(consumer, partition);
        consumer.seek(partition, 0);
        List<Rec> records = new ArrayList<>();
        while (consumer.position(partition) < end || records.size() < count)
            for (ConsumerRecord<byte[], byte[]> r : Api.poll(consumer))
                records.add(Api.rec(r));
        return records;
    }

    @Override
    public void close() {
        consumer.close();
    }
}
