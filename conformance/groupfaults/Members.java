import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RetriableException;

/**
 * Members runs many consumers in one process, one thread each, and tells what
 * happens to them. Arguments: the topic, the time between two commits of a
 * member and that of a poll in ms, then properties of all consumers as key=value.
 *
 * <p>Commands come on standard input, events leave on standard output, one a
 * line, words separated by blanks. An event begins with System.nanoTime.
 *
 * <pre>
 * join MEMBER GROUP ASSIGNOR     TIME MEMBER assigned|revoked|lost P…
 * silence MEMBER                 TIME MEMBER received P FIRST-OFFSET COUNT
 * leave MEMBER                   TIME MEMBER commits N P:OFFSET…
 *                                TIME MEMBER committed N [ERROR]
 *                                TIME MEMBER error|fatal TEXT
 *                                TIME MEMBER closed
 * </pre>
 */
public final class Members {
  private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false, StandardCharsets.UTF_8);
  private static final Duration COMMIT = Duration.ofSeconds(20);
  private static final Duration CLOSE = Duration.ofSeconds(10);

  private Members() {}

  public static void main(String[] args) throws Exception {
    String topic = args[0];
    long commitMillis = Long.parseLong(args[1]);
    Duration poll = Duration.ofMillis(Long.parseLong(args[2]));
    Properties common = new Properties();
    for (int i = 3; i < args.length; i++) {
      String[] property = args[i].split("=", 2);
      common.put(property[0], property[1]);
    }
    Map<String, Member> members = new HashMap<>();
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] words = line.split(" ");
      switch (words[0]) {
        case "join" -> {
          Member m = new Member(words[1], topic, commitMillis, poll, properties(common, words[1], words[2], words[3]));
          members.put(words[1], m);
          Thread thread = new Thread(m, words[1]);
          thread.setDaemon(true);
          thread.start();
        }
        case "silence" -> members.get(words[1]).silent = true;
        case "leave" -> members.remove(words[1]).leave();
        default -> throw new IllegalArgumentException(line);
      }
    }
    Runtime.getRuntime().halt(0);
  }

  private static Properties properties(Properties common, String name, String group, String assignor) {
    Properties p = new Properties();
    p.putAll(common);
    p.put("client.id", name);
    p.put("group.id", group);
    p.put("enable.auto.commit", "false");
    p.put("auto.offset.reset", "earliest");
    p.put("metric.reporters", "");
    p.put("key.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
    p.put("value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer");
    String strategies = "org.apache.kafka.clients.consumer.";
    switch (assignor) {
      case "range" -> p.put("partition.assignment.strategy", strategies + "RangeAssignor");
      case "cooperative-sticky" -> p.put("partition.assignment.strategy", strategies + "CooperativeStickyAssignor");
      case "consumer" -> {
        p.put("group.protocol", "consumer");
        p.remove("session.timeout.ms");
        p.remove("heartbeat.interval.ms");
      }
      default -> throw new IllegalArgumentException(assignor);
    }
    return p;
  }

  private static synchronized void tell(long at, String member, String what) {
    OUT.println(at + " " + member + " " + what);
    OUT.flush();
  }

  private static String oneLine(Throwable t) {
    return (t.getClass().getSimpleName() + ": " + t.getMessage()).replaceAll("\\s+", " ");
  }

  private static final class Member implements Runnable, ConsumerRebalanceListener {
    private final String name;
    private final String topic;
    private final long commitMillis;
    private final Duration poll;
    private final Properties properties;
    private final Map<TopicPartition, Long> next = new LinkedHashMap<>(); // received and not committed
    private KafkaConsumer<byte[], byte[]> consumer;
    private int commits;
    private boolean leaving; // under this
    volatile boolean silent;

    Member(String name, String topic, long commitMillis, Duration poll, Properties properties) {
      this.name = name;
      this.topic = topic;
      this.commitMillis = commitMillis;
      this.poll = poll;
      this.properties = properties;
    }

    synchronized void leave() {
      leaving = true;
      notifyAll();
    }

    private synchronized boolean isLeaving() {
      return leaving;
    }

    private synchronized void awaitLeave() throws InterruptedException {
      while (!leaving) {
        wait();
      }
    }

    @Override
    public void run() {
      try (KafkaConsumer<byte[], byte[]> c = new KafkaConsumer<>(properties)) {
        consumer = c;
        c.subscribe(java.util.List.of(topic), this);
        long due = System.currentTimeMillis() + commitMillis;
        while (!isLeaving() && !silent) {
          poll();
          if (System.currentTimeMillis() >= due) {
            commit(next.keySet());
            due = System.currentTimeMillis() + commitMillis;
          }
        }
        if (silent) {
          awaitLeave();
        }
        c.close(CLOSE);
      } catch (Throwable t) {
        tell(System.nanoTime(), name, "fatal " + oneLine(t));
      }
      tell(System.nanoTime(), name, "closed");
    }

    private void poll() {
      ConsumerRecords<byte[], byte[]> records;
      try {
        records = consumer.poll(poll);
      } catch (RetriableException e) {
        tell(System.nanoTime(), name, "error poll: " + oneLine(e));
        return;
      }
      for (TopicPartition p : records.partitions()) {
        var list = records.records(p);
        ConsumerRecord<byte[], byte[]> first = list.get(0);
        next.put(p, list.get(list.size() - 1).offset() + 1);
        tell(System.nanoTime(), name, "received " + p.partition() + " " + first.offset() + " " + list.size());
      }
    }

    private void commit(Collection<TopicPartition> partitions) {
      Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
      StringBuilder text = new StringBuilder();
      for (TopicPartition p : java.util.List.copyOf(partitions)) {
        Long offset = next.remove(p);
        if (offset != null) {
          offsets.put(p, new OffsetAndMetadata(offset));
          text.append(' ').append(p.partition()).append(':').append(offset);
        }
      }
      if (offsets.isEmpty() || silent) {
        return;
      }
      int number = commits++;
      tell(System.nanoTime(), name, "commits " + number + text);
      try {
        consumer.commitSync(offsets, COMMIT);
        tell(System.nanoTime(), name, "committed " + number);
      } catch (RuntimeException e) {
        tell(System.nanoTime(), name, "committed " + number + " " + oneLine(e));
      }
    }

    private void rebalanced(String kind, Collection<TopicPartition> partitions) {
      StringBuilder text = new StringBuilder(kind);
      for (TopicPartition p : partitions) {
        text.append(' ').append(p.partition());
      }
      tell(System.nanoTime(), name, text.toString());
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
      rebalanced("assigned", partitions);
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
      if (partitions.isEmpty()) {
        return;
      }
      commit(partitions);
      rebalanced("revoked", partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
      partitions.forEach(next::remove);
      rebalanced("lost", partitions);
    }
  }
}
