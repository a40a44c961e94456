import java.util.List;
import org.apache.kafka.common.TopicPartition;

/** What the admin client learned from 3.0 to 3.9. */
final class Admin3_9 implements Main.Checks {
    @Override
    public void run() {
        TopicPartition partition = new TopicPartition(Main.topic("none"), 0);
        Admin0_11.check("describe-producers", admin -> Admin0_11.get(admin.describeProducers(List.of(partition))
            .partitionResult(partition)));
        Admin0_11.check("list-transactions", admin -> Admin0_11.get(admin.listTransactions().all()));
        Admin0_11.check("describe-quorum", admin -> Main.require(
            Admin0_11.get(admin.describeMetadataQuorum().quorumInfo()).leaderId() >= 0, "leader"));
        Admin0_11.check("list-client-metrics", admin -> Main.require(
            Admin0_11.get(admin.listClientMetricsResources().all()).isEmpty(), "client metrics"));
    }
}
