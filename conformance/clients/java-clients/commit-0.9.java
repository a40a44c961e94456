import java.util.HashMap;
import java.util.List;
import java.util.Map;
import kafka.api.GroupCoordinatorRequest;
import kafka.api.GroupCoordinatorResponse;
import kafka.common.OffsetAndMetadata;
import kafka.common.OffsetMetadataAndError;
import kafka.common.TopicAndPartition;
import kafka.javaapi.OffsetCommitRequest;
import kafka.javaapi.OffsetCommitResponse;
import kafka.javaapi.OffsetFetchRequest;
import kafka.javaapi.consumer.SimpleConsumer;

/** Commits of version 0, which Kafka keeps in ZooKeeper, and of version 1 with a coordinator. */
final class CommitChecks implements Main.Checks {
    private final TopicAndPartition partition = new TopicAndPartition(Main.topic("none"), 0);

    @Override
    public void run() {
        Main.check("coordinator", this::coordinator);
        Main.check("commit", () -> SimpleChecks.with(c -> commit(c, (short) 1)));
        Main.check("commit-v0", () -> SimpleChecks.with(c -> commit(c, (short) 0)));
    }

    private void coordinator() throws Exception {
        int colon = Main.BOOTSTRAP.lastIndexOf(':');
        kafka.consumer.SimpleConsumer c = new kafka.consumer.SimpleConsumer(Main.BOOTSTRAP.substring(0, colon),
            Integer.parseInt(Main.BOOTSTRAP.substring(colon + 1)), 10_000, 64 * 1024, Reader.CLIENT);
        try {
            // The coordinator may have to make its topic first.
            GroupCoordinatorResponse response;
            do {
                Thread.sleep(100);
                response = c.send(new GroupCoordinatorRequest(Main.topic("commit-1"), (short) 0, 1, Reader.CLIENT));
            } while (response.errorCode() == 15);
            Main.require(response.errorCode() == 0, "error " + response.errorCode());
            Main.require(Main.BOOTSTRAP.equals(response.coordinatorOpt().get().host() + ":" + response.coordinatorOpt().get().port()),
                "coordinator " + response.coordinatorOpt());
        } finally {
            c.close();
        }
    }

    private void commit(SimpleConsumer c, short version) throws Exception {
        String group = Main.topic("commit-" + version);
        Map<TopicAndPartition, OffsetAndMetadata> offsets = new HashMap<>();
        offsets.put(partition, OffsetAndMetadata.apply(7L, "seven", System.currentTimeMillis()));
        // The coordinator may still be loading the group (14), or not be there yet (15, 16).
        short error;
        do {
            Thread.sleep(100);
            OffsetCommitResponse committed = c.commitOffsets(new OffsetCommitRequest(group, offsets, 1, Reader.CLIENT, version));
            error = committed.hasError() ? (Short) committed.errors().get(partition) : 0;
        } while (error >= 14 && error <= 16);
        Main.require(error == 0, "commit: error " + error);
        OffsetMetadataAndError fetched = c.fetchOffsets(
            new OffsetFetchRequest(group, List.of(partition), version, 2, Reader.CLIENT)).offsets().get(partition);
        Main.require(fetched.offset() == 7 && fetched.metadata().equals("seven"), "fetched " + fetched);
    }
}
