import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import kafka.javaapi.producer.Producer;
import kafka.producer.KeyedMessage;
import kafka.producer.ProducerConfig;

/** The Scala producer, which the Java one replaced: a request for every call, message format 0. */
final class Writer implements AutoCloseable {
    static final boolean TIMES = false, HEADERS = false;

    private final Producer<byte[], byte[]> producer;

    Writer(String codec) {
        Properties p = new Properties();
        p.put("metadata.broker.list", Main.BOOTSTRAP);
        p.put("request.required.acks", "-1");
        p.put("serializer.class", "kafka.serializer.DefaultEncoder");
        p.put("compression.codec", codec);
        // The first request for a topic that is being created finds no leader.
        p.put("message.send.max.retries", "20");
        producer = new Producer<>(new ProducerConfig(p));
    }

    void send(String topic, List<Rec> records) {
        List<KeyedMessage<byte[], byte[]>> messages = new ArrayList<>();
        for (Rec r : records)
            messages.add(new KeyedMessage<>(topic, r.key, r.value));
        producer.send(messages);
    }

    @Override
    public void close() {
        producer.close();
    }
}
