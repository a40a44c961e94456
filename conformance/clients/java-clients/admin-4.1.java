import java.util.List;

/** What the admin client learned until 4.1. */
final class Admin4_1 implements Main.Checks {
    @Override
    public void run() {
        String group = Main.topic("consumer");
        Admin0_11.check("list-all-groups", admin -> Main.require(Admin0_11.get(admin.listGroups().all()).stream()
            .anyMatch(g -> g.groupId().equals(group)), "not listed"));
        Admin0_11.check("describe-classic-group", admin -> Main.require(Admin0_11.get(admin.describeClassicGroups(
            List.of(Main.topic("group"))).all()).containsKey(Main.topic("group")), "not described"));
        Admin0_11.check("list-config-resources", admin -> Main.require(
            !Admin0_11.get(admin.listConfigResources().all()).isEmpty(), "no resources"));
    }
}
