import java.util.HashMap;
import java.util.List;
import java.util.Map;
import kafka.common.OffsetMetadataAndError;
import kafka.common.TopicAndPartition;
import kafka.javaapi.OffsetCommitRequest;
import kafka.javaapi.OffsetCommitResponse;
import kafka.javaapi.OffsetFetchRequest;
import kafka.javaapi.consumer.SimpleConsumer;

/** Commits of version 0, which Kafka keeps in ZooKeeper. */
final class CommitChecks implements Main.Checks {
    private final TopicAndPartition partition = new TopicAndPartition(Main.topic("none"), 0);

    @Override
    public void run() {
        Main.check("commit-v0", () -> SimpleChecks.with(c -> commit(c, (short) 0)));
    }

    private void commit(SimpleConsumer c, short version) {
        String group = Main.topic("commit-" + version);
        Map<TopicAndPartition, OffsetMetadataAndError> offsets = new HashMap<>();
        offsets.put(partition, new OffsetMetadataAndError(7L, "seven", (short) 0));
        OffsetCommitResponse committed = c.commitOffsets(new OffsetCommitRequest(group, offsets, version, 1, Reader.CLIENT));
        Main.require(committed.errors().isEmpty() || committed.errors().get(partition).equals((short) 0), "commit: " + committed.errors());
        OffsetMetadataAndError fetched = c.fetchOffsets(
            new OffsetFetchRequest(group, List.of(partition), version, 2, Reader.CLIENT)).offsets().get(partition);
        Main.require(fetched.offset() == 7 && fetched.metadata().equals("seven"), "fetched " + fetched);
    }
}
