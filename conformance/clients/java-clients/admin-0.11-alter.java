import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.common.config.ConfigResource;

/** AlterConfigs, which replaces all of a topic's configs; gone from the client in 4.0. */
final class AdminAlter0_11 implements Main.Checks {
    @Override
    public void run() {
        Admin0_11.check("alter-configs", admin -> {
            ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, Admin0_11.TOPIC);
            Admin0_11.get(admin.alterConfigs(Map.of(topic, new Config(List.of(new ConfigEntry("max.message.bytes", "2000000"))))).all());
            Config now = Admin0_11.get(admin.describeConfigs(List.of(topic)).all()).get(topic);
            Main.require(now.get("max.message.bytes").value().equals("2000000"), "max.message.bytes");
            Main.require(!now.get("retention.ms").value().equals("86400000"), "retention.ms is still set");
        });
    }
}
