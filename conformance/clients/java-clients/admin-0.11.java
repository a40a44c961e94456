import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** What the first admin client has (0.11). */
final class Admin0_11 implements Main.Checks {
    static final String TOPIC = Main.topic("admin");

    interface Use {
        void with(AdminClient admin) throws Exception;
    }

    static void check(String name, Use use) {
        Main.check("admin-" + name, () -> {
            Properties p = new Properties();
            p.put("bootstrap.servers", Main.BOOTSTRAP);
            try (AdminClient admin = AdminClient.create(p)) {
                use.with(admin);
            }
        });
    }

    static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(Main.CHECK_SECONDS, TimeUnit.SECONDS);
    }

    static void fails(Class<? extends Exception> with, Callable<?> call) throws Exception {
        try {
            call.call();
        } catch (ExecutionException e) {
            if (with.isInstance(e.getCause()))
                return;
            throw e;
        }
        Main.require(false, "no " + with.getSimpleName());
    }

    @Override
    public void run() {
        check("create-topic", admin -> {
            NewTopic topic = new NewTopic(TOPIC, 3, (short) 1).configs(java.util.Map.of("retention.ms", "86400000"));
            get(admin.createTopics(List.of(topic)).all());
            fails(TopicExistsException.class, () -> get(admin.createTopics(List.of(topic)).all()));
        });
        check("list-topics", admin -> Main.require(get(admin.listTopics().names()).contains(TOPIC), "not listed"));
        check("describe-topic", admin -> {
            TopicDescription d = Describe.topic(admin, TOPIC);
            Main.require(d.partitions().size() == 3 && !d.isInternal(), "topic " + d);
            Main.require(d.partitions().get(0).leader() != null && d.partitions().get(0).isr().size() == 1, "partitions " + d);
        });
        check("describe-cluster", admin -> {
            Collection<Node> nodes = get(admin.describeCluster().nodes());
            Main.require(nodes.size() == 1 && get(admin.describeCluster().controller()) != null, "nodes " + nodes);
            Main.require(!get(admin.describeCluster().clusterId()).isEmpty(), "cluster id");
        });
        check("describe-configs", admin -> {
            ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
            Main.require(get(admin.describeConfigs(List.of(topic)).all()).get(topic)
                .get("retention.ms").value().equals("86400000"), "retention.ms");
            String id = get(admin.describeCluster().nodes()).iterator().next().idString();
            ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, id);
            Main.require(get(admin.describeConfigs(List.of(broker)).all()).get(broker).entries().size() > 10, "of the broker");
        });
        check("describe-acls", admin -> fails(SecurityDisabledException.class,
            () -> get(admin.describeAcls(AclBindingFilter.ANY).values())));
        check("delete-topic", admin -> {
            String topic = Main.topic("deleted");
            get(admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all());
            get(Describe.delete(admin, topic));
            fails(UnknownTopicOrPartitionException.class, () -> get(Describe.delete(admin, topic)));
        });
    }
}
