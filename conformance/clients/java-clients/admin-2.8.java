import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.quota.ClientQuotaFilter;

/** What the admin client learned from 2.3 to 2.8. */
final class Admin2_8 implements Main.Checks {
    private static final TopicPartition PARTITION = new TopicPartition(Main.topic("none"), 0);

    @Override
    public void run() {
        Admin0_11.check("incremental-alter-configs", admin -> {
            ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, Admin0_11.TOPIC);
            Admin0_11.get(admin.incrementalAlterConfigs(Map.of(topic, List.of(
                new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET)))).all());
            Main.require(Admin0_11.get(admin.describeConfigs(List.of(topic)).all()).get(topic)
                .get("retention.ms").value().equals("7200000"), "retention.ms");
        });
        Admin0_11.check("list-offsets", admin -> {
            Main.require(offset(admin, OffsetSpec.earliest()) == 0, "earliest");
            Main.require(offset(admin, OffsetSpec.latest()) == 30, "latest");
            Main.require(offset(admin, OffsetSpec.forTimestamp(1_600_000_015_000L)) == 15, "by time");
        });
        Admin0_11.check("alter-group-offsets", admin -> {
            String group = Main.topic("altered");
            Admin0_11.get(admin.alterConsumerGroupOffsets(group, Map.of(PARTITION, new OffsetAndMetadata(3))).all());
            Main.require(Admin0_11.get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata())
                .get(PARTITION).offset() == 3, "offset");
        });
        Admin0_11.check("offset-delete", admin -> {
            String group = Main.topic("altered");
            Admin0_11.get(admin.deleteConsumerGroupOffsets(group, Set.of(PARTITION)).all());
            Main.require(!Admin0_11.get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata())
                .containsKey(PARTITION), "still there");
        });
        Admin0_11.check("remove-members", admin -> {
            // A static member stays in its group when its consumer is closed.
            Admin0_11.get(admin.removeMembersFromConsumerGroup(Main.topic("static"),
                new RemoveMembersFromConsumerGroupOptions()).all());
        });
        Admin0_11.check("elect-leaders", admin -> {
            Optional<Throwable> outcome = Admin0_11.get(admin.electLeaders(ElectionType.PREFERRED, Set.of(PARTITION))
                .partitions()).get(PARTITION);
            Main.require(outcome == null || outcome.isEmpty() || outcome.get() instanceof ElectionNotNeededException,
                "elected " + outcome);
        });
        Admin0_11.check("alter-reassignments", admin -> {
            int here = Admin0_11.get(admin.describeCluster().nodes()).iterator().next().id();
            Admin0_11.get(admin.alterPartitionReassignments(Map.of(PARTITION,
                Optional.of(new NewPartitionReassignment(List.of(here))))).all());
        });
        Admin0_11.check("list-reassignments", admin -> Main.require(
            Admin0_11.get(admin.listPartitionReassignments().reassignments()).isEmpty(), "reassignments"));
        Admin0_11.check("describe-log-dirs", admin -> {
            int here = Admin0_11.get(admin.describeCluster().nodes()).iterator().next().id();
            Main.require(Admin0_11.get(admin.describeLogDirs(List.of(here)).allDescriptions()).get(here).values().stream()
                .anyMatch(d -> d.error() == null && d.replicaInfos().containsKey(PARTITION)), "no folder holds the partition");
        });
        Admin0_11.check("describe-features", admin -> Admin0_11.get(admin.describeFeatures().featureMetadata()));
        Admin0_11.check("describe-quotas", admin -> Main.require(
            Admin0_11.get(admin.describeClientQuotas(ClientQuotaFilter.all()).entities()).isEmpty(), "quotas"));
        Admin0_11.check("describe-scram", admin -> Admin0_11.get(admin.describeUserScramCredentials().all()));
    }

    private static long offset(org.apache.kafka.clients.admin.AdminClient admin, OffsetSpec spec) throws Exception {
        return Admin0_11.get(admin.listOffsets(Map.of(PARTITION, spec)).partitionResult(PARTITION)).offset();
    }
}
