import java.util.List;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;

/** Groups (2.0). */
final class Admin2_0 implements Main.Checks {
    @Override
    public void run() {
        String group = Main.topic("group");
        TopicPartition partition = new TopicPartition(Main.topic("none"), 0);
        Admin0_11.check("list-groups", admin -> Main.require(Admin0_11.get(admin.listConsumerGroups().all()).stream()
            .anyMatch(g -> g.groupId().equals(group)), "not listed"));
        Admin0_11.check("describe-group", admin -> {
            ConsumerGroupDescription d = Admin0_11.get(admin.describeConsumerGroups(List.of(group)).all()).get(group);
            Main.require(d.members().isEmpty() && d.coordinator() != null, "group " + d);
        });
        Admin0_11.check("list-group-offsets", admin -> Main.require(Admin0_11.get(admin.listConsumerGroupOffsets(group)
            .partitionsToOffsetAndMetadata()).get(partition).offset() == 30, "offset"));
        Admin0_11.check("delete-group", admin -> {
            String gone = Main.topic("commit");
            Admin0_11.get(admin.deleteConsumerGroups(List.of(gone)).all());
            Admin0_11.fails(GroupIdNotFoundException.class, () -> Admin0_11.get(admin.deleteConsumerGroups(List.of(gone)).all()));
        });
    }
}
