import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/** The Java producer with timestamps (0.10). */
final class Writer implements AutoCloseable {
    static final boolean TIMES = true, HEADERS = false;

    private final KafkaProducer<byte[], byte[]> producer;

    Writer(String codec, String... settings) {
        Properties p = new Properties();
        p.put("bootstrap.servers", Main.BOOTSTRAP);
        p.put("key.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
        p.put("value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
        p.put("acks", "all");
        p.put("retries", "5");
        p.put("linger.ms", "50");
        p.put("compression.type", codec);
        for (int i = 0; i < settings.length; i += 2)
            p.put(settings[i], settings[i + 1]);
        producer = new KafkaProducer<>(p);
    }

    void send(String topic, List<Rec> records) throws Exception {
        List<Future<?>> sent = new ArrayList<>();
        for (Rec r : records)
            sent.add(producer.send(new ProducerRecord<>(topic, 0, r.time, r.key, r.value)));
        for (Future<?> f : sent)
            f.get(Main.CHECK_SECONDS, TimeUnit.SECONDS);
    }

    int partitions(String topic) {
        return producer.partitionsFor(topic).size();
    }

    @Override
    public void close() {
        producer.close();
    }
}
