import java.util.HashMap;
import java.util.List;
import java.util.Map;
import kafka.api.PartitionOffsetRequestInfo;
import kafka.common.TopicAndPartition;
import kafka.javaapi.OffsetRequest;
import kafka.javaapi.OffsetResponse;
import kafka.javaapi.PartitionMetadata;
import kafka.javaapi.TopicMetadata;
import kafka.javaapi.TopicMetadataRequest;
import kafka.javaapi.consumer.SimpleConsumer;

/** What a client of 0.8 asks for beside records: metadata and offsets by time. */
final class SimpleChecks implements Main.Checks {
    private final String topic = Main.topic("none");
    private final TopicAndPartition partition = new TopicAndPartition(topic, 0);

    @Override
    public void run() {
        Main.check("metadata", () -> with(this::metadata));
        Main.check("list-offsets", () -> with(c -> {
            Main.require(before(c, -2L)[0] == 0, "earliest offset");
            Main.require(before(c, -1L)[0] == 30, "latest offset");
        }));
        // Version 0 answers with the starts of segments written before the time.
        Main.check("seek-time", () -> with(c -> {
            long[] now = before(c, System.currentTimeMillis() + 3_600_000);
            Main.require(now.length > 0, "no offset before a time to come");
            long[] old = before(c, 1000);
            Main.require(old.length == 0 || old[0] == 0, "offset before all records");
        }));
    }

    interface Use {
        void with(SimpleConsumer c) throws Exception;
    }

    static void with(Use use) throws Exception {
        SimpleConsumer c = Reader.connect();
        try {
            use.with(c);
        } finally {
            c.close();
        }
    }

    private void metadata(SimpleConsumer c) {
        List<TopicMetadata> topics = c.send(new TopicMetadataRequest(List.of(topic))).topicsMetadata();
        Main.require(topics.size() == 1 && topics.get(0).errorCode() == 0, "topic " + topics);
        PartitionMetadata p = topics.get(0).partitionsMetadata().get(0);
        Main.require(p.errorCode() == 0 && p.leader() != null && p.isr().size() == 1, "partition " + p);
        Main.require(Main.BOOTSTRAP.equals(p.leader().host() + ":" + p.leader().port()), "leader " + p.leader());
        Main.require(c.send(new TopicMetadataRequest(List.of())).topicsMetadata().size() > 1, "no topics means all");
    }

    private long[] before(SimpleConsumer c, long time) {
        Map<TopicAndPartition, PartitionOffsetRequestInfo> what = new HashMap<>();
        what.put(partition, new PartitionOffsetRequestInfo(time, 10));
        OffsetResponse response = c.getOffsetsBefore(new OffsetRequest(what, (short) 0, Reader.CLIENT));
        Main.require(!response.hasError(), "error " + response.errorCode(topic, 0));
        return response.offsets(topic, 0);
    }
}
