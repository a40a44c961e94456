import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads as members of groups, one thread each, until standard input ends. Arguments: the
 * topic, then for each member its configs, key=value with commas. Says on standard output,
 * with the member's number: "N assigned PARTITION…", "N revoked PARTITION…", "N lost
 * PARTITION…", "N read PARTITION FIRST COUNT" for offsets without a gap, "N failed ERROR".
 */
public final class Reader {
    private static final PrintStream OUT = System.out;
    private static final AtomicBoolean ENDED = new AtomicBoolean();

    public static void main(String[] args) throws Exception {
        List<Thread> members = new ArrayList<>();
        for (int i = 1; i < args.length; i++) {
            Properties config = new Properties();
            for (String kv : args[i].split(",")) {
                int at = kv.indexOf('=');
                config.put(kv.substring(0, at), kv.substring(at + 1));
            }
            int number = i - 1;
            Thread member = new Thread(() -> member(number, args[0], config));
            members.add(member);
            member.start();
        }
        while (System.in.read() >= 0) {
            // Only its end says something.
        }
        ENDED.set(true);
        for (Thread member : members) {
            member.join();
        }
    }

    private static void say(int number, String what) {
        synchronized (OUT) {
            OUT.println(number + " " + what);
            OUT.flush();
        }
    }

    private static void say(int number, String what, Collection<TopicPartition> partitions) {
        StringBuilder line = new StringBuilder(what);
        for (TopicPartition p : partitions) {
            line.append(' ').append(p.partition());
        }
        say(number, line.toString());
    }

    private static void member(int number, String topic, Properties config) {
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    say(number, "assigned", partitions);
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    say(number, "revoked", partitions);
                }

                @Override
                public void onPartitionsLost(Collection<TopicPartition> partitions) {
                    say(number, "lost", partitions);
                }
            });
            while (!ENDED.get()) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(java.time.Duration.ofMillis(100));
                for (TopicPartition p : records.partitions()) {
                    long first = -1;
                    long next = -1;
                    for (ConsumerRecord<byte[], byte[]> r : records.records(p)) {
                        if (r.offset() != next) {
                            told(number, p, first, next);
                            first = r.offset();
                        }
                        next = r.offset() + 1;
                    }
                    told(number, p, first, next);
                }
            }
            say(number, "ended");
        } catch (Throwable e) {
            say(number, "failed " + e.toString().replace('\n', ' '));
        }
    }

    private static void told(int number, TopicPartition p, long first, long next) {
        if (first >= 0) {
            say(number, "read " + p.partition() + " " + first + " " + (next - first));
        }
    }
}
