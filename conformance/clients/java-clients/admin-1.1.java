import java.util.Map;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.common.TopicPartition;

/** What the admin client learned in 1.0 and 1.1. */
final class Admin1_1 implements Main.Checks {
    @Override
    public void run() {
        Admin0_11.check("create-partitions", admin -> {
            Admin0_11.get(admin.createPartitions(Map.of(Admin0_11.TOPIC, NewPartitions.increaseTo(5))).all());
            Main.require(Describe.topic(admin, Admin0_11.TOPIC).partitions().size() == 5, "partitions");
        });
        Admin0_11.check("delete-records", admin -> {
            String topic = Main.topic("records-deleted");
            Main.write(topic, "none");
            TopicPartition partition = new TopicPartition(topic, 0);
            long low = Admin0_11.get(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(10)))
                .lowWatermarks().get(partition)).lowWatermark();
            Main.require(low == 10, "low watermark " + low);
            try (Reader reader = new Reader()) {
                Main.equal(Main.canonical().subList(10, 30), reader.readAll(topic, -1));
            }
        });
    }
}
