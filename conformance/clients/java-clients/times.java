import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.common.TopicPartition;

/** Offsets by time (0.10.1). */
final class TimeChecks implements Main.Checks {
    private static final long FIRST = 1_600_000_000_000L;

    @Override
    public void run() {
        TopicPartition partition = new TopicPartition(Main.topic("none"), 0);
        Main.check("seek-time", () -> {
            try (Reader reader = new Reader()) {
                OffsetAndTimestamp found = reader.consumer.offsetsForTimes(Map.of(partition, FIRST + 14_001)).get(partition);
                Main.require(found.offset() == 15 && found.timestamp() == FIRST + 15_000, "found " + found);
                Main.require(reader.consumer.offsetsForTimes(Map.of(partition, FIRST + 1_000_000)).get(partition) == null,
                    "an offset after all records");
            }
        });
        Main.check("list-offsets", () -> {
            try (Reader reader = new Reader()) {
                Main.require(reader.consumer.beginningOffsets(List.of(partition)).get(partition) == 0, "beginning");
                Main.require(reader.consumer.endOffsets(List.of(partition)).get(partition) == 30, "end");
            }
        });
    }
}
