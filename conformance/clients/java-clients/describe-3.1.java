import java.util.List;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.KafkaFuture;

/** Results of calls about topics, by the names they have from 3.1 on. */
final class Describe {
    static TopicDescription topic(AdminClient admin, String name) throws Exception {
        return Admin0_11.get(admin.describeTopics(List.of(name)).allTopicNames()).get(name);
    }

    static KafkaFuture<Void> delete(AdminClient admin, String name) {
        return admin.deleteTopics(List.of(name)).all();
    }
}
