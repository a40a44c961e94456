import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/** Groups and commits, and what else every consumer since 0.9 has. */
final class GroupChecks implements Main.Checks {
    @Override
    public void run() {
        String topic = Main.topic("none");
        Main.check("metadata", () -> {
            try (Reader reader = new Reader()) {
                Main.require(reader.consumer.partitionsFor(topic).size() == 1, "partitions");
                Main.require(reader.consumer.partitionsFor(topic).get(0).leader() != null, "leader");
                Main.require(reader.consumer.listTopics().containsKey(topic), "list of topics");
            }
        });
        Main.check("group", () -> member("group"));
        Main.check("commit", () -> commit("commit"));
        Main.check("group-pattern", () -> {
            try (KafkaConsumer<byte[], byte[]> c = Reader.consumer("group.id", Main.topic("pattern"))) {
                c.subscribe(Pattern.compile(Pattern.quote(topic)), new ConsumerRebalanceListener() {
                    @Override
                    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    }

                    @Override
                    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    }
                });
                Main.equal(Main.canonical(), take(c, 30));
            }
        });
    }

    /** Joins a group, reads everything, commits it, leaves. */
    static void member(String group, String... settings) {
        try (KafkaConsumer<byte[], byte[]> c = consumer(group, settings)) {
            c.subscribe(List.of(Main.topic("none")));
            Main.equal(Main.canonical(), take(c, 30));
            Main.require(c.assignment().size() == 1, "assignment");
            c.commitSync();
        }
    }

    /** Two members one after the other: the second goes on where the first said. */
    static void commit(String group, String... settings) {
        TopicPartition partition = new TopicPartition(Main.topic("none"), 0);
        try (KafkaConsumer<byte[], byte[]> c = consumer(group, settings)) {
            c.subscribe(List.of(partition.topic()));
            take(c, 30);
            Map<TopicPartition, OffsetAndMetadata> seven = new HashMap<>();
            seven.put(partition, new OffsetAndMetadata(7, "seven"));
            c.commitSync(seven);
        }
        try (KafkaConsumer<byte[], byte[]> c = consumer(group, settings)) {
            c.subscribe(List.of(partition.topic()));
            Main.equal(Main.canonical().subList(7, 30), take(c, 23));
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String group, String... settings) {
        String[] all = new String[settings.length + 2];
        all[0] = "group.id";
        all[1] = Main.topic(group);
        System.arraycopy(settings, 0, all, 2, settings.length);
        return Reader.consumer(all);
    }

    private static List<Rec> take(KafkaConsumer<byte[], byte[]> c, int count) {
        List<Rec> records = new ArrayList<>();
        while (records.size() < count)
            for (ConsumerRecord<byte[], byte[]> r : Api.poll(c))
                records.add(Api.rec(r));
        return records;
    }
}

/** Members that keep their place in the group while they are away (2.3), and cooperative ones (2.4). */
final class GroupChecks2_4 implements Main.Checks {
    @Override
    public void run() {
        Main.check("group-static", () -> GroupChecks.commit("static", "group.instance.id", "one"));
        Main.check("group-cooperative", () -> GroupChecks.commit("cooperative", "partition.assignment.strategy",
            "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"));
    }
}

/** The protocol of KIP-848, for which a consumer of 3.7 or later has a setting. */
final class GroupChecks4_0 implements Main.Checks {
    @Override
    public void run() {
        Main.check("group-consumer", () -> GroupChecks.commit("consumer", "group.protocol", "consumer"));
    }
}

/** Producer ids (0.11). */
final class IdempotentChecks implements Main.Checks {
    @Override
    public void run() {
        String topic = Main.topic("idempotent");
        Main.check("idempotent", () -> {
            for (int i = 0; i < 2; i++)
                try (Writer writer = new Writer("none", "enable.idempotence", "true")) {
                    writer.send(topic, Main.canonical());
                }
            try (Reader reader = new Reader("isolation.level", "read_committed")) {
                List<Rec> twice = new ArrayList<>(Main.canonical());
                twice.addAll(Main.canonical());
                Main.equal(twice, reader.readAll(topic, 60));
            }
        });
    }
}
