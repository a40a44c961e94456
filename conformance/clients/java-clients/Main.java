import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * One phase of a row, with the clients that it was compiled with: a Writer, a Reader, and the
 * classes of further checks that the command line names.
 */
final class Main {
    static final String BOOTSTRAP = System.getenv("ZOO_BOOTSTRAP");
    static final String ROW = System.getenv("ZOO_ROW");
    static final List<String> CODECS = list("ZOO_CODECS");

    /** How long a check may take. */
    static final int CHECK_SECONDS = 20;

    private static final long CANONICAL_TIME = 1_600_000_000_000L;
    private static final int CANONICAL_COUNT = 30;

    private static final ExecutorService CHECKS = Executors.newCachedThreadPool(r -> {
        Thread t = new Thread(r);
        t.setDaemon(true);
        return t;
    });

    interface Body {
        void run() throws Exception;
    }

    /** A class of checks that the command line may name. */
    interface Checks {
        void run() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        switch (System.getenv("ZOO_PHASE")) {
            case "own":
                own(args);
                break;
            case "produce":
                for (String topic : list("ZOO_TOPICS"))
                    check("produce", () -> write(topic, topic.substring(topic.lastIndexOf('-') + 1)));
                break;
            case "consume":
                consume(list("ZOO_TOPICS"));
                break;
            default:
                throw new IllegalArgumentException("ZOO_PHASE");
        }
        System.out.flush();
        // A check that is out of time may still hang in a client.
        Runtime.getRuntime().halt(0);
    }

    private static void own(String[] args) throws Exception {
        for (String codec : CODECS) {
            String topic = topic(codec);
            check("produce-" + codec, () -> write(topic, codec));
            check("consume-" + codec, () -> {
                try (Reader reader = new Reader()) {
                    equal(canonical(), reader.readAll(topic, CANONICAL_COUNT));
                }
            });
        }
        check("tombstone", () -> roundTrip("tombstone", new Rec("t".getBytes(), null)));
        check("large", () -> roundTrip("large", new Rec("l".getBytes(), new byte[500_000])));
        for (String name : args)
            ((Checks) Class.forName(name).getDeclaredConstructor().newInstance()).run();
    }

    private static void consume(List<String> topics) throws Exception {
        try (Reader reader = new Reader()) {
            for (String topic : topics)
                check("consume", () -> {
                    StringBuilder out = new StringBuilder();
                    for (Rec r : reader.readAll(topic, -1))
                        out.append(r.json(topic)).append('\n');
                    print(out.toString());
                });
        }
    }

    /** Prints how the body went: it passes unless it throws or takes too long. */
    static void check(String name, Body body) {
        String error = null;
        Future<?> running = CHECKS.submit(() -> {
            body.run();
            return null;
        });
        try {
            running.get(CHECK_SECONDS, TimeUnit.SECONDS);
        } catch (TimeoutException e) {
            running.cancel(true);
            error = "not done after " + CHECK_SECONDS + " s";
        } catch (ExecutionException e) {
            e.getCause().printStackTrace();
            error = e.getCause().toString();
        } catch (InterruptedException e) {
            error = e.toString();
        }
        print("{\"check\":" + quote(name) + ",\"ok\":" + (error == null)
            + (error == null ? "" : ",\"error\":" + quote(error)) + "}\n");
    }

    static void require(boolean ok, String what) {
        if (!ok)
            throw new AssertionError(what);
    }

    /** A topic of this row's own. */
    static String topic(String purpose) {
        return "zoo-" + ROW + "-" + purpose;
    }

    /** Writes the canonical records to partition 0. */
    static void write(String topic, String codec) throws Exception {
        try (Writer writer = new Writer(codec)) {
            writer.send(topic, canonical());
        }
    }

    private static void roundTrip(String purpose, Rec record) throws Exception {
        String topic = topic(purpose);
        try (Writer writer = new Writer("none")) {
            writer.send(topic, List.of(record));
        }
        try (Reader reader = new Reader()) {
            equal(List.of(record), reader.readAll(topic, 1));
        }
    }

    static List<Rec> canonical() {
        List<Rec> records = new ArrayList<>();
        for (int i = 0; i < CANONICAL_COUNT; i++) {
            Rec r = new Rec(i % 7 == 3 ? null : ("k" + i).getBytes(), value(i));
            r.time = CANONICAL_TIME + 1000L * i;
            r.headers = new ArrayList<>();
            if (i % 3 == 0) {
                r.headers.add(new Header("h", ("x" + i).getBytes()));
                r.headers.add(new Header("n", null));
            }
            records.add(r);
        }
        return records;
    }

    private static byte[] value(int i) {
        if (i % 11 == 5)
            return null;
        if (i % 13 == 8)
            return new byte[0];
        if (i % 10 == 6) {
            byte[] all = new byte[256];
            for (int b = 0; b < all.length; b++)
                all[b] = (byte) b;
            return all;
        }
        return Arrays.copyOf(("v" + i + "-").repeat(50).getBytes(), 100);
    }

    /** Fails unless got is what was sent, as far as got carries times and headers. */
    static void equal(List<Rec> sent, List<Rec> got) {
        require(sent.size() == got.size(), got.size() + " records instead of " + sent.size());
        for (int i = 0; i < sent.size(); i++) {
            Rec s = sent.get(i), g = got.get(i);
            require(Arrays.equals(s.key, g.key), "record " + i + ": key " + Arrays.toString(g.key));
            require(Arrays.equals(s.value, g.value), "record " + i + ": value " + Arrays.toString(g.value));
            if (s.time != null && g.time != null && Writer.TIMES)
                require(s.time.equals(g.time), "record " + i + ": time " + g.time);
            if (s.headers != null && g.headers != null && Writer.HEADERS)
                require(s.headers.equals(g.headers), "record " + i + ": headers " + g.headers.size());
        }
    }

    static synchronized void print(String text) {
        System.out.print(text);
        System.out.flush();
    }

    private static List<String> list(String variable) {
        String value = System.getenv(variable);
        return value == null || value.isEmpty() ? List.of() : Arrays.asList(value.split(","));
    }

    static String quote(String s) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : s.toCharArray()) {
            if (c == '"' || c == '\\')
                out.append('\\').append(c);
            else
                out.append(c < ' ' ? ' ' : c);
        }
        return out.append('"').toString();
    }

    static String hex(byte[] bytes) {
        if (bytes == null)
            return "null";
        StringBuilder out = new StringBuilder("\"");
        for (byte b : bytes)
            out.append(Character.forDigit(b >> 4 & 15, 16)).append(Character.forDigit(b & 15, 16));
        return out.append('"').toString();
    }
}

final class Header {
    final String name;
    final byte[] value;

    Header(String name, byte[] value) {
        this.name = name;
        this.value = value;
    }

    @Override
    public boolean equals(Object o) {
        return o instanceof Header && name.equals(((Header) o).name) && Arrays.equals(value, ((Header) o).value);
    }

    @Override
    public int hashCode() {
        return Objects.hash(name, Arrays.hashCode(value));
    }
}

/** A record; time and headers are null where the client has none. */
final class Rec {
    final byte[] key, value;
    Long time;
    List<Header> headers;

    Rec(byte[] key, byte[] value) {
        this.key = key;
        this.value = value;
    }

    String json(String topic) {
        StringBuilder out = new StringBuilder("{\"topic\":").append(Main.quote(topic))
            .append(",\"k\":").append(Main.hex(key)).append(",\"v\":").append(Main.hex(value))
            .append(",\"t\":").append(time).append(",\"h\":");
        if (headers == null)
            return out.append("null}").toString();
        out.append('[');
        for (int i = 0; i < headers.size(); i++)
            out.append(i > 0 ? "," : "").append('[').append(Main.quote(headers.get(i).name)).append(',')
                .append(Main.hex(headers.get(i).value)).append(']');
        return out.append("]}").toString();
    }
}
