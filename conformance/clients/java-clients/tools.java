import java.io.ByteArrayOutputStream;
import java.io.OutputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** The command line tools that came with the Scala clients, each as a process of its own. */
final class ToolChecks implements Main.Checks {
    static final String TOPIC = Main.topic("tools");

    @Override
    public void run() {
        Main.check("tool-console-producer", () ->
            tool("one\ntwo\n", "kafka.tools.ConsoleProducer", "--broker-list", Main.BOOTSTRAP, "--topic", TOPIC));
        Main.check("tool-get-offset-shell", () -> {
            String out = tool("", "kafka.tools.GetOffsetShell", "--broker-list", Main.BOOTSTRAP, "--topic", TOPIC, "--time", "-1");
            Main.require(out.contains(TOPIC + ":0:2"), "printed " + out);
        });
        Main.check("tool-simple-consumer-shell", () -> {
            String out = tool("", "kafka.tools.SimpleConsumerShell", "--broker-list", Main.BOOTSTRAP, "--topic", TOPIC,
                "--partition", "0", "--offset", "-2", "--no-wait-at-logend");
            Main.require(out.contains("one\n") && out.contains("two\n"), "printed " + out);
        });
    }

    /** Runs a main class with this program's class path and returns its standard output. */
    static String tool(String input, String... classAndArguments) throws Exception {
        List<String> command = new ArrayList<>(List.of("java", "-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", System.getProperty("java.class.path")));
        command.addAll(List.of(classAndArguments));
        Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        try (OutputStream stdin = process.getOutputStream()) {
            stdin.write(input.getBytes());
        }
        try {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            process.getInputStream().transferTo(out);
            Main.require(process.waitFor(Main.CHECK_SECONDS, TimeUnit.SECONDS) && process.exitValue() == 0, "exit status");
            return out.toString();
        } finally {
            process.destroyForcibly();
        }
    }
}

/** The console consumer that needs no ZooKeeper (0.9). */
final class ToolChecks0_9 implements Main.Checks {
    @Override
    public void run() {
        Main.check("tool-console-consumer", () -> {
            String out = ToolChecks.tool("", "kafka.tools.ConsoleConsumer", "--new-consumer", "--bootstrap-server", Main.BOOTSTRAP,
                "--topic", ToolChecks.TOPIC, "--from-beginning", "--max-messages", "2");
            Main.require(out.equals("one\ntwo\n"), "printed " + out);
        });
    }
}
